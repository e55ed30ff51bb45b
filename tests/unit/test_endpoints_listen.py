"""Listening sockets: what goes wrong is one clear message, and nobody's socket is taken away."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from supervisor.endpoints.listen import ListenError, UnixListener, close_all, only_loopback, tcp_sockets


@pytest.fixture
def taken() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener.getsockname()[1]


def test_a_taken_port_is_one_clear_message(taken: int) -> None:
    with pytest.raises(ListenError) as caught:
        tcp_sockets("127.0.0.1", taken)
    assert str(caught.value) == f"cannot listen on 127.0.0.1:{taken}: another program listens there already"
    assert caught.value.address == f"127.0.0.1:{taken}"


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("192.0.2.1", "this machine does not have that address"),
        ("no.such.host.invalid", "'no.such.host.invalid' is no address of this machine"),
    ],
)
def test_a_wrong_address_is_one_clear_message(host: str, message: str) -> None:
    with pytest.raises(ListenError, match=message.replace(".", r"\.")):
        tcp_sockets(host, 0)


@pytest.mark.parametrize(
    ("host", "private"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("localhost", True), ("0.0.0.0", False), ("", False)],
)
def test_loopback_is_known(host: str, private: bool) -> None:
    sockets = tcp_sockets(host, 0)
    try:
        assert sockets
        assert only_loopback(sockets) is private
    finally:
        close_all(sockets)


# --- Unix sockets ---------------------------------------------------------------------------------


def listen(path: Path) -> UnixListener:
    return UnixListener(path)


def end(listener: UnixListener) -> None:
    listener.remove()
    listener.socket.close()


def test_the_mode_is_0600_whatever_the_umask(runtime_dir: Path) -> None:
    before = os.umask(0)
    try:
        listener = listen(runtime_dir / "s")
        assert stat.S_IMODE((runtime_dir / "s").stat().st_mode) == 0o600
        assert os.umask(0) == 0, "the umask is as it was"
        end(listener)
    finally:
        os.umask(before)
    assert not (runtime_dir / "s").exists()


def test_a_stale_socket_is_replaced(runtime_dir: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(runtime_dir / "s"))
    stale.close()
    end(listen(runtime_dir / "s"))


def test_a_socket_that_answers_is_left_alone(runtime_dir: Path) -> None:
    first = listen(runtime_dir / "s")
    with pytest.raises(ListenError, match="another program answers there"):
        listen(runtime_dir / "s")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(runtime_dir / "s"))
    end(first)


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_something_else_at_that_place_is_left_alone(runtime_dir: Path, kind: str) -> None:
    place, target = runtime_dir / "s", runtime_dir / "target"
    target.write_text("precious")
    match kind:
        case "file":
            place.write_text("precious")
        case "link":
            place.symlink_to(target)
        case "folder":
            place.mkdir()
    with pytest.raises(ListenError, match="a file of another kind"):
        listen(place)
    assert place.is_symlink() or place.exists()
    assert target.read_text() == "precious"


def test_another_socket_of_that_name_is_not_removed(runtime_dir: Path) -> None:
    first = listen(runtime_dir / "s")
    (runtime_dir / "s").unlink()
    second = listen(runtime_dir / "s")
    end(first)
    assert (runtime_dir / "s").exists()
    end(second)


def test_a_path_that_is_too_long_is_one_clear_message(runtime_dir: Path) -> None:
    with pytest.raises(ListenError, match="107 bytes"):
        listen(runtime_dir / ("x" * 120))


def test_a_folder_that_is_not_there_is_one_clear_message(runtime_dir: Path) -> None:
    with pytest.raises(ListenError, match="No such file or directory"):
        listen(runtime_dir / "missing" / "s")
