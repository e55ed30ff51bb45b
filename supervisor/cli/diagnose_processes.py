"""Locks, pidfiles and processes of every agent, and those that nobody asked for.

One rule: it is looked, and nothing is touched; the same judges that the daemon asks decide what is a worker
and what is a rogue.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from supervisor.cli.diagnose_findings import Area, Finding, Notes, Situation
from supervisor.cli.text import plain
from supervisor.config import AgentSettings, Settings
from supervisor.core.ports import ProcessSpec
from supervisor.process import lock, pidfile
from supervisor.process.adoption import Found, find_worker
from supervisor.process.files import FileRefused
from supervisor.process.scan import AgentFacts, Rogue, Supervisor, Verdict, find_rogues
from supervisor.process.snapshot import Scanner, live_states
from supervisor.process.variables import AGENT_ID, STATE


def look(situation: Situation) -> list[Finding]:
    notes = Notes(Area.PROCESSES)
    if situation.installation is None:
        notes.unknown("where locks and pidfiles are is not known while the configuration cannot be read")
        return notes.findings
    state = situation.installation.state
    if not _tell_directories(situation, notes) or not state.exists():
        return notes.findings
    with as_owner_of(state):
        workers = _tell_agents(situation, notes)
        _tell_unconfigured(situation, notes)
        if situation.settings is not None:
            _tell_rogues(situation, situation.settings, workers, notes)
    return notes.findings


# --- directories ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def as_owner_of(state: Path) -> Iterator[None]:
    """Root looks as the user whose files they are: files of others are refused to everybody."""
    owner = state.stat().st_uid
    if os.geteuid() != 0 or owner == 0:
        yield
        return
    os.seteuid(owner)
    try:
        yield
    finally:
        os.seteuid(0)


def _tell_directories(situation: Situation, notes: Notes) -> bool:
    """Whether the state directory can be looked into."""
    assert situation.installation is not None
    places = situation.installation
    usable = True
    for what, path in (("state", places.state), ("runtime", places.runtime), ("logs", places.logs)):
        try:
            status = path.stat()
        except FileNotFoundError:
            if situation.status is not None:
                notes.warning(f"the {what} directory is gone, while a daemon runs", str(path))
            continue
        except OSError as error:
            notes.unknown(f"the {what} directory cannot be looked at", f"{path}: {error.strerror}")
            usable = usable and what != "state"
            continue
        usable = _tell_directory(what, path, status, notes) and usable
    return usable


def _tell_directory(what: str, path: Path, status: os.stat_result, notes: Notes) -> bool:
    if not stat.S_ISDIR(status.st_mode):
        notes.error(f"{path}, where the {what} directory is to be, is no directory")
        return False
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
        notes.error(
            f"others may write to the {what} directory, so no daemon will use it",
            f"{path} has {mode}",
            fix=f"chmod go-w {path}",
        )
    if os.geteuid() not in (0, status.st_uid):
        notes.unknown(
            f"the {what} directory belongs to another user; this was looked at from outside only",
            f"{path} belongs to user {status.st_uid}",
            fix=f"sudo livekit-supervisor diagnose   # or as user {status.st_uid}",
        )
        return what != "state"
    return True


# --- agents ---------------------------------------------------------------------------------------------


def _tell_agents(situation: Situation, notes: Notes) -> dict[str, Found]:
    """The workers that run, by agent ID; their handles are closed already."""
    workers: dict[str, Found] = {}
    for agent_id in _agent_ids(situation):
        try:
            found = _find(situation, agent_id)
        except FileRefused as error:
            notes.error(f"the lock of {plain(agent_id)} cannot be used", str(error))
            continue
        if found is not None:
            workers[agent_id] = found
        _tell_agent(situation, agent_id, found, notes)
    return workers


def _agent_ids(situation: Situation) -> tuple[str, ...]:
    if situation.settings is not None:
        return tuple(agent.id for agent in situation.settings.agents)
    assert situation.installation is not None
    return tuple(agent.id for agent in situation.installation.agents)


def _find(situation: Situation, agent_id: str) -> Found | None:
    assert situation.installation is not None
    places = situation.installation
    marks = ((AGENT_ID, agent_id), (STATE, str(places.state)))
    log_path = str(places.logs / f"{agent_id}.log")
    spec = ProcessSpec(id=agent_id, argv=(), cwd="/", env=(), log_path=log_path, marks=marks)
    folder = places.state / "agents"
    found = find_worker(spec, folder / f"{agent_id}.lock", folder / f"{agent_id}.pid")
    if found is not None:
        found.process.close()
    return found


def _tell_agent(situation: Situation, agent_id: str, found: Found | None, notes: Notes) -> None:
    assert situation.installation is not None
    folder = situation.installation.state / "agents"
    record = pidfile.read(folder / f"{agent_id}.pid", agent_id)
    holders = lock.holders(folder / f"{agent_id}.lock")
    if found is None:
        _tell_no_worker(situation, agent_id, record, holders, notes)
        return
    pid = found.process.identity.pid
    evidence = [f"process {pid}, lock held by {', '.join(map(str, holders)) or 'nobody'}"]
    if not found.has_pidfile:
        why = record.reason if isinstance(record, pidfile.Unusable) else "it tells of another process"
        notes.warning(f"the pidfile of {plain(agent_id)} is of no use; its lock decides anyway", why)
    if situation.status is None:
        notes.warning(
            f"the worker of {plain(agent_id)} runs without supervision; the next daemon takes it over",
            *evidence,
            fix="livekit-supervisor run",
        )
        return
    told = next((a["pid"] for a in situation.status["agents"] if a["id"] == agent_id), None)
    if told not in (None, pid):
        notes.error(f"the daemon takes {told} for the worker of {plain(agent_id)}", *evidence)
    else:
        notes.ok(f"{plain(agent_id)} has exactly one worker", *evidence)


def _tell_no_worker(
    situation: Situation,
    agent_id: str,
    record: pidfile.Record | pidfile.Unusable,
    holders: tuple[int, ...],
    notes: Notes,
) -> None:
    if holders:
        notes.error(
            f"the lock of {plain(agent_id)} is held by what is left of a dead worker",
            f"held by {', '.join(map(str, holders))}",
            fix=f"livekit-supervisor start {agent_id}   # ends what is left, then starts a new one",
        )
    if isinstance(record, pidfile.Unusable) and not record.missing:
        notes.warning(
            f"the pidfile of {plain(agent_id)} is not believed, and replaced at the next start", record.reason
        )
    agents = situation.status["agents"] if situation.status is not None else []
    agent = next((a for a in agents if a["id"] == agent_id), None)
    if agent is not None and agent["want"] != "stopped" and not holders:
        notes.warning(
            f"{plain(agent_id)} has no worker at this moment", f"the daemon says: {plain(agent['state'])}"
        )


def _tell_unconfigured(situation: Situation, notes: Notes) -> None:
    assert situation.installation is not None
    known = {*_agent_ids(situation), "livekit-server"}
    for path in sorted((situation.installation.state / "agents").glob("*.lock")):
        agent_id = path.name.removesuffix(".lock")
        with contextlib.suppress(FileRefused):
            if agent_id not in known and lock.is_held(path):
                held_by = f"held by {', '.join(map(str, lock.holders(path)))}"
                notes.warning(f"a process runs for {plain(agent_id)}, which is not configured", held_by)


# --- rogues ---------------------------------------------------------------------------------------------


def _tell_rogues(situation: Situation, settings: Settings, workers: dict[str, Found], notes: Notes) -> None:
    processes = Scanner().snapshot()
    state = str(settings.paths.state)
    others = live_states(processes, state)
    asking = Supervisor(
        state=state,
        livekit_url=settings.livekit.url,
        uid=os.geteuid(),
        pid=os.getpid(),
        live_states=others,
    )
    facts = [_facts(agent, workers.get(agent.id)) for agent in settings.agents]
    rogues = find_rogues(processes, facts, asking)
    for rogue in rogues:
        _tell_rogue(rogue, running=situation.status is not None, notes=notes)
    if not rogues:
        notes.ok("no second process for any agent")
    for other in sorted(others):
        notes.ok(f"another supervisor runs on this machine, on {plain(other)}")


def _facts(agent: AgentSettings, found: Found | None) -> AgentFacts:
    return AgentFacts(
        id=agent.id,
        script=os.path.realpath(agent.script) if agent.script is not None else None,
        rogue=Verdict(agent.rogue),
        worker_pid=found.process.identity.pid if found is not None else None,
        launch=found.launch.name if found is not None else "",
    )


def _tell_rogue(rogue: Rogue, *, running: bool, notes: Notes) -> None:
    ended = running and rogue.verdict is Verdict.TERMINATE
    notes.error(
        f"a second process for {plain(rogue.agent_id)}: {plain(rogue.reason)}",
        f"process {rogue.pid}" + ("; the daemon ends it within seconds" if ended else ""),
        fix=None if ended else f"kill {rogue.pid}   # after a look at: ps -fp {rogue.pid}",
    )
