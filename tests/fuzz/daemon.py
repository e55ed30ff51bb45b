"""The daemon's inside without processes, LiveKit and a disk: what guards and operators can reach of it.

One rule: reconcilers, claims, the guards' desk and everybody who listens to events are the real ones, and
what they say to the outside is held to what the outside takes.  Time stands still until it is moved.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence

from livekit.protocol.room import ListParticipantsRequest

from supervisor.core.model import DeadJob
from supervisor.core.ports import ExitStatus, ProcessSpec, StoredClaim
from supervisor.daemon.commands import CommandDesk
from supervisor.endpoints.ports import CommandError
from supervisor.endpoints.timeline import LINES
from supervisor.events import Event, EventBus, InternalError
from supervisor.log import EventLog
from supervisor.metrics.subscriber import Metrics
from supervisor.reconcile.claimbook import ClaimBook
from supervisor.reconcile.guards import GuardDesk
from supervisor.reconcile.worker import AgentSpec
from supervisor.reconcile.workers import WorkerReconciler
from supervisor.store.database import Batch, Database, HistoryRow
from tests.fuzz.checks import hold, scratch
from tests.simulation.sim_daemon import HEARTBEAT, WORKER_POLICY, Disk, NoEvidence

OURS, TREE, QUIET = "ours", "tree", "quiet"
"""Agents: whoever connects is its worker; or another process of its tree; or neither."""
GOOD = "good"
"""The agent of the one who behaves, and must not notice the others."""
AGENTS = (OURS, TREE, QUIET, GOOD)

_PIDS = {OURS: os.getpid(), TREE: 1, QUIET: 2, GOOD: os.getpid()}


class Daemon:
    """Made on a running event loop; :meth:`running` it, then ask :meth:`settle` and :meth:`check`."""

    def __init__(self, log_format: str = "json") -> None:
        self.now = 1_000.0
        self.problems: list[str] = []
        self.ignored = {"ignored"}
        """Rooms, agents' names and identities."""
        self.watch = Watch()
        self._events: list[Event] = []
        self._log = Log(log_format)
        bus = EventBus()
        for subscriber in (self._events.append, self._log, _metrics(), self._listen):
            bus.subscribe(subscriber)
        self.bus = bus
        disk = StrictDisk(self.problems)
        self.book = ClaimBook(
            disk,
            self.watch,
            bus,
            self.clock,
            worker_hung=lambda a: self.workers.hung(a),
            worker_pid=lambda a: self.workers.pid(a),
        )
        self.workers = WorkerReconciler(
            Host(self.watch),
            self.book,
            disk,
            NoEvidence(),
            bus,
            self.clock,
            random=lambda: 0.5,
            livekit_up=lambda: True,
        )
        self.rooms = Rooms(self.problems)
        self.book.listen(self.rooms)
        self.workers.listen(self.rooms)
        self.guards = GuardDesk(
            self.workers,
            self.book,
            self.watch,
            bus,
            instance="us",
            times=lambda _: HEARTBEAT,
            human_return_grace=lambda: 15.0,
            reconnect_grace=lambda: 5.0,
            left_alone=lambda *names: not self.ignored.isdisjoint(names),
        )
        self.commands = CommandDesk(
            self.workers,
            reload=_no_reload,
            hand_off=lambda: None,
            stopping=lambda: False,
            development=False,
            livekit_url=lambda: "ws://h",
            server_id="livekit-server",
        )

    def clock(self) -> float:
        return self.now

    @staticmethod
    def pid_of(agent_id: str) -> int:
        """Of that agent's worker."""
        return _PIDS[agent_id]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.workers.configure([_spec(agent_id) for agent_id in AGENTS])
        task = asyncio.create_task(self.workers.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            written = self._log.close()
        _check_log(written)
        _check_history(self._events)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.book.tick()
        self.workers.wake_all()

    async def settle(self) -> None:
        """Everybody has hung up: in a while nothing of them is left."""
        for _ in range(4):
            self.now += 20.0
            self.book.tick()
            await turns(5)
        jobs = [job for agent_id in AGENTS for job in self.book.jobs_of(agent_id)]
        hold(not jobs, "jobs left:", jobs)
        hold(not self.book.table.all(), "claims left:", self.book.table.all())
        hold(all(worker.link is None for worker in self.workers.all()), "a worker's connection is left")
        hold(not self.watch.watching, "watches left:", self.watch.watching)

    def check(self) -> None:
        hold(not self.problems, "the outside does not take:", self.problems)
        defects = [event for event in self._events if isinstance(event, InternalError)]
        hold(not defects, "defects:", defects)

    def _listen(self, event: Event) -> None:
        """As the status page does."""
        line = LINES.get(event.name())
        if line is not None:
            json.dumps(line(event.data()).title, allow_nan=False)


async def turns(count: int) -> None:
    """Of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


def _spec(agent_id: str) -> AgentSpec:
    process = ProcessSpec(agent_id, ("agent",), "/", (), "/log", (), "hash")
    return AgentSpec(agent_id, None, None, 3 if agent_id == TREE else 0, WORKER_POLICY, process)


def _no_reload() -> dict[str, object]:
    raise CommandError("config.yaml: is empty", 1)


# --- processes ------------------------------------------------------------------------------------


class Watch:
    """Whoever connects is this one process: when a part of it is killed, everybody in it is told of dead."""

    def __init__(self) -> None:
        self.watching: list[Callable[[], None]] = []

    def create_time(self, pid: int) -> float | None:
        return 1.0

    def watch(self, pid: int, on_exit: Callable[[], None]) -> Callable[[], None]:
        self.watching.append(on_exit)
        return lambda: self.watching.remove(on_exit)

    def kill(self, pid: int, create_time: float) -> bool:
        self.die()
        return True

    def die(self) -> None:
        for on_exit in tuple(self.watching):
            asyncio.get_running_loop().call_soon(on_exit)

    def in_tree(self, pid: int, root_pid: int, marks: tuple[tuple[str, str], ...]) -> bool:
        return root_pid == _PIDS[TREE]


class Handle:
    adopted = True
    command_hash = "hash"
    lacking = ""
    create_time = 1.0
    age = 0.0

    def __init__(self, pid: int, watch: Watch) -> None:
        self.pid = pid
        self._watch = watch
        self._gone = asyncio.Event()

    def signal(self, number: int) -> bool:
        alive = not self._gone.is_set()
        self._gone.set()
        self._watch.die()
        return alive

    async def wait(self) -> ExitStatus:
        await self._gone.wait()
        return ExitStatus(signal=signal.SIGTERM)

    async def kill_tree(self) -> tuple[int, ...]:
        self._gone.set()
        self._watch.die()
        return ()


class Host:
    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def spawn(self, spec: ProcessSpec) -> Handle:
        return Handle(_PIDS[spec.id], self._watch)

    def adopt(self, spec: ProcessSpec) -> Handle | None:
        return Handle(_PIDS[spec.id], self._watch)

    async def clear_leftovers(self, spec: ProcessSpec) -> tuple[int, ...]:
        return ()


# --- who is told ----------------------------------------------------------------------------------


class Rooms:
    """Wakes a room by asking LiveKit for it: its name has to fit into a request."""

    enforce = True

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems
        self.freed: list[str] = []
        self.dead: list[DeadJob] = []

    def wake(self, room: str) -> None:
        if not room:
            self._problems.append("a room without a name")
        try:
            ListParticipantsRequest(room=room).SerializeToString()
        except ValueError as error:
            self._problems.append(f"LiveKit, a room's name: {error}")

    def wake_agent(self, agent_id: str) -> None: ...

    def note_death(self, dead: DeadJob) -> None:
        self.dead = [dead]

    def note_refused(self, room: str, dispatch_id: str) -> None: ...

    def slot_freed(self, agent_id: str) -> None:
        self.freed.append(agent_id)


class StrictDisk(Disk):
    """Keeps in memory what the real store has taken."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__()
        self._problems = problems

    def save_claim(self, claim: StoredClaim) -> None:
        super().save_claim(claim)
        self._write(Batch(claims={claim.claim.room: claim}, epoch=claim.claim.epoch))

    def delete_claim(self, room: str) -> None:
        super().delete_claim(room)
        self._write(Batch(claims={room: None}))

    def _write(self, batch: Batch) -> None:
        try:
            _database().write(batch)
        except Exception as error:  # whatever it is, the batch would be lost, with everybody's claims in it
            self._problems.append(f"the store: {type(error).__name__}: {error}")


@functools.cache
def _database() -> Database:
    return Database(scratch() / "supervisor.db", set_aside=lambda _path, reason: hold(False, reason))


def _check_history(events: Sequence[Event]) -> None:
    """As the store keeps it."""
    rows = [HistoryRow(1.0, e.name(), int(e.level), json.dumps(e.data(), default=str)) for e in events]
    _database().write(Batch(history=rows))


@functools.cache
def _metrics() -> Metrics:
    return Metrics(AGENTS)


class Log:
    """The daemon's own, at its most talkative, into memory."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._bytes = io.BytesIO()
        stream = io.TextIOWrapper(self._bytes, encoding="utf-8", write_through=True)
        self._log = EventLog(level="debug", format=form, stream=stream)
        self._stream = stream
        self._said = 0

    def __call__(self, event: Event) -> None:
        self._said += 1
        self._log(event)

    def close(self) -> tuple[str, int, str]:
        """What was written, for how many events, in which form."""
        self._log.close()
        written = self._bytes.getvalue().decode()
        self._stream.close()
        return self._form, self._said, written


def _check_log(log: tuple[str, int, str]) -> None:
    form, said, written = log
    lines = written.split("\n")[:-1]
    hold("could not be formatted" not in written, "a log line was lost")
    hold(all(line.isprintable() for line in lines), "control characters in the log:", lines)
    if form == "json":
        hold(len(lines) >= said, "log lines were lost:", len(lines), said)
        hold(all(isinstance(json.loads(line), dict) for line in lines), "a log line is no JSON object")
