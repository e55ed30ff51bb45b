"""Rogues: processes for an agent ID that the daemon did not start.

One rule: :func:`find_rogues` judges facts and nothing else; what could not be read is never evidence against
a process, and whoever is not plainly a rogue is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from supervisor.process.variables import AGENT_ID, LAUNCH, LIVEKIT_URL, STATE


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What a scan has seen of one process."""

    pid: int
    ppid: int
    uid: int
    start_ticks: int
    """With the pid, its identity: to be checked again before anything is done to it."""
    create_time: float
    exe: str
    """Empty where it may not be read."""
    cmdline: tuple[str, ...]
    environ: Mapping[str, str] | None
    """None where it may not be read."""
    cwd: str | None
    script: str | None = None
    """The file that it runs as a LiveKit worker, links resolved; see :mod:`.command_line`."""


class Verdict(StrEnum):
    TERMINATE = "terminate"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """One configured agent."""

    id: str
    script: str | None
    """Links resolved; None for a ``command:`` that is no Python script."""
    rogue: Verdict
    worker_pid: int | None = None
    launch: str = ""
    """Of the running worker, as its handle tells; empty when it is not known."""
    stopped: bool = False
    """By command, and its worker is gone: whoever runs the script by hand now means to."""


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Who is asking."""

    state: str
    """The state directory as workers get to know it."""
    livekit_url: str
    uid: int
    pid: int
    live_states: frozenset[str] = frozenset()
    """Other state directories whose daemon is alive."""


@dataclass(frozen=True, slots=True)
class Rogue:
    """A process that has no business to be there, with everything below it."""

    agent_id: str
    pid: int
    start_ticks: int
    verdict: Verdict
    reason: str


def find_rogues(
    processes: Iterable[ProcessFacts], agents: Iterable[AgentFacts], supervisor: Supervisor
) -> tuple[Rogue, ...]:
    """In order of age; of a rogue's tree only its root."""
    return _Scan({p.pid: p for p in processes}, tuple(agents), supervisor).rogues()


@dataclass(frozen=True, slots=True)
class _Scan:
    processes: Mapping[int, ProcessFacts]
    agents: tuple[AgentFacts, ...]
    supervisor: Supervisor

    def rogues(self) -> tuple[Rogue, ...]:
        workers = {agent.worker_pid for agent in self.agents if agent.worker_pid is not None}
        spared = {self.supervisor.pid, *self._above(self.supervisor.pid)}
        found: dict[int, Rogue] = {}
        for process in sorted(self.processes.values(), key=lambda p: (p.start_ticks, p.pid)):
            above = self._above(process.pid)
            if process.pid in spared or workers & {process.pid, *above} or found.keys() & set(above):
                continue
            rogue = self._judge(process)
            if rogue is not None:
                found[process.pid] = rogue
        return tuple(found.values())

    def _above(self, pid: int) -> list[int]:
        found: list[int] = []
        process = self.processes.get(pid)
        while process is not None and process.ppid not in found:
            found.append(process.ppid)
            process = self.processes.get(process.ppid)
        return found

    def _judge(self, process: ProcessFacts) -> Rogue | None:
        if process.environ is None:
            return self._unreadable(process)
        if AGENT_ID in process.environ and STATE in process.environ:
            agent = self._agent(process.environ[AGENT_ID])
            return None if agent is None else self._marked(process, agent, process.environ)
        if AGENT_ID in process.environ or STATE in process.environ:
            return None
        return self._unmarked(process)

    def _marked(self, process: ProcessFacts, agent: AgentFacts, environ: Mapping[str, str]) -> Rogue | None:
        state = environ[STATE]
        if _same_path(state, self.supervisor.state):
            return self._ours_but_for(process, agent, environ)
        if environ.get(LIVEKIT_URL) != self.supervisor.livekit_url:
            return None
        alive = any(_same_path(state, s) for s in self.supervisor.live_states)
        reason = f"it serves this agent ID on this LiveKit for the supervisor of {state}"
        return self._rogue(
            process, agent.id, Verdict.REPORT, reason if alive else f"{reason}, which is not running"
        )

    def _ours_but_for(
        self, process: ProcessFacts, agent: AgentFacts, environ: Mapping[str, str]
    ) -> Rogue | None:
        """Not below our worker; yet a job whose parent has died is still of its tree, as its launch tells."""
        launch = environ.get(LAUNCH)
        if launch is None:
            return self._rogue(
                process, agent.id, agent.rogue, "it carries this agent's ID, and we did not start it"
            )
        if agent.worker_pid is not None and agent.launch in ("", launch):
            return None
        return self._rogue(process, agent.id, agent.rogue, "it is left over from an earlier worker")

    def _unmarked(self, process: ProcessFacts) -> Rogue | None:
        """One script may serve several agents: it is ended only if none of them spares it."""
        serving = [a for a in self.agents if a.script is not None and a.script == process.script]
        if not serving:
            return None
        reason = "it runs this agent's script, outside the supervisor"
        if any(agent.rogue is Verdict.REPORT for agent in serving):
            return self._rogue(process, serving[0].id, Verdict.REPORT, reason)
        for agent in serving:
            if agent.stopped:
                return self._rogue(process, agent.id, Verdict.REPORT, f"{reason}, while the agent is stopped")
        return self._rogue(process, serving[0].id, Verdict.TERMINATE, reason)

    def _unreadable(self, process: ProcessFacts) -> Rogue | None:
        rogue = self._unmarked(process)
        if rogue is None:
            return None
        reason = f"{rogue.reason}, for all that can be read of it"
        return self._rogue(process, rogue.agent_id, Verdict.REPORT, reason)

    def _rogue(self, process: ProcessFacts, agent_id: str, verdict: Verdict, reason: str) -> Rogue:
        if process.uid != self.supervisor.uid:
            verdict, reason = Verdict.REPORT, f"{reason}; it belongs to user {process.uid}"
        return Rogue(agent_id, process.pid, process.start_ticks, verdict, reason)

    def _agent(self, agent_id: str) -> AgentFacts | None:
        return next((agent for agent in self.agents if agent.id == agent_id), None)


def _same_path(one: str, other: str) -> bool:
    return os.path.normpath(one) == os.path.normpath(other)
