"""The composition root: builds every part, starts and stops them in order, and owns the signals.

Start: state lock, log and store, HTTP, guard and control socket, what is remembered, workers, loops.
Stop: workers (drained), development server, loops, sockets, store, lock.  A hand-over leaves the workers out.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from supervisor import __version__
from supervisor.config import ConfigError, Settings, load
from supervisor.core.patterns import is_ignored, matches_any
from supervisor.daemon import guard_files, specs
from supervisor.daemon.cleanup import StopNote
from supervisor.daemon.commands import WRONG, Answer, CommandDesk
from supervisor.daemon.development import SERVER_ID, Development, banner
from supervisor.daemon.documents import Documents
from supervisor.daemon.evidence import DeathEvidence
from supervisor.daemon.gauges import Gauges
from supervisor.daemon.log_rotation import LogRotation
from supervisor.daemon.notify import Notifier
from supervisor.daemon.rogues import RogueHunt
from supervisor.daemon.secrecy import secrets_of
from supervisor.daemon.sockets import SocketNames
from supervisor.daemon.watchdog import Watchdog
from supervisor.daemon.webhooks import WebhookIntake, webhook_keys
from supervisor.daemon.wishes import StopWishes
from supervisor.endpoints import timeline
from supervisor.endpoints.control import ControlServer
from supervisor.endpoints.feed import Feed
from supervisor.endpoints.guard import GuardServer
from supervisor.endpoints.http import HttpServer
from supervisor.endpoints.ports import CommandError
from supervisor.events import ConfigReloaded, DaemonStarted, DaemonStopped, DaemonStopping, EventBus, Loop
from supervisor.livekit.api import LiveKitClient
from supervisor.livekit.webhook import WebhookReceiver
from supervisor.log import EventLog
from supervisor.metrics import Metrics
from supervisor.process.health_endpoint import complaints
from supervisor.process.host import PosixProcessHost
from supervisor.process.limits import raise_open_files
from supervisor.process.tree import Census, Launches, proportional_memory
from supervisor.process.watch import PidfdWatch
from supervisor.reconcile.claimbook import ClaimBook
from supervisor.reconcile.guards import GuardDesk, GuardTimes
from supervisor.reconcile.health import Doubt, LiveKitHealth
from supervisor.reconcile.rooms import RoomReconciler
from supervisor.reconcile.schedule import Schedule, tick
from supervisor.reconcile.worker import AgentSpec
from supervisor.reconcile.workers import WorkerReconciler
from supervisor.store.sqlite import SqliteStore

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
MEASURE_SECONDS = 5.0
EXACT_EVERY = 6
"""Looks: memory is estimated each time, which counts what forks share twice, and measured every so often."""
HEALTH_SECONDS = 5.0
SCAN_SECONDS = 5.0
SOCKETS_SECONDS = 2.0
PROBE_SECONDS = 1.0
PRUNE_SECONDS = 3600.0
ROTATE_SECONDS = 5.0
MARGIN_SECONDS = 15.0
"""Beside the longest drain and kill: for the development server, the sockets and the store."""
SERVER_START_SECONDS = 10.0
"""In which the development server may be silent, without an error as a newcomer's first line."""
HAND_OVER_SECONDS = 15.0
SWITCH_SECONDS = 0.0005
"""What the event loop waits for the interpreter, at the most, while another thread logs or stores."""
TIMELINE_ENTRIES = 200
"""On the status page, from before this daemon was started."""


class Daemon:
    """One supervisor, from its start to its end."""

    def __init__(self, settings: Settings, config_path: Path, development: Development | None) -> None:
        self._settings = settings
        self._config_path = config_path
        self._development = development
        self._clock = time.monotonic
        self._bus = EventBus()
        self._stop_requests = 0
        self._takes_orders = False
        """It has started: there is something to reload."""
        self._hung_up = False
        """A reload was asked for before that."""
        self._looks = 0
        self._known_secrets: frozenset[str] = frozenset()
        self._stopping = asyncio.Event()
        self._stop_reason = ""
        self._keep_workers = False
        self._guard = guard_files.install(settings.paths.state)
        self._stop_note = StopNote(settings.paths.state)
        self._notifier = Notifier.from_environ(os.environ)
        self._build()

    def _build(self) -> None:
        settings, bus, clock = self._settings, self._bus, self._clock
        rng = random.random
        livekit = settings.livekit
        secret = livekit.api_secret.get_secret_value()
        self._metrics = Metrics(agent.id for agent in settings.agents)
        bus.subscribe(self._metrics)
        self._store = SqliteStore(
            settings.paths.state / "supervisor.db",
            bus,
            max_age=settings.history.max_age,
            max_size=settings.history.max_size,
        )
        bus.subscribe(self._store.record)
        starts = clock() + SERVER_START_SECONDS if self._development is not None else 0.0
        self._health = LiveKitHealth(livekit.url, bus, clock, starts_until=starts)
        self._client = LiveKitClient(livekit.url, livekit.api_key, secret, livekit.timeout, bus)
        self._watch = PidfdWatch()
        self._book = ClaimBook(
            self._store, self._watch, bus, clock, worker_hung=self._worker_hung, worker_pid=self._worker_pid
        )
        self._wishes = StopWishes(settings.paths.state / "wishes", bus)
        self._host = PosixProcessHost(settings.paths.state, open_files=raise_open_files())
        self._launches = Launches()
        self._workers = WorkerReconciler(
            self._host,
            self._book,
            self._wishes,
            DeathEvidence(self._host, lambda text: self._log.without_secrets(text)),
            bus,
            clock,
            random=rng,
            livekit_up=self._health.is_up,
        )
        instance = specs.instance_name(settings.paths.state)
        self._rooms = RoomReconciler(
            self._client,
            self._book,
            self._workers,
            self._store,
            bus,
            clock,
            policy=specs.room_policy(settings, instance),
            ignore=settings.rooms.ignore,
            enforce=settings.rooms.enforce,
            random=rng,
            livekit_since=self._health.since_when,
        )
        self._workers.listen(self._rooms)
        self._health.on_back(self._livekit_is_back)
        self._rogues = RogueHunt(self._workers, bus, lambda: self._settings)
        self._rotation = LogRotation(self._workers.all, bus, lambda: self._settings.log, clock)
        self._documents = Documents(
            self._workers,
            self._rooms,
            self._book,
            self._health,
            clock,
            mode=self._mode,
            rogues=lambda: self._rogues.standing,
            notices=lambda: specs.notices(self._settings),
        )
        self._gauges = Gauges(
            self._metrics, self._workers, self._rooms, self._book, lambda: len(self._rogues.standing)
        )
        self._watchdog = Watchdog(
            self._notifier,
            bus,
            clock,
            {
                Loop.WORKERS: lambda: self._workers.waiting,
                Loop.ROOMS: lambda: self._rooms.waiting,
                Loop.SCAN: lambda: 1,  # it is always waited for: it comes every few seconds
            },
            call_timeout=livekit.timeout,
        )
        bus.subscribe(self._watchdog)
        self._build_endpoints(instance)

    def _build_endpoints(self, instance: str) -> None:
        settings, bus = self._settings, self._bus
        self._desk = desk = GuardDesk(
            self._workers,
            self._book,
            self._watch,
            bus,
            instance=instance,
            times=self._guard_times,
            human_return_grace=lambda: self._settings.rooms.human_return_grace,
            reconnect_grace=lambda: self._settings.rooms.reconnect_grace,
            left_alone=self._is_left_alone,
        )
        runtime = settings.paths.runtime
        self._guard_server = GuardServer(runtime / "guard.sock", desk, bus, self._clock)
        views = _Views(self._documents, self._store, self._watchdog)
        receiver = WebhookReceiver(webhook_keys(settings), settings.http.webhook_max_age)
        intake = WebhookIntake(receiver, bus, self._rooms.notice)
        self._feed = Feed(views, bus)
        bus.subscribe(self._feed)
        self._http = HttpServer(views, intake, self._metrics.render, self._feed, bus)
        commands = CommandDesk(
            self._workers,
            reload=self._reload,
            hand_off=self._hand_off,
            stopping=self._stopping.is_set,
            development=self._development is not None,
            livekit_url=lambda: self._settings.livekit.url,
            server_id=SERVER_ID,
        )
        self._control = ControlServer(runtime / "control.sock", views, commands, bus)
        self._sockets = SocketNames([self._guard_server, self._control], bus)

    @property
    def _mode(self) -> str:
        return "production" if self._development is None else "development"

    # --- life ---

    async def run(self) -> None:
        """Until stopped or handed over.  Raises ListenError or DevServerError before anything was started."""
        async with contextlib.AsyncExitStack() as stack:
            log = self._open_log()
            stack.callback(log.close)
            # Before all else: an order to stop that comes while we start ends what we take over, too.
            self._handle_signals()
            self._stop_note.remove()
            self._store.start()
            stack.push_async_callback(self._store.aclose)
            self._feed.preload(await self._store.recent(timeline.LINES, TIMELINE_ENTRIES))
            stack.push_async_callback(self._client.aclose)
            await self._http.start(*self._addresses())
            stack.push_async_callback(self._http.aclose)
            await self._guard_server.start()
            stack.push_async_callback(self._guard_server.stop)
            self._bus.publish(DaemonStarted(version=__version__, pid=os.getpid(), mode=self._mode))
            await self._remember()
            _answer_soon()
            await self._control.start()
            stack.push_async_callback(self._control.aclose)
            async with self._loops():
                self._takes_orders = True
                if self._hung_up:
                    self._on_hangup()
                self._notifier.ready()
                if self._development is not None:
                    banner(self._settings, lambda text: print(text, flush=True))
                await self._stopping.wait()
                await self._shut_down()
                # A second signal now would only spoil the exit code of a stop that is done.
                signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            self._bus.publish(DaemonStopped())

    def _addresses(self) -> tuple[tuple[str, int], tuple[str, int] | None]:
        http = self._settings.http
        also = http.webhook_listen
        return (http.listen.host, http.listen.port), (also.host, also.port) if also is not None else None

    def _open_log(self) -> EventLog:
        settings = self._settings.log
        log = EventLog(
            level=settings.level, format=settings.format, redact=settings.redact, secrets=self._secrets()
        )
        self._log = log
        self._bus.subscribe(log)
        return log

    def _secrets(self) -> frozenset[str]:
        """A worker that was started before a reload still has those of then."""
        self._known_secrets |= secrets_of(self._settings, os.environ)
        return self._known_secrets

    async def _remember(self) -> None:
        """Claims before workers: an adopted worker's guard connects within milliseconds."""
        await self._book.restore(self._longest_heartbeat())
        await self._rooms.restore()
        self._wishes.load()
        agents = self._agent_specs()
        if self._development is not None:
            server = self._development.spec()
            self._workers.configure([server])
            worker = self._workers.get(SERVER_ID)
            if worker is not None and worker.handle is None:
                self._development.require_free_ports()
            agents = [server, *agents]
        self._workers.configure(agents)
        known = {spec.id for spec in agents}
        left = [agent_id for agent_id in self._host.held_ids() if agent_id not in known]
        self._workers.end_unconfigured(specs.unconfigured_spec(i, self._settings) for i in left)

    def _agent_specs(self) -> list[AgentSpec]:
        dev = self._development is not None
        return [
            specs.agent_spec(agent, self._settings, self._guard, dev=dev) for agent in self._settings.agents
        ]

    @contextlib.asynccontextmanager
    async def _loops(self) -> AsyncIterator[None]:
        self._schedule = schedule = Schedule(self._bus, self._clock)
        schedule.every(self._settings.rooms.resync, "resync", self._resync)
        schedule.every(PROBE_SECONDS, "probe", self._probe)
        schedule.every(MEASURE_SECONDS, "measure", self._measure)
        schedule.every(HEALTH_SECONDS, "health", self._ask_workers)
        schedule.every(SCAN_SECONDS, "scan", self._rogues.scan)
        schedule.every(SOCKETS_SECONDS, "sockets", self._sockets.keep)
        schedule.every(ROTATE_SECONDS, "rotate", self._rotation.look)
        schedule.every(PRUNE_SECONDS, "prune", self._store.prune)
        loops: list[Coroutine[Any, Any, None]] = [
            self._workers.run(),
            self._rooms.run(),
            tick(self._clock, self._bus, self._on_tick, self._on_late),
            Doubt(self._health, self._probe, self._bus).run(),
            self._rooms.resync(0.0),
            self._rogues.scan(),
        ]
        tasks = [asyncio.create_task(loop) for loop in loops]
        for task in tasks:
            task.add_done_callback(self._on_loop_end)
        schedule.start()
        try:
            yield
        finally:
            schedule.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _on_loop_end(self, task: asyncio.Task[None]) -> None:
        """A loop that dies takes the daemon with it: half a supervisor would be worse than a restart."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error
            self._stop(f"internal error: {error!r}", keep_workers=True)

    _failure: BaseException | None = None

    @property
    def failure(self) -> BaseException | None:
        """Why it ended, if it was not asked to."""
        return self._failure

    # --- stopping ---

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_stop_signal, number.name)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_stop_signal(self, name: str) -> None:
        self._stop_requests += 1
        if self._stop_requests == 1:
            self._stop(name, keep_workers=False)
        else:
            self._end_workers(drain=0.0)

    def _stop(self, reason: str, *, keep_workers: bool) -> None:
        if not self._stopping.is_set():
            self._stop_reason, self._keep_workers = reason, keep_workers
            self._stopping.set()

    def _hand_off(self) -> None:
        self._stop("handoff", keep_workers=True)

    async def _shut_down(self) -> None:
        self._bus.publish(DaemonStopping(reason=self._stop_reason))
        if self._keep_workers:
            self._notifier.stopping(HAND_OVER_SECONDS)
            return
        self._stop_note.write()
        self._notifier.stopping(self._longest_stop() + MARGIN_SECONDS)
        self._end_workers(drain=None if self._stop_requests < 2 else 0.0)
        await self._workers.wait_until(
            lambda: all(worker.handle is None for worker in self._documents.agents())
        )
        if self._workers.get(SERVER_ID) is not None:
            self._workers.shut_down([SERVER_ID], drain=0.0)
            await self._workers.wait_until(
                lambda: (server := self._workers.get(SERVER_ID)) is None or server.handle is None
            )
        self._wishes.forget_all()

    def _end_workers(self, *, drain: float | None) -> None:
        self._workers.shut_down([worker.spec.id for worker in self._documents.agents()], drain=drain)

    def _longest_stop(self) -> float:
        policies = [worker.spec.policy for worker in self._documents.agents()]
        return max((policy.drain + policy.kill for policy in policies), default=0.0)

    # --- reload ---

    def _on_hangup(self) -> None:
        if not self._takes_orders:
            self._hung_up = True
            return
        if self._stopping.is_set():
            return
        with contextlib.suppress(CommandError):  # published as a failed reload
            self._reload()

    def _reload(self) -> Answer:
        try:
            settings = load(self._config_path, os.environ)
            self._require_same_place(settings)
        except ConfigError as error:
            self._bus.publish(ConfigReloaded(outcome="failed", error=str(error)))
            raise CommandError(str(error), 2) from error
        before = {agent.id: agent for agent in self._settings.agents}
        after = {agent.id: agent for agent in settings.agents}
        if settings.rooms.resync != self._settings.rooms.resync:
            self._schedule.every(settings.rooms.resync, "resync", self._resync)
        self._settings = settings
        self._apply_settings()
        self._bus.publish(ConfigReloaded(outcome="ok"))
        return {
            "added": [i for i in after if i not in before],
            "changed": [i for i in after if i in before and after[i] != before[i]],
            "removed": [i for i in before if i not in after],
        }

    def _require_same_place(self, settings: Settings) -> None:
        """What cannot change under a running daemon; a hand-over to a new one is the way."""
        old = self._settings
        fixed = {
            "livekit": settings.livekit == old.livekit,
            "paths": settings.paths == old.paths,
            "http": settings.http == old.http,
            "store": settings.store == old.store,
        }
        changed = [name for name, same in fixed.items() if not same]
        if changed:
            self._bus.publish(ConfigReloaded(outcome="failed", error=f"changed: {', '.join(changed)}"))
            raise CommandError(
                f"{', '.join(changed)}: cannot change while the daemon runs; "
                "use 'livekit-supervisor handoff' and start it again",
                WRONG,
            )

    def _apply_settings(self) -> None:
        settings = self._settings
        self._metrics.set_agents(agent.id for agent in settings.agents)
        log = settings.log
        self._log.configure(level=log.level, format=log.format, redact=log.redact, secrets=self._secrets())
        self._store.limits(max_age=settings.history.max_age, max_size=settings.history.max_size)
        self._rooms.policy = specs.room_policy(settings, self._rooms.policy.instance)
        self._rooms.ignore, self._rooms.enforce = settings.rooms.ignore, settings.rooms.enforce
        agents = self._agent_specs()
        if self._development is not None:
            agents = [self._development.spec(), *agents]
        self._workers.configure(agents)
        for agent in settings.agents:
            self._book.retime(agent.id, agent.heartbeat.timeout)
        self._desk.welcome_anew()
        self._rooms.wake_all()

    # --- periodic ---

    async def _resync(self) -> None:
        self._workers.wake_all()
        await self._rooms.resync(self._settings.rooms.resync * 0.8)

    async def _probe(self) -> None:
        """That LiveKit has gone, or come back, is known within a second, also when nothing else asks it."""
        await self._client.ping()

    async def _measure(self) -> None:
        """Exact memory, which costs some 2 ms per 100 MB, in a thread, and only every few looks."""
        census = Census(self._launches)
        self._looks += 1
        for worker in self._workers.all():
            handle, limit = worker.handle, worker.spec.policy.memory_limit
            if handle is None:
                continue
            usage = census.usage(handle.pid)
            key = (handle.pid, handle.create_time)
            self._gauges.cpu(worker.spec.id, {key: usage.cpu_seconds}, adopted=handle.adopted)
            near = bool(limit) and usage.memory_bytes > limit
            if near or not worker.memory_bytes or self._looks % EXACT_EVERY == 0:
                pids = [stat.pid for stat in census.tree(handle.pid)]
                memory = await asyncio.to_thread(proportional_memory, pids)
                worker.memory_bytes = memory if worker.handle is handle else 0
            if limit and worker.memory_bytes > limit:
                self._workers.wake(worker.spec.id)

    async def _ask_workers(self) -> None:
        asked = {w.spec.id: w for w in self._workers.all() if w.handle is not None and w.http_port}
        pids = {agent_id: w.handle.pid for agent_id, w in asked.items() if w.handle is not None}
        told = await complaints({agent_id: w.http_port for agent_id, w in asked.items()}, PROBE_SECONDS)
        for agent_id, complaint in told.items():
            self._workers.health(agent_id, pids[agent_id], complaint)

    def _on_tick(self) -> None:
        self._workers.tick()
        self._schedule.check_clock()
        self._book.tick()
        self._watchdog.tick()
        self._notifier.status(self._documents.summary())

    def _on_late(self, seconds: float) -> None:
        del seconds
        self._book.table.freeze(self._clock() + self._longest_heartbeat())
        self._workers.forgive()

    def _livekit_is_back(self) -> None:
        self._workers.livekit_is_back()
        self._rooms.wake_all()

    def _worker_hung(self, agent_id: str) -> None:
        self._workers.hung(agent_id)

    def _worker_pid(self, agent_id: str) -> int | None:
        return self._workers.pid(agent_id)

    def _is_left_alone(self, room: str, agent_name: str, identity: str) -> bool:
        rooms = self._settings.rooms
        return matches_any(room, rooms.ignore) or is_ignored((agent_name, identity), rooms.ignore_agents)

    def _longest_heartbeat(self) -> float:
        return max((agent.heartbeat.timeout for agent in self._settings.agents), default=10.0)

    def _guard_times(self, agent_id: str) -> GuardTimes:
        for agent in self._settings.agents:
            if agent.id == agent_id:
                return GuardTimes(agent.heartbeat.interval, agent.heartbeat.timeout)
        return GuardTimes(2.0, 10.0)


def _answer_soon() -> None:
    """A guard waits 300 ms at the most: neither other threads nor a sweep over all that has been imported
    may keep the event loop from answering."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()


class _Views:
    """Implements :class:`supervisor.endpoints.ports.Views`."""

    def __init__(self, documents: Documents, store: SqliteStore, watchdog: Watchdog) -> None:
        self._documents = documents
        self._store = store
        self._watchdog = watchdog

    def status(self) -> dict[str, object]:
        return self._documents.status()

    def rooms(self) -> dict[str, object]:
        return self._documents.rooms()

    async def conflicts(self, since: float | None) -> dict[str, object]:
        return {"version": 1, "conflicts": await self._store.conflicts(since)}

    def liveness(self) -> tuple[bool, str]:
        stuck = ", ".join(sorted(self._watchdog.stuck))
        return not stuck, f"these loops are stuck: {stuck}" if stuck else "alive"

    def readiness(self) -> tuple[bool, str]:
        return self._documents.readiness()
