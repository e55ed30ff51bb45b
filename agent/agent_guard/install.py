"""Where the guard takes hold of livekit-agents.

One rule: everything of LiveKit's that the guard needs is named in this file and looked at before anything
is changed; if one is missing, the worker does not start.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
import os
from collections.abc import Callable
from typing import Any

import livekit.agents
from livekit.agents import AgentServer, AgentSession, CloseReason, JobContext, JobExecutorType, JobRequest
from livekit.agents.ipc.proc_pool import ProcPool

from agent_guard.job import GuardedEntrypoint
from agent_guard.refusal import LOGGER, ConnectFailures
from agent_guard.requests import GuardedRequests
from agent_guard.settings import GuardError, GuardSettings
from agent_guard.worker import Options, WorkerGuard

OLDEST_SUPPORTED = "1.3.8"
"""The first whose ``JobRequest.reject()`` can say that a job is over, and not to be offered elsewhere."""

_NEEDED: dict[type, tuple[str, ...]] = {
    AgentServer: ("run", "rtc_session", "update_options", "active_jobs", "worker_info", "_run_ws", "on"),
    AgentSession: (
        "start",
        "_close_soon",
        "interrupt",
        "clear_user_turn",
        "history",
        "current_agent",
        "room_io",
        "once",
    ),
    JobRequest: ("accept", "reject", "job", "id"),
    JobContext: (
        "connect",
        "shutdown",
        "add_shutdown_callback",
        "token_claims",
        "is_fake_job",
        "room",
        "proc",
    ),
}
_NEEDED_PARAMETERS: tuple[tuple[Callable[..., Any], tuple[str, ...]], ...] = (
    (AgentServer.__init__, ("host", "port", "load_threshold", "job_executor_type")),
    (AgentServer.rtc_session, ("func", "agent_name", "on_request")),
    (AgentServer.update_options, ("load_threshold", "num_idle_processes")),
    (AgentSession._close_soon, ("reason",)),
    (AgentSession.interrupt, ("force",)),
    (JobRequest.accept, ("identity", "attributes")),
    (JobRequest.reject, ("terminate",)),
)
_NEEDED_ON_SERVER = ("_agent_name", "_request_fnc", "_entrypoint_fnc")
_NEEDED_ON_POOL = ("processes", "get_by_job_id")


class Outcome:
    """What became of the worker that the script ran, for the launcher's exit status."""

    ran = False
    failure: Exception | None = None
    livekit_lost = False


def missing() -> list[str]:
    """What livekit-agents, as installed here, lacks; empty when the guard can work."""
    names = [
        f"{kind.__name__}.{name}"
        for kind, names in _NEEDED.items()
        for name in names
        if not hasattr(kind, name)
    ]
    parameters = [
        f"{function.__qualname__}({name}=)"
        for function, wanted in _NEEDED_PARAMETERS
        for name in wanted
        if name not in inspect.signature(function).parameters
    ]
    reasons = (
        [] if hasattr(CloseReason, "PARTICIPANT_DISCONNECTED") else ["CloseReason.PARTICIPANT_DISCONNECTED"]
    )
    pool = [f"ProcPool.{name}" for name in _NEEDED_ON_POOL if not hasattr(ProcPool, name)]
    return names + parameters + reasons + pool


def install(settings: GuardSettings) -> Outcome:
    lacking = missing()
    if lacking:
        raise GuardError(
            f"livekit-agents {livekit.agents.__version__} has no {', '.join(lacking)}; "
            f"{OLDEST_SUPPORTED} is the oldest that can be guarded"
        )
    if settings.agent_name is not None:
        _force_name(settings.agent_name)
    outcome = Outcome()
    guards: dict[int, WorkerGuard] = {}
    _wrap_init(settings, guards)
    _wrap_rtc_session(settings, guards)
    _wrap_run(settings, guards, outcome)
    _wrap_run_ws(guards)
    logging.getLogger(LOGGER).addHandler(ConnectFailures(lambda reason: _refused(guards, reason)))
    return outcome


def _force_name(name: str) -> None:
    """The environment outranks, or fills in for, the name that ``rtc_session`` is given."""
    os.environ.pop("LIVEKIT_AGENT_NAME_OVERRIDE", None)
    os.environ.pop("LIVEKIT_AGENT_NAME", None)
    if name:
        os.environ["LIVEKIT_AGENT_NAME"] = name


def _wrap_init(settings: GuardSettings, guards: dict[int, WorkerGuard]) -> None:
    original = AgentServer.__init__

    @functools.wraps(original)
    def init(self: AgentServer, **kwargs: Any) -> None:
        original(self, **{**kwargs, "host": "127.0.0.1", "port": 0})
        lacking = [name for name in _NEEDED_ON_SERVER if not hasattr(self, name)]
        if lacking:
            raise GuardError(f"this livekit-agents has no AgentServer.{', '.join(lacking)}")
        guards[id(self)] = WorkerGuard(self, settings, _options(kwargs, settings.dev))

    setattr(AgentServer, "__init__", init)  # noqa: B010 - a method is replaced


def _options(kwargs: dict[str, Any], dev: bool) -> Options:
    executor = kwargs.get("job_executor_type", JobExecutorType.PROCESS)
    threshold = kwargs.get("load_threshold", 0.7)
    threshold = getattr(threshold, "prod_default", threshold)
    limited = isinstance(threshold, (int, float)) and math.isfinite(threshold) and not dev
    return Options(executor=executor.value, max_load=float(threshold) if limited else None)


def _wrap_rtc_session(settings: GuardSettings, guards: dict[int, WorkerGuard]) -> None:
    original = AgentServer.rtc_session

    @functools.wraps(original)
    def rtc_session(self: AgentServer, func: Any = None, **kwargs: Any) -> Any:
        on_request = kwargs.pop("on_request", None)
        if settings.agent_name is not None:
            kwargs["agent_name"] = settings.agent_name

        def register(entrypoint: Any) -> Any:
            requests = GuardedRequests(guards[id(self)], on_request)
            original(self, GuardedEntrypoint(entrypoint), on_request=requests, **kwargs)
            # The script's own name for it must stay the script's own function: jobs are handed it by name.
            return entrypoint

        return register if func is None else register(func)

    setattr(AgentServer, "rtc_session", rtc_session)  # noqa: B010


def _wrap_run(settings: GuardSettings, guards: dict[int, WorkerGuard], outcome: Outcome) -> None:
    original = AgentServer.run

    @functools.wraps(original)
    async def run(self: AgentServer, *args: Any, **kwargs: Any) -> None:
        outcome.ran = True
        guard = guards[id(self)]
        try:
            _check_name(self, settings)
            _check_guarded(self)
            if settings.dev:
                _suit_a_small_machine(self)
            self.once("worker_started", guard.server_started)
            await guard.start()
            await original(self, *args, **kwargs)
        except Exception as error:
            outcome.failure = error
            outcome.livekit_lost = guard.is_livekit_lost
            raise
        finally:
            await guard.stop(outcome.livekit_lost, outcome.failure)

    setattr(AgentServer, "run", run)  # noqa: B010


def _check_name(server: AgentServer, settings: GuardSettings) -> None:
    if settings.agent_name is not None and server._agent_name != settings.agent_name:
        raise GuardError(
            f"the agent name {server._agent_name!r} could not be forced to {settings.agent_name!r}"
        )


def _check_guarded(server: AgentServer) -> None:
    """Whatever the script did to its server: what LiveKit will call is ours, or nothing."""
    wanted = {"_request_fnc": GuardedRequests, "_entrypoint_fnc": GuardedEntrypoint}
    for name, kind in wanted.items():
        function = getattr(server, name)
        if function is not None and not isinstance(function, kind):
            raise GuardError(f"the script has replaced AgentServer.{name}, which cannot be guarded")


def _suit_a_small_machine(server: AgentServer) -> None:
    """In development, other programs' load is no reason to be sent nothing."""
    server.update_options(load_threshold=math.inf, num_idle_processes=1)
    server.load_fnc = lambda: 0.0


def _refused(guards: dict[int, WorkerGuard], reason: str) -> None:
    for guard in guards.values():
        if guard.is_livekit_lost:
            guard.livekit_lost(reason)


def _wrap_run_ws(guards: dict[int, WorkerGuard]) -> None:
    """LiveKit tells of a registration but not of its loss: that is when this method ends."""
    original = AgentServer._run_ws

    @functools.wraps(original)
    async def run_ws(self: AgentServer, *args: Any, **kwargs: Any) -> None:
        error = "connection closed"
        try:
            await original(self, *args, **kwargs)
        except Exception as failure:
            error = str(failure) or type(failure).__name__
            raise
        finally:
            guards[id(self)].livekit_lost(error)

    setattr(AgentServer, "_run_ws", run_ws)  # noqa: B010
