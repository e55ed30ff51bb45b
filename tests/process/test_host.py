"""Starting a process: what it gets, what keeps it single, and what is said when it cannot be started."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from supervisor.core.ports import ExitStatus, ProcessHandle, ProcessHost, ProcessSpec, SpawnFailed
from supervisor.process import lock, pidfile
from supervisor.process.host import PosixProcessHost
from supervisor.process.procfs import boot_id
from supervisor.process.variables import LAUNCH
from tests.process.programs import AGENT, REPOSITORY, Bench, is_alive, until, until_async


async def test_a_process_owes_the_daemon_nothing(host: PosixProcessHost, bench: Bench) -> None:
    handle = host.spawn(bench.shell("echo out; echo err >&2; exec sleep 300"))
    protocol: tuple[ProcessHost, ProcessHandle] = host, handle
    assert protocol
    process = psutil.Process(handle.pid)
    await until_async(lambda: process.cmdline() == ["sleep", "300"])
    assert bench.log.read_text() == "out\nerr\n"
    assert os.getsid(handle.pid) == handle.pid
    number = process.environ()["LIVEKIT_SUPERVISOR_LOCK_FD"]
    files = {"0": "/dev/null", "1": str(bench.log), "2": str(bench.log), number: str(bench.lock)}
    # A program that is being loaded opens its libraries.
    await until_async(lambda: _descriptors(handle.pid) == files)
    assert bench.log.stat().st_mode & 0o777 == 0o600
    assert bench.lock.stat().st_mode & 0o777 == 0o600
    assert not handle.adopted
    assert handle.lacking == ""
    assert handle.create_time == pytest.approx(process.create_time(), abs=1.5)  # the clock may be slewed


def _descriptors(pid: int) -> dict[str, str]:
    with contextlib.suppress(FileNotFoundError):  # closed while we looked
        return {n: os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")}
    return {}


async def test_the_lock_is_the_process_s_alone(
    host: PosixProcessHost, bench: Bench, sleeper: ProcessSpec
) -> None:
    handle = host.spawn(sleeper)
    assert lock.is_held(bench.lock)
    assert lock.holders(bench.lock) == (handle.pid,)
    os.kill(handle.pid, signal.SIGKILL)
    await handle.wait()
    assert not lock.is_held(bench.lock)


async def test_the_pidfile_tells(host: PosixProcessHost, bench: Bench, sleeper: ProcessSpec) -> None:
    handle = host.spawn(sleeper)
    values = json.loads(bench.pidfile.read_text())
    assert values["pid"] == handle.pid
    assert values["id"] == AGENT
    assert values["command_hash"] == "hash-1"
    assert values["create_time"] == pytest.approx(psutil.Process(handle.pid).create_time(), abs=1.5)
    assert values["boot_id"] == boot_id()
    assert values["version"] == 1
    assert bench.pidfile.stat().st_mode & 0o777 == 0o600
    assert handle.launch == values["launch"]
    # For a moment while it executes its program, a process has no environment.
    await until_async(lambda: psutil.Process(handle.pid).environ().get(LAUNCH) == values["launch"])
    assert sorted(p.name for p in bench.pidfile.parent.iterdir()) == ["agent-1.lock", "agent-1.pid"]


async def test_a_second_start_is_refused(host: PosixProcessHost, sleeper: ProcessSpec) -> None:
    handle = host.spawn(sleeper)
    with pytest.raises(SpawnFailed, match=rf"must not be started again: by process {handle.pid}$"):
        host.spawn(sleeper)
    assert is_alive(handle.pid)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("exit 0", ExitStatus(code=0)),
        ("exit 7", ExitStatus(code=7)),
        ("kill -TERM $$", ExitStatus(signal=15)),
        ("kill -KILL $$", ExitStatus(signal=9)),
    ],
)
async def test_how_it_ended(host: PosixProcessHost, bench: Bench, code: str, expected: ExitStatus) -> None:
    handle = host.spawn(bench.shell(code))
    assert list(await asyncio.gather(handle.wait(), handle.wait())) == [expected, expected]
    assert await handle.wait() == expected
    assert not handle.signal(signal.SIGTERM)
    assert await handle.kill_tree() == ()


async def test_a_waiter_that_gives_up_takes_nothing_from_others(
    host: PosixProcessHost, sleeper: ProcessSpec
) -> None:
    handle = host.spawn(sleeper)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(handle.wait(), 0.01)
    assert handle.signal(signal.SIGTERM)
    assert await handle.wait() == ExitStatus(signal=15)


async def test_a_stopped_process_is_alive_and_can_be_killed(
    host: PosixProcessHost, sleeper: ProcessSpec
) -> None:
    handle = host.spawn(sleeper)
    assert handle.signal(signal.SIGSTOP)
    await until_async(lambda: psutil.Process(handle.pid).status() == "stopped")
    assert await handle.kill_tree() == ()
    assert await handle.wait() == ExitStatus(signal=9)


def _not_executable(bench: Bench) -> ProcessSpec:
    (bench.folder / "plain").write_text("text")
    return bench.spec(str(bench.folder / "plain"))


def _without_interpreter(bench: Bench) -> ProcessSpec:
    program = bench.folder / "orphan"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    return bench.spec(str(program))


def _not_a_program(bench: Bench) -> ProcessSpec:
    program = bench.folder / "broken"
    program.write_bytes(b"\x7fELF and no more")
    program.chmod(0o755)
    return bench.spec(str(program))


def _log_is_a_link(bench: Bench) -> ProcessSpec:
    (bench.folder / "victim").write_text("untouched")
    bench.log.symlink_to(bench.folder / "victim")
    return bench.spec("true")


def _log_is_a_fifo(bench: Bench) -> ProcessSpec:
    os.mkfifo(bench.log)
    return bench.spec("true")


def _log_has_no_folder(bench: Bench) -> ProcessSpec:
    return dataclasses.replace(bench.spec("true"), log_path=str(bench.folder / "missing" / "x.log"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b: b.spec("/no/such/program"), "no such program"),
        (lambda b: b.spec("no-such-program-on-path"), "no such program"),
        (_not_executable, "Permission denied"),
        (_without_interpreter, "interpreter is missing"),
        (_not_a_program, "Exec format error"),
        (
            lambda b: dataclasses.replace(b.spec("true"), cwd="/no/such/folder"),
            "working directory /no/such/folder",
        ),
        (lambda b: dataclasses.replace(b.spec("true"), cwd=__file__), "working directory"),
        (lambda b: b.spec("tr\0ue"), "null byte"),
        (lambda b: dataclasses.replace(b.spec("true"), env=(("A", "x\0y"),)), "null byte"),
        (lambda b: b.spec("true", "x" * (4 << 20)), "Argument list too long"),
        (lambda b: b.spec(), "cannot start"),
        (_log_is_a_link, "symbolic link"),
        (_log_is_a_fifo, "log cannot be written"),
        (_log_has_no_folder, "No such file or directory"),
        (lambda b: b.spec("true", id="../escape"), "cannot name a process"),
        (lambda b: b.spec("true", id=""), "cannot name a process"),
        (lambda b: b.spec("true", id="x" * 250), "cannot name a process"),
    ],
)
async def test_what_cannot_be_started_says_why_and_holds_nothing(
    host: PosixProcessHost, bench: Bench, make: Callable[[Bench], ProcessSpec], message: str
) -> None:
    spec = make(bench)
    with pytest.raises(SpawnFailed, match=message):
        host.spawn(spec)
    assert not bench.lock.exists() or not lock.is_held(bench.lock)
    assert not bench.pidfile.exists()
    assert not (bench.folder / "victim").exists() or (bench.folder / "victim").read_text() == "untouched"
    assert host.adopt(spec) is None


def _link(path: Path) -> None:
    (path.parent / "elsewhere").write_text("")
    path.symlink_to(path.parent / "elsewhere")


def _hard_link(path: Path) -> None:
    (path.parent / "elsewhere").write_text("")
    path.hardlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize(
    ("meddle", "message"),
    [
        (_link, "symbolic link"),
        (_hard_link, "hard links"),
        (lambda path: os.mkfifo(path), "not a plain file"),
        (lambda path: path.mkdir(), "directory"),
    ],
)
async def test_a_lock_that_was_meddled_with_is_refused(
    host: PosixProcessHost, bench: Bench, sleeper: ProcessSpec, meddle: Callable[[Path], None], message: str
) -> None:
    meddle(bench.lock)
    with pytest.raises(SpawnFailed, match=message):
        host.spawn(sleeper)
    assert host.adopt(sleeper) is None
    assert await host.clear_leftovers(sleeper) == ()


async def test_a_program_that_closes_what_it_does_not_know_stays_single(
    host: PosixProcessHost, bench: Bench
) -> None:
    spec = bench.python(
        "import os, time; os.closerange(3, 1024); print('closed', flush=True); time.sleep(300)"
    )
    handle = host.spawn(spec)
    await until_async(lambda: bench.log.read_text() == "closed\n")
    assert not lock.is_held(bench.lock)
    with pytest.raises(SpawnFailed, match=f"gave up its lock: process {handle.pid}"):
        host.spawn(spec)
    adopted = host.adopt(spec)
    assert adopted is not None
    assert adopted.pid == handle.pid
    assert await host.clear_leftovers(spec) == ()
    assert is_alive(handle.pid)
    adopted.close()
    assert host.held_ids() == (spec.id,)  # it runs, also when nobody configures it any more


async def test_a_hundred_starts_at_once_make_one_process(bench: Bench, sleeper: ProcessSpec) -> None:
    host = PosixProcessHost(bench.state)

    def start(_: int) -> int | None:
        try:
            return host.spawn(sleeper).pid
        except SpawnFailed:
            return None

    with ThreadPoolExecutor(100) as pool:
        started = [pid for pid in pool.map(start, range(100)) if pid is not None]
    assert len(started) == 1
    assert lock.holders(bench.lock) == tuple(started)


def test_twenty_daemons_that_start_it_at_once_make_one_process(bench: Bench) -> None:
    PosixProcessHost(bench.state)
    go = bench.folder / "go"
    code = f"""
import os, sys, time
from pathlib import Path
from supervisor.core.ports import ProcessSpec, SpawnFailed
from supervisor.process.host import PosixProcessHost
state = Path({str(bench.state)!r})
host = PosixProcessHost(state)
marks = (("LIVEKIT_SUPERVISOR_AGENT_ID", "agent-1"), ("LIVEKIT_SUPERVISOR_STATE", str(state)))
spec = ProcessSpec("agent-1", ("sleep", "300"), "/", (*os.environ.items(), *marks), {str(bench.log)!r}, marks)
print("ready", flush=True)
while not os.path.exists({str(go)!r}): time.sleep(0.001)
try:
    print(host.spawn(spec).pid)
except SpawnFailed as error:
    print(error)
"""
    daemons = [
        subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        for _ in range(20)
    ]
    for daemon in daemons:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "ready\n"
    go.touch()
    answers = [daemon.communicate(timeout=30)[0].strip() for daemon in daemons]
    started = [int(answer) for answer in answers if answer.isdecimal()]
    assert len(started) == 1, answers
    assert lock.holders(bench.lock) == tuple(started)
    assert all("must not be started again" in a or a.isdecimal() for a in answers), answers


async def test_two_ids_are_two_processes(host: PosixProcessHost, bench: Bench) -> None:
    one, two = host.spawn(bench.spec("sleep", "300", id="a")), host.spawn(bench.spec("sleep", "300", id="b"))
    assert host.held_ids() == ("a", "b")
    assert await one.kill_tree() == ()
    assert is_alive(two.pid)
    await one.wait()
    assert host.held_ids() == ("b",)


async def test_last_output_is_of_the_last_process(host: PosixProcessHost, bench: Bench) -> None:
    spec = bench.shell("echo first")
    await host.spawn(spec).wait()
    assert host.last_output(spec) == "first"
    quiet = bench.shell("exit 1")
    await host.spawn(quiet).wait()
    assert host.last_output(quiet) == ""
    telling = bench.shell("printf 'no end\\033[2J'")
    await host.spawn(telling).wait()
    assert host.last_output(telling) == "no end\\x1b[2J"


async def test_nobody_is_blocked_for_long(host: PosixProcessHost, sleeper: ProcessSpec) -> None:
    """From death to the next process, and the loop held up by a start."""
    restarts, spawns = [], []
    handle = host.spawn(sleeper)
    for _ in range(15):
        killed_at = time.perf_counter()
        os.kill(handle.pid, signal.SIGKILL)
        await handle.wait()
        await handle.kill_tree()
        spawned_at = time.perf_counter()
        handle = host.spawn(sleeper)
        spawns.append(time.perf_counter() - spawned_at)
        restarts.append(time.perf_counter() - killed_at)
    # The figures belong to the benchmark; a busy machine gets some room here.
    assert statistics.median(restarts) < 0.1
    assert statistics.median(spawns) < 0.03


def test_no_descriptor_leaks(bench: Bench) -> None:
    async def rounds() -> None:
        host = PosixProcessHost(bench.state)
        for _ in range(5):
            handle = host.spawn(bench.spec("true"))
            await handle.wait()
            with pytest.raises(SpawnFailed):
                host.spawn(bench.spec("/no/such"))
            await handle.kill_tree()

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(rounds())
    assert len(os.listdir("/proc/self/fd")) == before
    until(lambda: isinstance(pidfile.read(bench.pidfile, AGENT), pidfile.Unusable))
