"""A log is cut while a program writes to it, and read while it is cut: no line is lost, none told twice."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from supervisor.process import logfile
from supervisor.process.fallocate import blank_out, cut_off
from supervisor.process.host import PosixProcessHost
from supervisor.process.logs import Follower, follow, last_output, tail
from supervisor.process.rotation import Rotation, bound_removed, rotate, truncate
from tests.process.mounts import python_on, unshare
from tests.process.programs import PATIENCE, Bench, until, until_async

_KIB = 1024


@pytest.fixture(params=["on disk", "in memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """File systems of different abilities, where the machine has both; each test must hold on any."""
    if request.param == "on disk":
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


def _whole(path: Path) -> bytes:
    """The stream, as the files hold it."""
    parts = [piece.path.read_bytes() for piece in logfile.pieces(path)]
    descriptor = logfile.open_to_read(path)
    with open(descriptor, "rb") as file:
        file.seek(logfile.live_start(descriptor))
        return b"".join([*reversed(parts), file.read()])


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
    path.chmod(0o600)


def _numbers(first: int, last: int) -> bytes:
    return b"".join(b"line %d\n" % n for n in range(first, last))


def _live_size(path: Path) -> int:
    descriptor = logfile.open_to_read(path)
    try:
        return path.stat().st_size - logfile.live_start(descriptor)
    finally:
        os.close(descriptor)


def test_a_small_log_is_left_alone(folder: Path) -> None:
    path = folder / "x.log"
    assert rotate(path, 100, 3) == Rotation()
    _append(path, b"x" * 100)
    assert rotate(path, 100, 3) == Rotation()
    assert sorted(p.name for p in folder.iterdir()) == ["x.log"]


def test_pieces_end_with_lines_and_are_bounded(folder: Path) -> None:
    path = folder / "x.log"
    data = b""
    for first in range(0, 20_000, 2_000):
        _append(path, _numbers(first, first + 2_000))
        data += _numbers(first, first + 2_000)
        assert rotate(path, 16 * _KIB, 3).error == ""
        assert _live_size(path) <= 16 * _KIB
    pieces = list(logfile.pieces(path))
    assert [piece.path.name for piece in pieces] == ["x.log.1", "x.log.2", "x.log.3"]
    for piece in pieces:
        assert piece.size <= 16 * _KIB
        assert piece.path.read_bytes().endswith(b"\n")
        assert piece.path.read_bytes().startswith(b"line ")
        assert piece.path.stat().st_mode & 0o777 == 0o600
    assert data.endswith(_whole(path))
    assert sorted(p.name for p in folder.iterdir()) == ["x.log", "x.log.1", "x.log.2", "x.log.3"]


def test_room_is_given_back(folder: Path) -> None:
    path = folder / "x.log"
    _append(path, b"x" * 99 + b"\n")
    for _ in range(40):
        _append(path, (b"y" * 99 + b"\n") * 1000)
        rotate(path, 64 * _KIB, 1)
    used = sum(p.stat().st_blocks * 512 for p in folder.iterdir())
    assert used < 3 * 64 * _KIB


def test_what_is_older_than_all_that_may_be_kept_is_not_copied(folder: Path) -> None:
    path = folder / "x.log"
    data = _numbers(0, 200_000)
    _append(path, data)
    done = rotate(path, 64 * _KIB, 2)
    assert done.pieces == 2
    assert done.skipped_bytes + len(_whole(path)) == len(data)
    assert data.endswith(_whole(path))


def test_a_line_without_an_end_is_cut_anywhere(folder: Path) -> None:
    path = folder / "x.log"
    _append(path, b"x" * 300_000)
    assert rotate(path, 64 * _KIB, 9).error == ""
    assert _whole(path) == b"x" * 300_000


@pytest.mark.parametrize("keep", [0, 1, 5])
def test_every_count_and_the_smallest_sizes(folder: Path, keep: int) -> None:
    path = folder / "x.log"
    for size in (1, 10, 4095, 4096, 4097, 8192):
        for n in range(30):
            _append(path, b"%d " % n * (n * 7) + b"\n")
            rotate(path, size, keep)
        assert _live_size(path) <= size
        assert len(list(logfile.pieces(path))) <= keep


_WRITER = """
import os, sys
text = b"x" * 60
for n in range(int(sys.argv[1])):
    os.write(1, b"%d %s\\n" % (n, text))
"""


def test_a_fast_writer_loses_no_line(folder: Path) -> None:
    """And neither does somebody who follows."""
    path = folder / "x.log"
    path.touch(0o600)
    count = 300_000
    with path.open("ab") as output, Followed(path) as followed:
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(count)], stdout=output)
        rotations = 0
        while writer.poll() is None:
            done = rotate(path, 256 * _KIB, 1000)
            assert done.lossless
            assert not done.error
            rotations += done.pieces
        assert writer.returncode == 0
        assert rotations > 3
        lines = _whole(path).splitlines()
        assert [int(line.split()[0]) for line in lines] == list(range(count))
        until(lambda: len(followed.lines) >= count)
    assert followed.lines == [line.decode() for line in lines]


class Followed:
    """Somebody who follows a log from its beginning, in a thread."""

    def __init__(self, path: Path) -> None:
        self.lines: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, args=(Follower(path),))

    def __enter__(self) -> Followed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE)

    def _follow(self, follower: Follower) -> None:
        while not self._over.wait(0.001):
            self.lines += follower.new()
        follower.close()


async def test_a_supervised_program_knows_nothing_of_it(host: PosixProcessHost, bench: Bench) -> None:
    spec = bench.spec(sys.executable, "-c", _WRITER, "50000")
    handle = host.spawn(spec)
    waiting = handle.wait()
    await until_async(lambda: bench.log.stat().st_size > 100_000)
    while rotate(bench.log, 64 * _KIB, 1000).pieces == 0:
        pass
    assert (await waiting).code == 0
    again = host.spawn(spec)
    assert (await again.wait()).code == 0
    rotate(bench.log, 64 * _KIB, 1000)
    numbers = [int(line.split()[0]) for line in _whole(bench.log).splitlines()]
    assert numbers == [*range(50_000), *range(50_000)]


def test_a_writer_that_does_not_append(folder: Path) -> None:
    """It writes on at its own place: the gap is a hole, and no part of the log."""
    path = folder / "x.log"
    path.touch(0o600)
    with path.open("wb", buffering=0) as output:
        for first in range(0, 10_000, 1_000):
            output.write(_numbers(first, first + 1_000))
            rotate(path, 4 * _KIB, 100)
    assert _whole(path).replace(b"\0", b"") == _numbers(0, 10_000)
    assert tail(path, 100) == _numbers(9_900, 10_000).decode().splitlines()


def test_zeros_that_were_written_are_cut_like_anything_else(folder: Path) -> None:
    path = folder / "x.log"
    _append(path, bytes(3 * 1024 * _KIB))
    assert rotate(path, 64 * _KIB, 2).error == ""
    assert _live_size(path) <= 64 * _KIB
    assert sum(p.stat().st_blocks * 512 for p in folder.iterdir()) < 4 * 64 * _KIB
    assert len(list(logfile.pieces(path))) == 2
    _append(path, b"line\n")
    assert tail(path, 1) == ["line"]


def test_a_look_at_a_log_of_zeros_reads_little_of_it(folder: Path) -> None:
    path = folder / "x.log"
    _append(path, bytes(64 * 1024 * _KIB) + b"line\n")
    before = _bytes_read()
    assert last_output(path, 0, 8 * _KIB) == ["line"]
    assert _bytes_read() - before < 1024 * _KIB


def _bytes_read() -> int:
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["rchar"])


# --- interrupted, meddled with ----------------------------------------------------------------------


def test_killed_before_the_bytes_left_the_log(folder: Path) -> None:
    path = folder / "x.log"
    _append(path, _numbers(0, 1000))
    (folder / "x.log.0").write_bytes(_numbers(0, 500))
    (folder / "x.log.part").write_bytes(b"half a ")
    assert rotate(path, 1 << 30, 3) == Rotation()
    assert sorted(p.name for p in folder.iterdir()) == ["x.log", "x.log.part"]
    rotate(path, 4 * _KIB, 30)
    assert _whole(path) == _numbers(0, 1000)


def test_killed_after_the_bytes_left_the_log(folder: Path) -> None:
    path = folder / "x.log"
    _append(path, _numbers(500, 1000))
    (folder / "x.log.0").write_bytes(_numbers(250, 500))
    (folder / "x.log.1").write_bytes(_numbers(0, 250))
    rotate(path, 1 << 30, 3)
    assert sorted(p.name for p in folder.iterdir()) == ["x.log", "x.log.1", "x.log.2"]
    assert _whole(path) == _numbers(0, 1000)


@pytest.mark.parametrize("name", ["x.log.part", "x.log.0", "x.log.1"])
def test_links_laid_out_are_not_followed(folder: Path, name: str) -> None:
    path, victim = folder / "x.log", folder / "victim"
    victim.write_text("untouched")
    (folder / name).symlink_to(victim)
    _append(path, _numbers(0, 1000))
    rotate(path, 4 * _KIB, 3)
    assert victim.read_text() == "untouched"
    assert victim.stat().st_nlink == 1


def test_a_log_that_is_no_file(folder: Path) -> None:
    (folder / "victim").write_bytes(b"x" * 1000)
    (folder / "x.log").symlink_to(folder / "victim")
    assert "symbolic link" in rotate(folder / "x.log", 1, 1).error or os.lstat(folder / "x.log").st_size <= 1
    assert (folder / "victim").stat().st_size == 1000
    (folder / "x.log").unlink()
    os.mkfifo(folder / "x.log")
    assert rotate(folder / "x.log", -1, 1).error
    with pytest.raises(OSError, match="not a plain file"):
        tail(folder / "x.log", 10)


def test_a_reader_that_sleeps_with_the_lock_stops_nobody(folder: Path) -> None:
    path = folder / "x.log"
    _append(path, _numbers(0, 5000))
    descriptor = logfile.open_to_read(path)
    with logfile.shared(descriptor):
        assert rotate(path, 4 * _KIB, 100).pieces > 0
    os.close(descriptor)
    assert _whole(path) == _numbers(0, 5000)


@pytest.mark.skipif(unshare() is None, reason="may not mount anything here")
def test_a_full_disk_costs_the_eldest(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from supervisor.process.rotation import rotate
folder = Path({str(tmp_path)!r})
path = folder / "x.log"
def append(data):
    with path.open("ab") as file: file.write(data)
    path.chmod(0o600)
for n in range(8):
    append((b"%d" % n) * 99_999 + b"\\n")
    rotate(path, 90_000, 100)
eldest = max(folder.glob("x.log.*")).stat().st_ino
with open(folder / "ballast", "wb", buffering=0) as file:
    try:
        while True: file.write(bytes(4096))
    except OSError: pass
append(b"8")  # in the rest of a page
print(rotate(path, 1, 100))
print(eldest in {{p.stat().st_ino for p in folder.iterdir()}})
"""
    done, kept = python_on(tmp_path, "tmpfs", "size=1m,mode=0700", code).splitlines()
    assert "pieces=0" not in done
    assert "error=''" in done
    assert kept == "False"


@pytest.mark.skipif(unshare() is None, reason="may not mount anything here")
def test_where_nothing_but_truncating_works_that_is_said(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from supervisor.process.logs import Follower, tail
from supervisor.process.rotation import rotate
path = Path({str(tmp_path)!r}) / "x.log"
path.touch(0o600)
follower = Follower(path)
told = []
for n in range(100):
    with path.open("ab") as file: file.write((b"%d " % n) * 300 + b"\\n")
    done = rotate(path, 10000, 200)
    told += follower.new()
    if done.pieces: assert not done.lossless
print(len(told), [int(line.split()[0]) for line in tail(path, 100)] == list(range(100)))
"""
    assert python_on(tmp_path, "ramfs", "mode=0700", code) == "100 True\n"


def test_truncating_keeps_all_that_was_written_before(folder: Path) -> None:
    path = folder / "x.log"
    _append(path, _numbers(0, 1000))
    (folder / "copy").write_bytes(_numbers(0, 10))
    descriptor = os.open(path, os.O_RDWR)
    truncate(descriptor, len(_numbers(0, 10)), folder / "copy")
    os.close(descriptor)
    assert (folder / "copy").read_bytes() == _numbers(0, 1000)
    assert path.stat().st_size == 0


def test_the_ways_to_give_back_room_are_what_they_say(folder: Path) -> None:
    path = folder / "x"
    path.write_bytes(b"a" * 8192 + b"end")
    with path.open("r+b") as file:
        if cut_off(file.fileno(), 8192):
            assert path.read_bytes() == b"end"
        elif blank_out(file.fileno(), 8000):
            assert path.read_bytes() == bytes(8000) + b"a" * 192 + b"end"
    with open(os.devnull, "wb") as file, pytest.raises(OSError, match="No such device"):
        cut_off(file.fileno(), 4096)


# --- reading ----------------------------------------------------------------------------------------


def test_the_last_lines_reach_back_into_pieces(folder: Path) -> None:
    path = folder / "x.log"
    assert tail(path, 5) == []
    _append(path, _numbers(0, 3000))
    rotate(path, 4 * _KIB, 100)
    _append(path, b"unfinished")
    expected = [*_numbers(0, 3000).decode().splitlines(), "unfinished"]
    for lines in (1, 2, 10, 999, 3000, 3001, 5000):
        assert tail(path, lines) == expected[-lines:]
    assert tail(path, 0) == []


def test_following_begins_with_the_last_lines(folder: Path) -> None:
    path = folder / "x.log"
    _append(path, _numbers(0, 3000) + b"li")
    rotate(path, 4 * _KIB, 100)
    lines = follow(path, 500, pause=0.001)
    assert list(islice(lines, 500)) == _numbers(2500, 3000).decode().splitlines()
    _append(path, b"ne 3000\nline 3001\n")
    rotate(path, 10, 100)
    assert list(islice(lines, 2)) == ["line 3000", "line 3001"]
    lines.close()  # type: ignore[attr-defined]


def test_following_waits_for_a_log_and_survives_what_others_do(folder: Path) -> None:
    path = folder / "x.log"
    follower = Follower(path)
    assert follower.last(10) == []
    assert follower.new() == []
    _append(path, b"first\nsec")
    assert follower.new() == ["first"]
    _append(path, b"ond\n")
    assert follower.new() == ["second"]
    path.write_bytes(b"emptied\n")  # truncated, and smaller than our place
    assert follower.new() == ["emptied"]
    path.rename(folder / "moved")
    _append(folder / "moved", b"still here\n")
    assert follower.new() == ["still here"]
    _append(path, b"replaced\n")
    assert follower.new() == ["replaced"]
    path.unlink()
    assert follower.new() == []
    _append(path, b"once more\n")
    assert follower.new() == ["once more"]
    follower.close()


def _all_new(follower: Follower) -> list[str]:
    """Until nothing comes twice in a row: a part of a line that is not finished is nothing yet."""
    told: list[str] = []
    silent = 0
    while silent < 10:
        new = follower.new()
        silent = 0 if new else silent + 1
        told += new
    return told


def test_following_from_behind_many_cuts(folder: Path) -> None:
    path = folder / "x.log"
    follower = Follower(path)
    _append(path, _numbers(0, 10))
    assert len(follower.new()) == 10
    _append(path, _numbers(10, 3000))
    rotate(path, 4 * _KIB, 100)
    _append(path, _numbers(3000, 3005))
    told = _all_new(follower)
    assert told == _numbers(10, 3005).decode().splitlines()
    # Now so many that its place is gone: what is still there is told.
    _append(path, _numbers(3005, 9000))
    rotate(path, 4 * _KIB, 2)
    told = _all_new(follower)
    assert told[-1] == "line 8999"
    assert told == [f"line {n}" for n in range(int(told[0].split()[1]), 9000)]
    follower.close()


def test_an_endless_line_is_told_in_parts(folder: Path) -> None:
    path = folder / "x.log"
    follower = Follower(path)
    _append(path, b"x" * 3_000_000)
    told = _all_new(follower)
    assert sum(map(len, told)) > 1_900_000
    assert set("".join(told)) == {"x"}
    follower.close()


def test_bytes_that_are_no_text(folder: Path) -> None:
    path = folder / "x.log"
    _append(path, b"caf\xc3\xa9 \xff\xfe\r\n\0\0zero\n")
    assert tail(path, 5) == ["café \\xff\\xfe", "zero"]


def test_last_output(folder: Path) -> None:
    path = folder / "x.log"
    assert last_output(path, 0, 100) == []
    _append(path, b"before\n")
    size = path.stat().st_size
    assert last_output(path, size, 100) == []
    _append(path, b"after\nlast")
    assert last_output(path, size, 100) == ["after", "last"]
    assert last_output(path, 0, 4) == ["last"]
    assert last_output(path, 10_000, 100) == ["before", "after", "last"]


def test_a_stub_is_seen_for_what_it_is(folder: Path) -> None:
    path = folder / "x.log"
    for data, start in [
        (b"", 0),
        (b"text\n", 0),
        (b"   text\n", 0),
        (b"   \ntext\n", 4),
        (b"\ntext", 1),
        (b"   ", 0),
        (b"\0\0text", 2),
        (b" \n\0\0text", 4),
    ]:
        path.write_bytes(data)
        descriptor = logfile.open_to_read(path)
        assert logfile.live_start(descriptor) == start, data
        os.close(descriptor)
    assert re.fullmatch(b" *\n", logfile.stub(7))
    assert logfile.stub(1) == b"\n"


# --- a log without a name -------------------------------------------------------------------------


def _writer(path: Path) -> subprocess.Popen[bytes]:
    """A program whose output is ``path``, with 100 lines in it."""
    with path.open("ab") as output:
        path.chmod(0o600)
        output.write(_numbers(0, 100))
        output.flush()
        return subprocess.Popen(["sleep", "300"], stdout=output)


@pytest.mark.parametrize("way", ["removed", "moved away and removed", "removed and there again"])
def test_a_log_that_was_removed_is_told_and_stays_bounded(folder: Path, way: str) -> None:
    path = folder / "x.log"
    program = _writer(path)
    try:
        assert bound_removed(path, program.pid, "a", 100) == ""
        size = path.stat().st_size
        if way == "moved away and removed":
            path.rename(folder / "x.log-20261129").unlink()
        else:
            path.unlink()
        if way == "removed and there again":
            path.touch(0o600)
        told = f"{path} was removed; restart a to have a log again"
        output = Path(f"/proc/{program.pid}/fd/1")
        assert bound_removed(path, program.pid, "a", size) == told
        assert output.stat().st_size == size
        assert bound_removed(path, program.pid, "a", size - 1) == told
        assert output.stat().st_size == 0
    finally:
        program.kill()
        program.wait()
    assert bound_removed(path, program.pid, "a", 0) == ""


def test_what_a_program_writes_to_by_its_own_choice_is_not_touched(folder: Path) -> None:
    program = _writer(folder / "work")
    try:
        (folder / "work").unlink()
        assert bound_removed(folder / "x.log", program.pid, "a", 0) == ""
        assert Path(f"/proc/{program.pid}/fd/1").stat().st_size > 0
    finally:
        program.kill()
        program.wait()


def test_output_that_is_no_file_is_no_log(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "300"], stdout=subprocess.PIPE) as program:
        assert bound_removed(tmp_path / "x.log", program.pid, "a", 0) == ""
        program.kill()
