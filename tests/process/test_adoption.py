"""A daemon is killed at any instant: the next one finds the worker, and what is left of a dead one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.core.ports import ExitStatus, ProcessSpec, SpawnFailed
from supervisor.process import lock, pidfile
from supervisor.process.host import PosixProcessHost
from supervisor.process.procfs import environment, read_stat
from tests.process.programs import (
    AGENT,
    DIE_BEFORE_PIDFILE,
    SPAWN_AND_DIE,
    Bench,
    identity,
    is_alive,
    number_in,
    run_daemon,
    until,
    until_async,
)


def _spawned_by_a_dead_daemon(bench: Bench, spec: ProcessSpec) -> int:
    return int(run_daemon(bench, spec, SPAWN_AND_DIE, check=-9))


def _spawned_before_the_pidfile(bench: Bench, spec: ProcessSpec) -> int:
    run_daemon(bench, spec, DIE_BEFORE_PIDFILE, check=-9)
    assert not bench.pidfile.exists()
    (leader,) = [pid for pid in lock.holders(bench.lock) if _session(pid) == pid]
    return leader


def _session(pid: int) -> int | None:
    """None of one that is gone: a shell's short-lived program holds the lock, too."""
    stat = read_stat(pid)
    return stat.session if stat is not None else None


DEATHS = [_spawned_by_a_dead_daemon, _spawned_before_the_pidfile]
Death = Callable[[Bench, ProcessSpec], int]


@pytest.mark.parametrize("death", DEATHS)
async def test_the_next_daemon_takes_the_worker_over(
    host: PosixProcessHost, bench: Bench, sleeper: ProcessSpec, death: Death
) -> None:
    pid = death(bench, sleeper)
    started = time.monotonic()
    handle = host.adopt(sleeper)
    assert time.monotonic() - started < 1
    assert handle is not None
    assert (handle.pid, handle.adopted, handle.command_hash) == (pid, True, "hash-1")
    record = pidfile.read(bench.pidfile, AGENT)
    assert isinstance(record, pidfile.Record)
    assert record.identity == identity(pid)
    with pytest.raises(SpawnFailed, match=str(pid)):
        host.spawn(sleeper)
    assert await host.clear_leftovers(sleeper) == ()
    assert is_alive(pid)


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done", ExitStatus(code=7)),
        ("trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done", ExitStatus(code=0)),
        ("echo ready; exec sleep 300", ExitStatus(signal=15)),
    ],
)
async def test_how_an_adopted_worker_ended(
    host: PosixProcessHost, bench: Bench, death: Death, code: str, expected: ExitStatus
) -> None:
    """It is no child of ours: the kernel tells through the pidfd, or while it is a zombie."""
    spec = bench.shell(code)
    death(bench, spec)
    handle = host.adopt(spec)
    assert handle is not None
    await until_async(lambda: bench.log.read_text() == "ready\n")
    waiting = asyncio.gather(handle.wait(), handle.wait())
    await asyncio.sleep(0)
    assert handle.signal(signal.SIGTERM)
    assert list(await waiting) == [expected, expected]
    assert await handle.kill_tree() == ()


async def test_an_adopted_worker_that_died_before_anybody_looked(
    host: PosixProcessHost, bench: Bench, sleeper: ProcessSpec
) -> None:
    _spawned_by_a_dead_daemon(bench, sleeper)
    handle = host.adopt(sleeper)
    assert handle is not None
    os.kill(handle.pid, signal.SIGKILL)
    await until_async(lambda: not is_alive(handle.pid))
    assert await handle.wait() == ExitStatus(signal=9)


async def test_nothing_to_adopt(host: PosixProcessHost, bench: Bench, sleeper: ProcessSpec) -> None:
    assert host.adopt(sleeper) is None
    pid = _spawned_by_a_dead_daemon(bench, sleeper)
    os.kill(pid, signal.SIGKILL)
    await until_async(lambda: not is_alive(pid))
    assert host.adopt(sleeper) is None
    handle = host.spawn(sleeper)
    assert handle.pid != pid


async def test_fifty_are_adopted_within_a_second(bench: Bench, host: PosixProcessHost) -> None:
    specs = [bench.spec("sleep", "300", id=f"agent-{n}") for n in range(50)]
    pids = [host.spawn(spec).pid for spec in specs]
    started = time.monotonic()
    adopted = [PosixProcessHost(bench.state).adopt(spec) for spec in specs]
    assert time.monotonic() - started < 1
    assert [handle.pid for handle in adopted if handle is not None] == pids


async def test_many_holders_without_an_environment_are_waited_for_together(
    bench: Bench, host: PosixProcessHost
) -> None:
    spec = bench.shell("for n in 1 2 3 4 5 6 7 8 9 10; do setsid env -i sleep 300 & done; sleep 300")
    worker = host.spawn(spec)
    await until_async(lambda: [environment(pid) for pid in lock.holders(bench.lock)].count(b"") == 10)
    worker.signal(signal.SIGKILL)
    await worker.wait()
    started = time.monotonic()
    assert host.adopt(spec) is None
    assert time.monotonic() - started < 1
    assert len(await host.clear_leftovers(spec)) >= 10


def _hard_link(lock: Path) -> None:
    lock.with_name("second-name").hardlink_to(lock)


def _link(lock: Path) -> None:
    lock.rename(lock.with_name("moved"))
    lock.symlink_to(lock.with_name("moved"))


def _directory(lock: Path) -> None:
    lock.unlink()
    lock.mkdir()


@pytest.mark.parametrize("meddle", [_hard_link, _link, _directory, Path.unlink])
async def test_a_spoilt_lock_costs_no_worker_its_life(
    host: PosixProcessHost, bench: Bench, sleeper: ProcessSpec, meddle: Callable[[Path], None]
) -> None:
    """The pidfile tells and the process confirms; without a pidfile it is not known, and nothing is done."""
    pid = _spawned_by_a_dead_daemon(bench, sleeper)
    meddle(bench.lock)
    handle = host.adopt(sleeper)
    assert handle is not None
    assert handle.pid == pid
    assert await host.clear_leftovers(sleeper) == ()
    with pytest.raises(SpawnFailed):
        host.spawn(sleeper)
    if meddle is not Path.unlink:
        bench.pidfile.unlink()
        assert host.adopt(sleeper) is None
        assert await host.clear_leftovers(sleeper) == ()
        with pytest.raises(SpawnFailed, match="its lock cannot be used"):
            host.spawn(sleeper)
    assert is_alive(pid)


async def test_its_age_is_its_own_not_its_adoption_s(host: PosixProcessHost, sleeper: ProcessSpec) -> None:
    handle = host.spawn(sleeper)
    await until_async(lambda: handle.age > 0.3)
    adopted = host.adopt(sleeper)
    assert adopted is not None
    assert adopted.age > 0.3
    adopted.close()


async def test_changed_configuration_is_seen(host: PosixProcessHost, bench: Bench) -> None:
    _spawned_by_a_dead_daemon(bench, bench.spec("sleep", "300", command_hash="old.with.dots"))
    handle = host.adopt(bench.spec("sleep", "400", command_hash="new"))
    assert handle is not None
    assert handle.command_hash == "old.with.dots"


# --- what is left of a dead worker --------------------------------------------------------------------

_FORKS = "import os, time\nif os.fork() == 0:\n    {first}\n    time.sleep(300)\ntime.sleep(300)"
PLAIN_FORK = _FORKS.format(first="pass")
OWN_SESSION = _FORKS.format(first="os.setsid(); import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)")


def _leave_a_grandchild(bench: Bench, spec: ProcessSpec, death: Death) -> int:
    """The worker's descendant that holds the lock, the worker being dead."""
    worker = death(bench, spec)
    until(lambda: len(lock.holders(bench.lock)) == 2)
    (grandchild,) = set(lock.holders(bench.lock)) - {worker}
    until(lambda: (b"setsid" not in spec.argv[-1].encode()) or os.getsid(grandchild) == grandchild)
    os.kill(worker, signal.SIGKILL)
    until(lambda: not is_alive(worker))
    assert lock.holders(bench.lock) == (grandchild,)
    return grandchild


@pytest.mark.parametrize("code", [PLAIN_FORK, OWN_SESSION], ids=["plain fork", "own session"])
async def test_a_leftover_that_holds_the_lock_is_no_worker_and_is_ended(
    host: PosixProcessHost, bench: Bench, code: str
) -> None:
    spec = bench.python(code)
    grandchild = _leave_a_grandchild(bench, spec, _spawned_by_a_dead_daemon)
    assert host.adopt(spec) is None
    with pytest.raises(SpawnFailed, match=f"must not be started again: by process {grandchild}"):
        host.spawn(spec)
    assert await host.clear_leftovers(spec) == (grandchild,)
    assert not is_alive(grandchild)
    assert host.spawn(spec).pid != grandchild


async def test_a_leftover_without_any_pidfile_is_no_worker(host: PosixProcessHost, bench: Bench) -> None:
    spec = bench.python(PLAIN_FORK)
    grandchild = _leave_a_grandchild(bench, spec, _spawned_before_the_pidfile)
    assert host.adopt(spec) is None
    assert await host.clear_leftovers(spec) == (grandchild,)


async def test_a_late_leftover_with_its_own_session_is_no_worker_either(
    host: PosixProcessHost, bench: Bench
) -> None:
    """It leads a session, carries the marks and holds the lock, and is too young to be the one we forked."""
    spec = bench.python(f"import time; time.sleep(2.5)\n{OWN_SESSION}")
    grandchild = _leave_a_grandchild(bench, spec, _spawned_before_the_pidfile)
    assert host.adopt(spec) is None
    assert await host.clear_leftovers(spec) == (grandchild,)


async def test_a_program_that_forks_and_exits_leaves_no_worker(host: PosixProcessHost, bench: Bench) -> None:
    child = bench.folder / "child"
    spec = bench.shell(f"setsid sh -c 'echo $$ > {child}; exec sleep 300' & exit 0")
    handle = host.spawn(spec)
    assert await handle.wait() == ExitStatus(code=0)
    pid = number_in(child)
    assert host.adopt(spec) is None
    assert await handle.kill_tree() == ()
    assert not is_alive(pid)
    host.spawn(spec)


async def test_a_job_left_over_from_a_dead_worker_is_ended(host: PosixProcessHost, bench: Bench) -> None:
    """As livekit-agents' jobs are: no lock, no parent any more, known by their environment alone."""
    job = bench.folder / "job"
    spec = bench.python(
        "import subprocess, time\n"
        f"subprocess.Popen(['sh', '-c', 'echo $$ > {job}; exec sleep 300'], start_new_session=True)\n"
        "time.sleep(300)"
    )
    worker = _spawned_by_a_dead_daemon(bench, spec)
    pid = number_in(job)
    os.kill(worker, signal.SIGKILL)
    await until_async(lambda: not is_alive(worker))
    assert not lock.is_held(bench.lock)
    assert await host.clear_leftovers(spec) == (pid,)


async def test_other_agents_jobs_are_no_leftovers(host: PosixProcessHost, bench: Bench) -> None:
    other = host.spawn(bench.spec("sleep", "300", id="agent-10"))
    assert await host.clear_leftovers(bench.spec("true")) == ()
    assert await host.spawn(bench.spec("true")).kill_tree() == ()
    assert is_alive(other.pid)


async def test_who_merely_reads_the_lock_file_is_left_alone(host: PosixProcessHost, bench: Bench) -> None:
    spec = bench.python(PLAIN_FORK)
    grandchild = _leave_a_grandchild(bench, spec, _spawned_by_a_dead_daemon)
    with bench.lock.open():  # we ourselves, for one
        assert lock.holders(bench.lock) == (grandchild,)
        reader = await asyncio.create_subprocess_exec("tail", "-f", bench.lock)
        await until_async(lambda: str(bench.lock) in _open_files(reader.pid))
        assert await host.clear_leftovers(spec) == (grandchild,)
        assert is_alive(reader.pid)
        reader.kill()
        await reader.wait()


def _open_files(pid: int) -> set[str]:
    folder = f"/proc/{pid}/fd"
    files = set()
    for number in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            files.add(os.readlink(f"{folder}/{number}"))
    return files
