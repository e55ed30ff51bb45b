"""Processes that are no children of ours: watched, told apart, and counted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import psutil
import pytest

from supervisor.core.ports import ExitStatus, ProcessWatch
from supervisor.process.host import PosixProcessHost
from supervisor.process.pidfd import Pidfd, exit_of_stranger
from supervisor.process.procfs import Identity, read_stat
from supervisor.process.tree import Census, proportional_memory, usage
from supervisor.process.watch import PidfdWatch
from tests.process.programs import Bench, identity, is_alive, number_in, start, until, until_async


@pytest.fixture
def watch() -> PidfdWatch:
    return PidfdWatch()


async def test_a_death_is_told_once(watch: ProcessWatch) -> None:
    died = asyncio.Event()
    with start("sleep", "300") as process:
        assert watch.create_time(process.pid) == pytest.approx(
            psutil.Process(process.pid).create_time() - psutil.boot_time(), abs=1.5
        )
        stop = watch.watch(process.pid, died.set)
        assert not died.is_set()
        process.kill()
        await asyncio.wait_for(died.wait(), 5)
        # A zombie, until its parent looks: dead to us.
        assert watch.create_time(process.pid) is None
        stop()


async def test_who_is_dead_already_is_told_soon(watch: PidfdWatch) -> None:
    with start("true") as process:
        process.wait()
    died = asyncio.Event()
    watch.watch(process.pid, died.set)
    assert not died.is_set()
    await asyncio.wait_for(died.wait(), 5)
    watch.watch(process.pid, died.clear)()
    await asyncio.sleep(0)
    assert died.is_set()


async def test_a_watch_that_ended_tells_nothing(watch: PidfdWatch) -> None:
    died = asyncio.Event()
    with start("sleep", "300") as process:
        before = len(os.listdir("/proc/self/fd"))
        stop = watch.watch(process.pid, died.set)
        stop()
        stop()
        assert len(os.listdir("/proc/self/fd")) == before
        process.kill()
        process.wait()
        await asyncio.sleep(0.01)
    assert not died.is_set()


async def test_exactly_that_process_is_killed(watch: PidfdWatch) -> None:
    with start("sleep", "300") as process:
        created = watch.create_time(process.pid)
        assert created is not None
        assert not watch.kill(process.pid, created - 0.02)
        assert not watch.kill(process.pid, created + 0.02)
        assert process.poll() is None
        assert watch.kill(process.pid, created)
        assert process.wait() == -9
        assert not watch.kill(process.pid, created)


async def test_never_ourselves_or_our_parents(watch: PidfdWatch) -> None:
    for pid in (os.getpid(), os.getppid(), 1, 0, -1):
        assert not watch.kill(pid, watch.create_time(pid) or 0.0)


@pytest.mark.parametrize(
    ("code", "expected"),
    [("exit 0", ExitStatus(code=0)), ("exit 3", ExitStatus(code=3)), ("kill -9 $$", ExitStatus(signal=9))],
)
def test_how_a_stranger_ended(code: str, expected: ExitStatus) -> None:
    """Told while it is a zombie, and still when it has been reaped."""
    with start("sh", "-c", f"sleep 0.05; {code}") as process:
        held = Pidfd.open(identity(process.pid))
        assert held is not None
        assert exit_of_stranger(held) is None
        assert held.has_exited(5)
        assert exit_of_stranger(held) == expected
        process.wait()
    status = exit_of_stranger(held)
    # Linux before 6.15 does not tell; nothing is invented then.
    assert status == (expected if _linux() >= (6, 15) else None)
    held.close()


def _linux() -> tuple[int, ...]:
    return tuple(int(number) for number in os.uname().release.split(".")[:2])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_exit_that_we_may_not_see_is_not_taken_for_a_success() -> None:
    with start("sh", "-c", "sleep 0.2; exit 3") as process:
        code = f"""
import os
from supervisor.process.pidfd import Pidfd, exit_of_stranger
from supervisor.process.procfs import read_stat
os.setgroups([]); os.setgid(65534); os.setuid(65534)
held = Pidfd.open(read_stat({process.pid}).identity)
held.has_exited(5)
print(exit_of_stranger(held))
"""
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert result.stdout == "None\n"


def test_pids_that_are_none() -> None:
    for pid in (0, -1, 2**31, 2**80):
        assert Pidfd.open(Identity(pid, 0)) is None
    assert Pidfd.open(Identity(os.getpid(), 0)) is None


def test_a_name_with_brackets_is_only_a_name() -> None:
    code = (
        "import ctypes; libc = ctypes.CDLL(None); libc.prctl(15, b'x) Z 1 (y', 0, 0, 0); "
        "print(flush=True); input()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        stat = read_stat(process.pid)
        assert stat is not None
        assert (stat.name, stat.ppid, stat.is_alive) == ("x) Z 1 (y", os.getpid(), True)
        process.kill()


def test_a_leader_that_ended_before_its_threads_is_alive() -> None:
    code = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(300,)).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    with start(sys.executable, "-c", code) as process:
        until(lambda: (stat := read_stat(process.pid)) is not None and stat.state == "Z")
        assert is_alive(process.pid)
        held = Pidfd.open(identity(process.pid))
        assert held is not None
        assert not held.has_exited()
        assert held.signal(signal.SIGKILL)
        assert process.wait() == -9
        held.close()


# --- trees --------------------------------------------------------------------------------------------


async def test_who_belongs_to_a_tree(watch: PidfdWatch, host: PosixProcessHost, bench: Bench) -> None:
    orphan, child, bare = (bench.folder / name for name in ("orphan", "child", "bare"))
    script = (
        f"(setsid sh -c 'echo $$ > {orphan}; exec sleep 300' &); "
        f"(setsid env -i sh -c 'echo $$ > {bare}; exec sleep 300' &); "
        f"echo $$ > {child}; exec sleep 300"
    )
    spec = bench.python(
        f"import subprocess, time\nsubprocess.Popen(['sh', '-c', {script!r}])\ntime.sleep(300)"
    )
    handle = host.spawn(spec)
    lost, below, unmarked = number_in(orphan), number_in(child), number_in(bare)
    assert watch.in_tree(handle.pid, handle.pid, spec.marks)
    assert watch.in_tree(below, handle.pid, ())
    assert watch.in_tree(lost, handle.pid, spec.marks)
    assert not watch.in_tree(lost, handle.pid, ())
    assert not watch.in_tree(unmarked, handle.pid, spec.marks)
    assert not watch.in_tree(os.getpid(), handle.pid, spec.marks)
    assert not watch.in_tree(1, handle.pid, spec.marks)
    with start("sleep", "300", env=dict(spec.env)) as impostor:
        assert not watch.in_tree(impostor.pid, handle.pid, spec.marks)
        impostor.kill()
    os.kill(unmarked, signal.SIGKILL)
    handle.signal(signal.SIGKILL)
    await handle.wait()
    assert not watch.in_tree(lost, handle.pid, spec.marks)
    second = host.spawn(bench.spec("sleep", "300"))
    assert not watch.in_tree(lost, second.pid, spec.marks)


async def test_what_a_tree_uses(host: PosixProcessHost, bench: Bench) -> None:
    code = (
        "import os, time\n"
        "block = b'x' * 50_000_000\n"
        "if os.fork() == 0:\n"
        "    end = time.process_time() + 0.3\n"
        "    while time.process_time() < end: pass\n"
        "    print('done', flush=True)\n"
        "time.sleep(300)"
    )
    handle = host.spawn(bench.python(code))
    await until_async(lambda: bench.log.read_text() == "done\n")
    census = Census()
    used = census.usage(handle.pid)
    assert used.processes == 2
    assert used.cpu_seconds >= 0.3
    exact = proportional_memory(stat.pid for stat in census.tree(handle.pid))
    assert 50_000_000 < exact < used.memory_bytes < 4 * exact
    await handle.kill_tree()
    await handle.wait()
    gone = usage(handle.pid)
    assert (gone.memory_bytes, gone.cpu_seconds, gone.processes) == (0, 0, 0)
