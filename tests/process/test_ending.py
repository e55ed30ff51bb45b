"""Ending a tree: everything that came from it, whatever it did to get away, and nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from supervisor.process import lock
from supervisor.process.ending import Ended, Prey, end, end_tree, kill
from supervisor.process.host import PosixProcessHost
from supervisor.process.procfs import Identity, carrying
from supervisor.process.variables import LAUNCH
from tests.process.programs import Bench, identity, is_alive, number_in, start, until, until_async

# Each ignores SIGTERM, tells its pid and sleeps.
_STUBBORN = """
import os, signal, subprocess, sys, time
def stay(name):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(os.path.join(sys.argv[1], name), "w") as file: file.write(f"{os.getpid()}\\n")
    time.sleep(300)
"""
_TREE = f"""{_STUBBORN}
if os.fork() == 0:
    stay("child")
if os.fork() == 0:
    os.setsid()
    stay("own-session")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: stay("orphan")
    os._exit(0)
if os.fork() == 0:
    code = "trap '' TERM; echo $$ > " + sys.argv[1] + "/forgetful; sleep 300; :"
    subprocess.Popen(["sh", "-c", code], env={{}})
    stay("parent-of-forgetful")
if os.fork() == 0:
    with open(sys.argv[1] + "/stopped", "w") as file: file.write(f"{{os.getpid()}}\\n")
    os.kill(os.getpid(), signal.SIGSTOP)
stay("worker")
"""
_NAMES = ("worker", "child", "own-session", "orphan", "forgetful", "parent-of-forgetful", "stopped")


async def test_nothing_of_a_tree_survives(host: PosixProcessHost, bench: Bench) -> None:
    folder = bench.folder / "pids"
    folder.mkdir()
    handle = host.spawn(bench.spec(sys.executable, "-c", _TREE, str(folder)))
    pids = [number_in(folder / name) for name in _NAMES]
    assert all(is_alive(pid) for pid in pids)
    started = time.monotonic()
    assert await handle.kill_tree() == ()
    assert time.monotonic() - started < 1
    assert not [pid for pid in pids if is_alive(pid)]
    assert not lock.is_held(bench.lock)


async def test_nothing_survives_its_root_either(host: PosixProcessHost, bench: Bench) -> None:
    """The root is dead, all are orphans now: found by what they carry, or by the lock."""
    folder = bench.folder / "pids"
    folder.mkdir()
    handle = host.spawn(bench.spec(sys.executable, "-c", _TREE, str(folder)))
    pids = [number_in(folder / name) for name in _NAMES]
    assert handle.signal(signal.SIGKILL)
    await handle.wait()
    assert len([pid for pid in pids if is_alive(pid)]) == len(pids) - 1
    assert await handle.kill_tree() == ()
    assert not [pid for pid in pids if is_alive(pid)]


_FORGETS = """
import subprocess, sys, time
code = "echo $$ > " + sys.argv[1] + "; exec sleep 300"
subprocess.Popen(["sh", "-c", code], env={{}}, start_new_session={session})
time.sleep(300)
"""


@pytest.mark.parametrize(("own_session", "number"), [(False, signal.SIGKILL), (True, signal.SIGTERM)])
async def test_a_child_that_carries_nothing_of_ours(
    host: PosixProcessHost, bench: Bench, own_session: bool, number: signal.Signals
) -> None:
    """No variables, no lock, and no parent any more: known by the session, or from before our signal."""
    file = bench.folder / "pid"
    code = _FORGETS.format(session=own_session)
    handle = host.spawn(bench.spec(sys.executable, "-c", code, str(file)))
    pid = number_in(file)
    assert handle.signal(number)
    await handle.wait()
    assert is_alive(pid)
    assert await handle.kill_tree() == ()
    assert not is_alive(pid)


async def test_who_keeps_forking_is_caught(host: PosixProcessHost, bench: Bench) -> None:
    """Each generation starts the next in its own session, and exits: nobody has a parent to be found by."""
    hops = bench.folder / "hops"
    code = f"""
import os, time
end = time.monotonic() + 60
while time.monotonic() < end:
    with open({str(hops)!r}, "a") as file: file.write("x")
    if os.fork(): os._exit(0)
    os.setsid()
    time.sleep(0.001)
"""
    handle = host.spawn(bench.python(code))
    await until_async(lambda: hops.exists() and hops.stat().st_size > 20)
    assert await handle.kill_tree() == ()
    size = hops.stat().st_size
    carrier = Prey(marked=carrying(((LAUNCH, handle.launch),)))
    assert carrier.look() == []
    assert hops.stat().st_size == size


async def test_others_with_the_same_marks_are_not_ours_to_end_by_stealth(
    host: PosixProcessHost, bench: Bench
) -> None:
    """Somebody has started it by hand with the agent's variables: a rogue, for the scan to judge."""
    spec = bench.spec("sleep", "300")
    with start("sleep", "300", env=dict(spec.env)) as rogue:
        handle = host.spawn(spec)
        assert await handle.kill_tree() == ()
        await handle.wait()
        assert await host.clear_leftovers(spec) == ()
        assert rogue.poll() is None
        rogue.kill()


async def test_without_marks_nobody_is_meant(host: PosixProcessHost, bench: Bench) -> None:
    assert not carrying(())(b"A=1\0")
    assert await end(Prey(marked=carrying(()))) == Ended((), ())


def test_marks_are_whole_variables() -> None:
    marked = carrying((("A", "1"), ("B", "x")))
    assert marked(b"A=1\0B=x\0")
    assert marked(b"C=\0B=x\0A=1\0")
    for block in (b"A=1\0", b"A=11\0B=x\0", b"AA=1\0B=x\0", b"A=1\0B=xx\0", b"", b"D=A=1\0B=x\0"):
        assert not marked(block)


async def test_never_ourselves_nor_those_we_descend_from() -> None:
    above = [p.pid for p in psutil.Process().parents()]
    roots = frozenset(identity(pid) for pid in (os.getpid(), *above))
    bystander = start("sleep", "300")
    try:
        # What lies below us is ours only if it was named itself.
        found = {stat.pid for stat in Prey(roots=roots).look()}
        assert not found & {os.getpid(), 1, *above}
    finally:
        bystander.kill()
        bystander.wait()


async def test_a_pid_alone_is_nobody() -> None:
    with start("sleep", "300") as process:
        who = identity(process.pid)
        other = Identity(who.pid, who.start_ticks - 1)
        assert not kill(other)
        assert await end_tree(other) == Ended((), ())
        assert process.poll() is None
        assert await end_tree(who) == Ended((who.pid,), ())
        assert process.wait() == -9
        assert not kill(who)


async def test_a_session_that_is_another_one_s_by_now_is_left_alone() -> None:
    """The number of a worker that is long gone, which leads a stranger's session today."""
    with start("sh", "-c", "sleep 300; :", own_session=True) as stranger:
        until(lambda: psutil.Process(stranger.pid).children())
        who = identity(stranger.pid)
        assert Prey(roots=frozenset({Identity(who.pid, who.start_ticks - 1)})).look() == []
        assert (await end_tree(who)).survivors == ()
        assert stranger.wait() == -9


async def test_a_rogue_goes_with_everything_below_it(tmp_path: Path) -> None:
    script = f"sh -c 'echo $$ > {tmp_path}/below; sleep 300; :' & echo $$ > {tmp_path}/root; sleep 300; :"
    with start("sh", "-c", script) as rogue:
        below = number_in(tmp_path / "below")
        ended = await end_tree(identity(number_in(tmp_path / "root")))
        assert rogue.pid in ended.killed
        assert ended.survivors == ()
        until(lambda: not is_alive(below))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
def test_who_is_not_ours_to_signal_is_named(tmp_path: Path) -> None:
    """As a daemon that is not root would see it: we stay root, and hand the right away in a child."""
    with start("sleep", "300") as process:
        code = f"""
import asyncio, os
from supervisor.process.ending import Prey, end
from supervisor.process.procfs import Identity
os.setgroups([]); os.setgid(65534); os.setuid(65534)
root = Identity({process.pid}, {identity(process.pid).start_ticks})
ended = asyncio.run(end(Prey(roots=frozenset({{root}})), patience=0.1))
print(ended.killed, ended.survivors)
"""
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert result.stdout == f"() ({process.pid},)\n"
        process.kill()
