"""What a worker's tree uses counts for the worker, also what has left its parent."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from supervisor.process.host import PosixProcessHost
from supervisor.process.procfs import environment
from supervisor.process.tree import Census, Launches, proportional_memory
from tests.process.programs import Bench, number_in, start, until, until_async

_SIZE = 30_000_000


def _leaving_home(told: Path, then: str = "time.sleep(300)") -> str:
    """A program whose grandchild is nobody's child any more, gives up the lock, and has a child itself."""
    return (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() > 0: os._exit(0)\n"
        "    os.closerange(3, 4096)\n"
        f"    block = b'x' * {_SIZE}\n"
        "    if os.fork() > 0:\n"
        f"        with open({str(told)!r}, 'w') as file: print(os.getpid(), file=file)\n"
        f"        {then}\n"
        "    time.sleep(300)\n"
        "os.wait()\n"
        "time.sleep(300)"
    )


def _pids(census: Census, root: int) -> set[int]:
    return {stat.pid for stat in census.tree(root)}


def test_who_has_left_its_parent_is_measured(host: PosixProcessHost, bench: Bench) -> None:
    worker = host.spawn(bench.python(_leaving_home(bench.folder / "lost")))
    other = host.spawn(bench.spec("sleep", "300", id="agent-2"))
    lost = number_in(bench.folder / "lost")
    census = Census()
    members = _pids(census, worker.pid)
    assert {worker.pid, lost} < members
    used = census.usage(worker.pid)
    assert used.processes == len(members) == 3
    assert used.memory_bytes > _SIZE
    assert proportional_memory(members) > _SIZE
    assert _pids(census, other.pid) == {other.pid}


async def test_what_an_earlier_worker_has_left_is_not(host: PosixProcessHost, bench: Bench) -> None:
    first = host.spawn(bench.python(_leaving_home(bench.folder / "lost")))
    number_in(bench.folder / "lost")
    first.signal(signal.SIGKILL)
    await first.wait()
    second = host.spawn(bench.spec("sleep", "300"))
    assert _pids(Census(), second.pid) == {second.pid}


async def test_what_was_learnt_of_a_program_is_not_asked_again(host: PosixProcessHost, bench: Bench) -> None:
    """Seen in one that overwrites its environment, as some do for a title."""
    go = bench.folder / "go"
    os.mkfifo(go)
    overwriting = (
        "import ctypes; open(%r).read(); fields = open('/proc/self/stat').read().rpartition(')')[2].split(); "
        "ctypes.memset(int(fields[47]), 120, int(fields[48]) - int(fields[47]))"
    )
    worker = host.spawn(bench.python(_leaving_home(bench.folder / "lost", then=overwriting % str(go))))
    lost = number_in(bench.folder / "lost")
    launches = Launches()
    assert lost in _pids(Census(launches), worker.pid)
    go.write_text("")
    await until_async(lambda: set(environment(lost) or b"") == {ord("x")})
    assert lost in _pids(Census(launches), worker.pid)
    assert lost not in _pids(Census(), worker.pid)
    os.kill(lost, signal.SIGKILL)  # nobody else knows any more whose it is


async def test_another_program_is_asked_again(host: PosixProcessHost, bench: Bench) -> None:
    go = bench.folder / "go"
    os.mkfifo(go)
    lost = bench.folder / "lost"
    worker = host.spawn(
        bench.shell(
            f"(setsid sh -c 'echo $$ > {lost}; read line < {go}; exec env -i sleep 300' &); exec sleep 300"
        )
    )
    pid = number_in(lost)
    launches = Launches()
    assert pid in _pids(Census(launches), worker.pid)
    go.write_text("\n")
    await until_async(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
    await until_async(lambda: pid not in _pids(Census(launches), worker.pid))
    os.kill(pid, signal.SIGKILL)


def test_who_tells_of_no_launch_is_counted_by_its_parents() -> None:
    with start("sh", "-c", "sleep 300 & wait", env={}) as bare:
        until(lambda: len(Census().tree(bare.pid)) == 2)
        for stat in Census().tree(bare.pid):
            os.kill(stat.pid, signal.SIGKILL)
    assert Census().tree(bare.pid) == ()
