"""What the control socket can ask for.  Everything is begun at once, and finished by the reconcilers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from supervisor.endpoints.ports import CommandError
from supervisor.reconcile.worker import Worker
from supervisor.reconcile.workers import WorkerReconciler

Answer = dict[str, object]
USAGE, WRONG = 2, 1
STARTING = frozenset({"start", "restart", "reload"})
"""What a daemon that is stopping would wait for without end."""


class Reload(Protocol):
    def __call__(self) -> Answer:
        """Read the configuration again and apply it.  Raises CommandError, having changed nothing."""
        ...


class CommandDesk:
    """Implements :class:`supervisor.endpoints.ports.Commands`."""

    def __init__(
        self,
        workers: WorkerReconciler,
        *,
        reload: Reload,
        hand_off: Callable[[], None],
        stopping: Callable[[], bool],
        development: bool,
        livekit_url: Callable[[], str],
        server_id: str,
    ) -> None:
        self._workers = workers
        self._reload = reload
        self._hand_off = hand_off
        self._stopping = stopping
        self._development = development
        self._livekit_url = livekit_url
        self._server_id = server_id

    async def run(self, command: str, arguments: Mapping[str, object]) -> Answer:
        if command in STARTING and self._stopping():
            raise CommandError("the daemon is stopping", WRONG)
        match command:
            case "start":
                self._workers.start(self._configured(arguments).spec.id)
            case "stop":
                self._workers.stop(self._agent(arguments).spec.id, drain=arguments.get("drain") is True)
            case "drain":
                self._workers.stop(self._agent(arguments).spec.id, drain=True)
            case "restart":
                drain = arguments.get("now") is not True
                self._workers.restart(self._configured(arguments).spec.id, drain=drain)
            case "reload":
                return self._reload()
            case "handoff":
                self._hand_off()
            case "dev-server":
                return self._dev_server()
            case _:
                raise CommandError(f"unknown command {command!r}", USAGE)
        return {"ok": True}

    def _agent(self, arguments: Mapping[str, object]) -> Worker:
        agent_id = arguments.get("agent")
        worker = self._workers.get(agent_id) if isinstance(agent_id, str) else None
        if worker is None or not worker.spec.is_agent:
            raise CommandError(f"no agent {agent_id!r} is configured", USAGE)
        return worker

    def _configured(self, arguments: Mapping[str, object]) -> Worker:
        """One that is ending because it was taken out can be stopped, and nothing else."""
        worker = self._agent(arguments)
        if worker.forgotten:
            raise CommandError(f"agent {worker.spec.id!r} is not configured any more, and is ending", USAGE)
        return worker

    def _dev_server(self) -> Answer:
        worker = self._workers.get(self._server_id)
        if not self._development or worker is None:
            raise CommandError("the daemon is not in development mode: it has no LiveKit server", WRONG)
        pid = worker.handle.pid if worker.handle is not None else None
        return {"pid": pid, "url": self._livekit_url()}
