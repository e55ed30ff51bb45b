"""Whatever a pidfile says, nobody is signalled, adopted or refused who is not our worker."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.ports import ProcessSpec
from supervisor.process import pidfile
from supervisor.process.host import PosixProcessHost
from supervisor.process.procfs import boot_id, create_time, environment
from tests.process.programs import (
    AGENT,
    SPAWN_AND_DIE,
    Bench,
    identity,
    is_alive,
    run_daemon,
    start,
    until_async,
)


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process of our own user that has nothing to do with us."""
    with start("sleep", "300", own_session=True) as process:
        yield process.pid
        assert process.poll() is None, "a stranger was signalled"
        process.kill()


def _record(who_has_it: int, /, **changes: object) -> dict[str, object]:
    who = identity(who_has_it)
    record = pidfile.Record(
        id=AGENT,
        pid=who.pid,
        start_ticks=who.start_ticks,
        create_time=create_time(who.start_ticks),
        boot_id=boot_id(),
        launch="1.abc.hash-1",
        command_hash="hash-1",
    )
    return {**dataclasses.asdict(record), **changes}


Meddling = Callable[[Path, int], None]


def _write(text: bytes) -> Meddling:
    return lambda path, stranger: _put(path, text)


def _write_record(**changes: object) -> Meddling:
    return lambda path, stranger: _put(path, json.dumps(_record(stranger, **changes)).encode())


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _truncated(path: Path, stranger: int) -> None:
    path.write_text(json.dumps(_record(stranger))[:-20])


def _huge(path: Path, stranger: int) -> None:
    path.write_text(json.dumps(_record(stranger)) + " " * 8192)
    os.truncate(path, 1 << 40)


def _symlinked(path: Path, stranger: int) -> None:
    elsewhere = path.parent / "elsewhere"
    elsewhere.write_text(json.dumps(_record(stranger)))
    path.symlink_to(elsewhere)


def _of_another_user(path: Path, stranger: int) -> None:
    path.write_text(json.dumps(_record(stranger)))
    if os.getuid() == 0:
        os.chown(path, 65534, 65534)
    else:
        path.chmod(0)


def _of_ourselves(path: Path, stranger: int) -> None:
    path.write_text(json.dumps(_record(os.getpid())))


def _of_our_parent(path: Path, stranger: int) -> None:
    path.write_text(json.dumps(_record(os.getppid())))


HOSTILE: dict[str, Meddling] = {
    "empty": _write(b""),
    "truncated": _truncated,
    "a number, as others write them": lambda path, stranger: _put(path, f"{stranger}\n".encode()),
    "binary": _write(bytes(range(256))),
    "huge": _huge,
    "nested": _write(b"[" * 4000),
    "a list": _write(b"[1, 2]"),
    "null": _write(b"null"),
    "not UTF-8": _write(b'{"version": 1, "id": "\xff"}'),
    "all that a stranger's would say": _write_record(),
    "a stranger that got the pid later": _write_record(start_ticks=1),
    "before the last boot": _write_record(boot_id="0"),
    "of another ID": _write_record(id="agent-2"),
    "of another version": _write_record(version=2),
    "pid 1": _write_record(pid=1),
    "pid 0": _write_record(pid=0),
    "a process group": _write_record(pid=-1),
    "a pid beyond all": _write_record(pid=2**80),
    "a pid in quotes": _write_record(pid="77"),
    "a pid that is true": _write_record(pid=True),
    "a pid with a fraction": _write_record(pid=77.5),
    "infinite ticks": _write_record(start_ticks=float("inf")),
    "no launch": _write_record(launch=None),
    "symlinked": _symlinked,
    "a FIFO": lambda path, stranger: os.mkfifo(path),
    "a directory": lambda path, stranger: path.mkdir(),
    "of another user, or unreadable": _of_another_user,
    "of the daemon itself": _of_ourselves,
    "of the daemon's parent": _of_our_parent,
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_hostile_pidfile_is_believed_in_nothing(
    host: PosixProcessHost, bench: Bench, sleeper: ProcessSpec, stranger: int, kind: str
) -> None:
    HOSTILE[kind](bench.pidfile, stranger)
    assert host.adopt(sleeper) is None
    assert await host.clear_leftovers(sleeper) == ()
    handle = host.spawn(sleeper)
    if kind == "a directory":
        assert "pidfile cannot be written" in handle.lacking
    else:
        record = pidfile.read(bench.pidfile, AGENT)
        assert isinstance(record, pidfile.Record)
        assert record.pid == handle.pid
    assert await handle.kill_tree() == ()
    assert is_alive(stranger)


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_hostile_pidfile_hides_no_worker(
    host: PosixProcessHost, bench: Bench, sleeper: ProcessSpec, stranger: int, kind: str
) -> None:
    pid = int(run_daemon(bench, sleeper, SPAWN_AND_DIE, check=-9))
    bench.pidfile.unlink()
    HOSTILE[kind](bench.pidfile, stranger)
    handle = host.adopt(sleeper)
    assert handle is not None
    assert handle.pid == pid
    assert await handle.kill_tree() == ()


async def test_a_pid_that_another_program_has_now(
    host: PosixProcessHost, bench: Bench, sleeper: ProcessSpec, stranger: int
) -> None:
    """The true pidfile of a dead worker, whose pid the kernel has given to a stranger since."""
    handle = host.spawn(sleeper)
    values = json.loads(bench.pidfile.read_text())
    handle.signal(signal.SIGKILL)
    await handle.wait()
    bench.pidfile.write_text(json.dumps({**values, "pid": stranger}))
    assert host.adopt(sleeper) is None
    assert await host.clear_leftovers(sleeper) == ()


def test_a_draft_that_was_left_or_laid_out_does_no_harm(bench: Bench, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    path = tmp_path / "x.pid"
    (tmp_path / "x.pid.tmp").symlink_to(victim)
    record = pidfile.Record("x", 77, 1, 1.0, boot_id(), "", "")
    pidfile.write(path, record)
    assert pidfile.read(path, "x") == record
    assert victim.read_text() == "untouched"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["victim", "x.pid"]


async def test_an_overwritten_environment_hides_no_worker(host: PosixProcessHost, bench: Bench) -> None:
    """As programs do that show a title of their own in ``ps``."""
    spec = bench.python(_OVERWRITE)
    handle = host.spawn(spec)
    await until_async(lambda: bench.log.read_text() == "done\n")
    assert b"LIVEKIT" not in (environment(handle.pid) or b"LIVEKIT")
    adopted = PosixProcessHost(bench.state).adopt(spec)
    assert adopted is not None
    assert adopted.pid == handle.pid
    adopted.close()
    await handle.kill_tree()


_OVERWRITE = """
import ctypes, time
with open("/proc/self/stat") as file:
    fields = file.read().rpartition(")")[2].split()
start, end = int(fields[47]), int(fields[48])
ctypes.memset(start, 0x78, end - start)
print("done", flush=True)
time.sleep(300)
"""

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_FIELDS = ("version", "id", "pid", "start_ticks", "create_time", "boot_id", "launch", "command_hash")


@given(
    content=st.binary(max_size=300)
    | st.fixed_dictionaries({}, optional=dict.fromkeys(_FIELDS, _JSON)).map(lambda v: json.dumps(v).encode())
)
def test_reading_never_raises(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.pid"
    path.write_bytes(content)
    assert isinstance(pidfile.read(path, AGENT), pidfile.Unusable)
