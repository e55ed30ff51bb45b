"""Was it the kernel, short of memory?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.core.ports import ExitStatus
from supervisor.process.host import PosixProcessHost
from supervisor.process.oom import OomCount
from tests.livekit.server import LiveKitServer
from tests.livekit.supervised import Supervised
from tests.process.programs import Bench, run_daemon, until

_MIB = 1024 * 1024
_GREEDY = "blocks = [b'x' * 1_000_000 for _ in range(1000)]"


@pytest.fixture
def small_group(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A control group with little memory, inside our own; of as many MiB as the test says, or 64."""
    group = _make_group(getattr(request, "param", 64) * _MIB)
    if group is None:
        pytest.skip("may not make a control group with a memory limit here")
    yield group
    until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def _make_group(limit_bytes: int) -> Path | None:
    ours, limit = _our_group()
    group = ours / f"livekit-supervisor-test-{os.getpid()}"
    with contextlib.suppress(OSError):
        group.mkdir()
        if (group / limit).exists():
            (group / limit).write_text(str(limit_bytes))
            return group
        group.rmdir()
    return None


def _our_group() -> tuple[Path, str]:
    """With the name of the file that limits memory: of control groups of version 1, or 2."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, group = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory") / group.lstrip("/"), "memory.limit_in_bytes"
        if number == "0" and Path("/sys/fs/cgroup/cgroup.controllers").exists():
            return Path("/sys/fs/cgroup") / group.lstrip("/"), "memory.max"
    return Path("/no/control/groups"), ""


def test_a_worker_that_took_too_much(bench: Bench, small_group: Path) -> None:
    """The daemon lives in the same group, as a service does with its workers, and survives."""
    before = OomCount.for_process(os.getpid())
    greedy = bench.python(_GREEDY)
    code = f"""
Path({str(small_group / "cgroup.procs")!r}).write_text(str(os.getpid()))
import asyncio
async def main():
    status = await host.spawn(spec).wait()
    print(status.signal, host.out_of_memory(spec))
asyncio.run(main())
"""
    assert run_daemon(bench, greedy, code) == "9 True\n"
    # One that lives in another group was not the victim.
    assert before.killed_since() is not True


@pytest.mark.parametrize("small_group", [300], indirect=True)
async def test_a_whole_daemon_says_that_it_was_memory(
    small_group: Path, tmp_path: Path, runtime_dir: Path
) -> None:
    """In the metric, in the status, and to whoever asks why; and the daemon, which is there too, goes on."""
    absent = LiveKitServer(tmp_path / "livekit")
    once = {"initial": "1h", "max": "1h"}
    greedy = {"id": "greedy", "name": "G", "command": [sys.executable, "-c", _GREEDY], "restart": once}
    daemon = Supervised(tmp_path / "daemon", runtime_dir, absent, agents=[greedy])
    join = f'echo $$ > "{small_group}/cgroup.procs" && exec "$@"'
    await daemon.start(wait=False, inside=("sh", "-c", join, "sh"))
    try:
        status = await daemon.until(lambda s: s["agents"][0]["state"] == "backoff", 60)
        assert status["agents"][0]["reason"] == "oom"
        await asyncio.to_thread(daemon.client.command, "start", {"agent": "greedy"})
        await daemon.until(lambda s: s["agents"][0]["restarts"] == 1, 60)
        assert await daemon.metric("agent_restarts_total", {"agent_id": "greedy", "reason": "oom"}) == 1
        assert await daemon.metric("agent_restarts_total") == 1
    finally:
        await daemon.close()


async def test_a_worker_that_was_killed_by_somebody(host: PosixProcessHost, bench: Bench) -> None:
    spec = bench.spec(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    assert await host.spawn(spec).wait() == ExitStatus(signal=9)
    assert not host.out_of_memory(spec)


def test_what_nobody_counts_is_not_known() -> None:
    assert OomCount(None, None, None).killed_since() is None
    assert OomCount(None, None, -1).killed_since() is None
    assert not OomCount(None, 0, OomCount.for_process(os.getpid()).on_machine).killed_since()


def test_no_process_no_group() -> None:
    assert OomCount.for_process(0).group_file is None
