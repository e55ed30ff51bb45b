"""Part *process*: from a worker's death to its successor, what watching costs, and adoption.

One rule: all supervisors run the same program in the same run: a shell that tells its pid and goes to sleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.contestants import LIMIT, OURS, Contestant, circus, install_peers, supervisord
from tests.bench.figures import Column, Table, median, spread, summary
from tests.bench.ground import Ground, until
from tests.bench.usage import memory, share_of_core
from tests.livekit.supervised import ROOT

MANY = 50
SETTLE = 6.0
"""Seconds: the first looks of every loop are over."""


async def run(ground: Ground) -> None:
    programs = await install_peers(ground)
    peers = [supervisord(programs), circus(programs, 5.0), circus(programs, 0.1)]
    await _deaths(ground, peers)
    await _cost(ground, peers)
    await _adoption(ground)


class Births:
    """The workers tell their pids through a FIFO; when each came is noted."""

    def __init__(self, folder: Path) -> None:
        self.script = folder / "worker.sh"
        self.born: list[tuple[int, float]] = []
        self._fifo = folder / "births"
        self._rest = b""

    @contextlib.contextmanager
    def open(self) -> Iterator[Births]:
        os.mkfifo(self._fifo)
        self.script.write_text(f"echo $$ > {self._fifo}\nexec sleep 100000\n")
        descriptor = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK)
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, self._read, descriptor)
        try:
            yield self
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    async def next(self, known: int, timeout: float = 30.0) -> tuple[int, float]:
        """The first worker born after the first ``known`` ones: its pid, and when."""
        await until(lambda: len(self.born) > known, "a worker", timeout)
        return self.born[known]

    def _read(self, descriptor: int) -> None:
        now = time.monotonic()
        *lines, self._rest = (self._rest + os.read(descriptor, 65536)).split(b"\n")
        self.born.extend((int(line), now) for line in lines)


# --- from death to a new process ------------------------------------------------------------------


async def _deaths(ground: Ground, peers: list[Contestant]) -> None:
    table = Table(
        "From a worker's death to its successor",
        (*spread("ms"), Column("times the limit", digits=0)),
        "SIGKILL to one worker, until the first line of its successor's script has run.  The moment of the "
        "kill is spread evenly over the time between two looks of those that look around at intervals.",
        "a median below 25 ms, without backoff",
    )
    limit = None
    for contestant in (LIMIT, OURS, *peers):
        trials = ground.many(30, 200) if contestant.period < 0.5 else ground.many(4, 25)
        ground.progress(f"{trials} deaths under {contestant.name}")
        seconds = await _times_of_death(ground, contestant, trials)
        limit = limit or median(seconds)
        table.add(contestant.name, {**summary(seconds, 1000), "times the limit": median(seconds) / limit})
    ground.report(table)


async def _times_of_death(ground: Ground, contestant: Contestant, trials: int) -> list[float]:
    found = []
    births = Births(ground.subfolder("births"))
    with births.open():
        async with contestant.start(ground, births.script, 1):
            pid, _ = await births.next(0)
            await asyncio.sleep(2.0)
            for number in range(trials):
                await asyncio.sleep(0.05 + random.uniform(0, max(contestant.period, 0.1)))
                killed = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                pid, born = await births.next(number + 1)
                found.append(born - killed)
    return found


# --- what it costs --------------------------------------------------------------------------------


async def _cost(ground: Ground, peers: list[Contestant]) -> None:
    seconds = float(ground.many(10, 60))
    table = Table(
        "An idle daemon",
        (
            Column("workers"),
            Column("processor", "% of a core", 2),
            Column("PSS", "MiB"),
            Column("RSS", "MiB"),
        ),
        f"Over {seconds:.0f} s in which nothing happens.  Ours is connected to LiveKit, looks for rogues, "
        "measures its workers and rotates their logs meanwhile; the peers do none of that.",
        "below 0.5 % of a core and 75 MB with one worker",
    )
    for contestant in (OURS, *peers):
        for workers in (1, MANY):
            ground.progress(f"{contestant.name} idle with {workers}")
            births = Births(ground.subfolder("births"))
            with births.open():
                async with contestant.start(ground, births.script, workers) as running:
                    await births.next(workers - 1)
                    await asyncio.sleep(SETTLE)
                    share = await share_of_core(running.pid, seconds)
                    used = memory(running.pid)
            table.add(
                contestant.name,
                {"workers": workers, "processor": share * 100, "PSS": used.pss, "RSS": used.rss},
            )
    ground.report(table)


# --- adoption -------------------------------------------------------------------------------------


async def _adoption(ground: Ground) -> None:
    trials = ground.many(3, 10)
    ground.progress(f"{trials} adoptions of {MANY} workers")
    births = Births(ground.subfolder("births"))
    seconds, ready = [], []
    with births.open():
        async with OURS.start(ground, births.script, MANY) as running:
            subject = running.subject
            assert subject is not None
            before = await subject.until(lambda s: all(a["ready"] for a in s["agents"]), 30)
            pids = [agent["pid"] for agent in before["agents"]]
            for _ in range(trials):
                await subject.kill()
                started = time.monotonic()
                await subject.start(wait=False)
                after = await subject.until(lambda s: len(s["agents"]) == MANY, 30)
                seconds.append(time.monotonic() - started)
                assert [agent["pid"] for agent in after["agents"]] == pids, "a worker was started anew"
                await subject.until(lambda s: s["livekit"]["up"], 30)
                ready.append(time.monotonic() - started)
        assert len(births.born) == MANY, "a worker was started anew"
    imports = [await asyncio.to_thread(_time_of_imports) for _ in range(ground.many(2, 5))]
    table = Table(
        f"Adopting {MANY} workers",
        spread("s", 2),
        "The daemon is killed with SIGKILL and started again; supervisord and circus leave their workers "
        "to nobody, and start a second set.",
        "within a second",
    )
    table.add("daemon started, until all are adopted and it answers", summary(seconds))
    table.add("… and LiveKit is known to be there", summary(ready))
    table.add("limit: Python starts and imports the daemon, and ends", summary(imports))
    ground.report(table)


def _time_of_imports() -> float:
    started = time.monotonic()
    imports = "import supervisor.cli.app, supervisor.daemon.app"
    subprocess.run([sys.executable, "-c", imports], cwd=ROOT, check=True)
    return time.monotonic() - started
