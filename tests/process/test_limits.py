"""A daemon without a free file descriptor sees nothing: what it cannot look at is not gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Callable, Iterator

import pytest

from supervisor.core.ports import ExitStatus, ProcessHandle, ProcessSpec, SpawnFailed
from supervisor.process import lock, pidfile
from supervisor.process.host import PosixProcessHost
from supervisor.process.instance import is_running
from supervisor.process.procfs import read_stat
from supervisor.process.tree import Census
from supervisor.process.watch import PidfdWatch
from tests.process.programs import AGENT, Bench, is_alive, run_daemon, start

_NONE_FREE = 1
"""Every number below it is taken, and what is open stays open."""


@contextlib.contextmanager
def _without_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_NONE_FREE, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def worker(host: PosixProcessHost, sleeper: ProcessSpec) -> ProcessHandle:
    return host.spawn(sleeper)


@pytest.mark.parametrize(
    "look",
    [
        lambda bench, pid: read_stat(pid),
        lambda bench, pid: PidfdWatch().create_time(pid),
        lambda bench, pid: PidfdWatch().in_tree(pid, os.getpid(), ()),
        lambda bench, pid: PidfdWatch().kill(pid, 0.0),
        lambda bench, pid: pidfile.read(bench.pidfile, AGENT),
        lambda bench, pid: lock.holders(bench.lock, among=(pid,)),
        lambda bench, pid: is_running(bench.state),
        lambda bench, pid: Census(),
        lambda bench, pid: PosixProcessHost(bench.state).adopt(bench.spec("sleep", "300")),
        lambda bench, pid: PosixProcessHost(bench.state).held_ids(),
    ],
)
async def test_what_cannot_be_looked_at_is_not_known(
    bench: Bench, worker: ProcessHandle, look: Callable[[Bench, int], object]
) -> None:
    with _lock_of_a_daemon(bench):
        look(bench, worker.pid)
        with _without_descriptors(), pytest.raises(OSError, match="Too many open files"):
            look(bench, worker.pid)


@contextlib.contextmanager
def _lock_of_a_daemon(bench: Bench) -> Iterator[None]:
    descriptor = lock.acquire(bench.state / "daemon.lock")
    try:
        yield
    finally:
        os.close(descriptor)


async def test_no_leftovers_are_cleared_that_may_be_the_worker(
    host: PosixProcessHost, sleeper: ProcessSpec, worker: ProcessHandle
) -> None:
    with _without_descriptors():
        with pytest.raises(OSError, match="Too many open files"):
            await host.clear_leftovers(sleeper)
        with pytest.raises(SpawnFailed, match="Too many open files"):
            host.spawn(sleeper)
    assert is_alive(worker.pid)


async def test_a_watch_begun_without_a_descriptor_tells_of_the_exit_and_of_nothing_else() -> None:
    watch, died = PidfdWatch(), asyncio.Event()
    with start("sleep", "300") as process:
        with _without_descriptors():
            watch.watch(process.pid, died.set)
            watch.watch(process.pid, died.set)()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not died.is_set()
        process.kill()
        await asyncio.wait_for(died.wait(), 5)


async def test_who_is_watched_is_killed_without_a_descriptor() -> None:
    watch, died = PidfdWatch(), asyncio.Event()
    with start("sleep", "300") as process:
        created = watch.create_time(process.pid)
        assert created is not None
        watch.watch(process.pid, died.set)
        with _without_descriptors():
            assert watch.kill(process.pid, created)
            await asyncio.wait_for(died.wait(), 5)
            with pytest.raises(OSError, match="Too many open files"):
                watch.kill(process.pid, created)
        assert process.wait() == -9


async def test_never_ourselves_also_when_watched() -> None:
    watch = PidfdWatch()
    for pid in (os.getpid(), os.getppid()):
        stop = watch.watch(pid, lambda: None)
        assert not watch.kill(pid, watch.create_time(pid) or 0.0)
        stop()


async def test_a_worker_is_signalled_without_a_descriptor(worker: ProcessHandle) -> None:
    waiting = asyncio.ensure_future(worker.wait())
    await asyncio.sleep(0)
    with _without_descriptors():
        assert worker.signal(signal.SIGTERM)
        assert await waiting == ExitStatus(signal=15)


async def test_how_an_adopted_worker_ended_is_asked_until_it_can_be_told(
    bench: Bench, worker: ProcessHandle, sleeper: ProcessSpec
) -> None:
    adopted = PosixProcessHost(bench.state).adopt(sleeper)
    assert adopted is not None
    waiting = asyncio.ensure_future(adopted.wait())
    await asyncio.sleep(0)
    with _without_descriptors():
        assert adopted.signal(signal.SIGKILL)
        await asyncio.sleep(0.02)
        assert not waiting.done()
    assert await asyncio.wait_for(waiting, 5) == ExitStatus(signal=9)
    assert await worker.wait() == ExitStatus(signal=9)


# --- the limit itself ---------------------------------------------------------------------------------


def test_we_take_what_we_may_and_our_workers_what_we_were_given(bench: Bench, sleeper: ProcessSpec) -> None:
    code = """
import resource
from supervisor.process.limits import raise_open_files
number = resource.RLIMIT_NOFILE
_, hard = resource.getrlimit(number)
resource.setrlimit(number, (256, hard))
worker = PosixProcessHost(Path(given["state"]), open_files=raise_open_files()).spawn(spec)
assert resource.getrlimit(number) == (min(hard, 65536), hard), resource.getrlimit(number)
assert resource.prlimit(worker.pid, number) == (256, hard), resource.prlimit(worker.pid, number)
assert raise_open_files() == min(hard, 65536)
"""
    run_daemon(bench, sleeper, code)
