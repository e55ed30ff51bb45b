"""Finding, building, configuring the development server; Go is played by scripts."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path

import pytest
import yaml

from supervisor.core.ports import ProcessSpec
from supervisor.livekit import dev_build, dev_server
from supervisor.livekit.dev_server import VERSION, DevServerError, find_server
from tests.ports import free_port

ROOT = Path(__file__).parents[2]


def _program(path: Path, text: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def _go(folder: Path, text: str) -> dict[str, str]:
    """An environment whose Go is a script; ``$out`` is what it is told to build."""
    _program(folder / "bin" / "go", f'while [ "$1" != -o ]; do shift; done; out=$2\n{text}')
    return {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(folder)}


BUILDS = 'echo "go: downloading x" >&2; echo pkg >&2; echo "#!/bin/sh" > "$out"; chmod +x "$out"'


def _nowhere(line: str) -> None:
    raise AssertionError(f"nothing to tell: {line}")


def test_the_order_of_the_places(tmp_path: Path) -> None:
    cached = _program(tmp_path / "cache" / "livekit-supervisor" / f"livekit-server-{VERSION}")
    environ = {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert find_server(environ, _nowhere) == cached

    on_path = _program(tmp_path / "bin" / "livekit-server")
    assert find_server(environ, _nowhere) == on_path

    named = _program(tmp_path / "named")
    assert find_server({**environ, "LIVEKIT_SERVER": str(named)}, _nowhere) == named


def test_a_named_program_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x")
    for name in ("text", "missing"):
        with pytest.raises(DevServerError, match=r"LIVEKIT_SERVER names .* no executable file"):
            find_server({"LIVEKIT_SERVER": str(tmp_path / name)}, _nowhere)


def test_builds_into_the_cache_once(tmp_path: Path) -> None:
    environ = _go(tmp_path, BUILDS)
    told: list[str] = []
    path = find_server(environ, told.append)
    assert path == tmp_path / ".cache" / "livekit-supervisor" / f"livekit-server-{VERSION}"
    assert "building" in told[0]
    assert "built in" in told[-1]
    assert find_server(environ, _nowhere) == path
    assert [p.name for p in path.parent.iterdir() if "draft" in p.name] == []


def test_a_build_that_fails_says_what_go_said_and_what_to_do(tmp_path: Path) -> None:
    environ = _go(tmp_path, 'echo half > "$out"; echo "go: go.mod requires go >= 1.26" >&2; exit 1')
    with pytest.raises(DevServerError, match=r"requires go >= 1\.26(.|\n)*install Go 1\.26 or later"):
        find_server(environ, lambda line: None)
    folder = tmp_path / ".cache" / "livekit-supervisor"
    assert [p.name for p in folder.iterdir()] == [f".livekit-server-{VERSION}.lock"]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    environ = _go(tmp_path, BUILDS)
    (tmp_path / ".cache").write_text("a file")
    with pytest.raises(DevServerError, match="could not be built"):
        find_server(environ, lambda line: None)


def test_without_go_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(DevServerError, match=r"neither was Go .*LIVEKIT_SERVER"):
        find_server({"PATH": "", "HOME": str(tmp_path)}, _nowhere)


def test_without_a_home_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(DevServerError, match="set HOME"):
        find_server({"PATH": ""}, _nowhere)


def test_two_builders_build_once(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    wait = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    environ = _go(tmp_path, f"echo x >> {tmp_path}/builds; {wait}; {BUILDS}")
    waiting = threading.Event()
    found: list[Path] = []

    def tell(line: str) -> None:
        if "waiting for it" in line:
            waiting.set()

    threads = [threading.Thread(target=lambda: found.append(find_server(environ, tell))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert waiting.wait(10)
    gate.touch()
    for thread in threads:
        thread.join(10)
    assert len(found) == 2
    assert found[0] == found[1]
    assert (tmp_path / "builds").read_text() == "x\n"


def test_the_version_is_the_pinned_one() -> None:
    module = (ROOT / "dev" / "livekit-server" / "go.mod").read_text()
    assert re.search(rf"github\.com/livekit/livekit-server {re.escape(VERSION)}\b", module, re.MULTILINE)
    assert dev_build.PACKAGE in module
    assert (ROOT / "dev" / "livekit-server" / "go.sum").stat().st_size > 0


def test_config_is_for_loopback_and_names_the_webhook() -> None:
    config = yaml.safe_load(
        dev_server.render_config(
            port=7880,
            keys={"devkey": "s" * 32},
            rtc_port=7882,
            webhook_urls=["http://127.0.0.1:9105/livekit/webhook"],
            webhook_key="devkey",
        )
    )
    assert config["port"] == 7880
    assert config["bind_addresses"] == ["127.0.0.1"]
    assert config["rtc"]["udp_port"] == 7882
    assert config["rtc"]["node_ip"] == "127.0.0.1"
    assert config["rtc"]["use_external_ip"] is False
    assert config["rtc"]["enable_loopback_candidate"] is True
    assert all(server.startswith("127.0.0.1:") for server in config["rtc"]["stun_servers"])
    assert config["api"]["enable_psrpc_for_get_list_participants"] is True
    assert config["keys"] == {"devkey": "s" * 32}
    assert config["webhook"] == {"urls": ["http://127.0.0.1:9105/livekit/webhook"], "api_key": "devkey"}


def test_config_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "livekit-server.yaml"
    path.write_text("old")
    path.chmod(0o644)
    dev_server.write_config(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_process_gets_no_secret_and_no_setting_from_our_environment(tmp_path: Path) -> None:
    environ = {"PATH": "/bin", "LIVEKIT_KEYS": "a: b", "LIVEKIT_CONFIG": "x", "LIVEKIT_API_SECRET": "hidden"}
    config = tmp_path / "c.yaml"

    def spec(text: str) -> ProcessSpec:
        return dev_server.process_spec(
            program=Path("/bin/server"),
            config=config,
            config_text=text,
            state=tmp_path,
            log=tmp_path / "log",
            environ=environ,
        )

    made = spec("keys: hidden")
    assert made.id == "livekit-server"
    assert made.argv == ("/bin/server", "--config", str(config))
    assert dict(made.env) == {"PATH": "/bin", **dict(made.marks)}
    assert "hidden" not in repr(made)
    assert made.command_hash == spec("keys: hidden").command_hash != spec("keys: other").command_hash


@pytest.mark.parametrize(
    ("url", "port"), [("ws://127.0.0.1:7880", 7880), ("http://localhost:1234/", 1234), ("ws://[::1]:99", 99)]
)
def test_port_of_a_url_on_this_machine(url: str, port: int) -> None:
    assert dev_server.server_port(url) == port


@pytest.mark.parametrize("url", ["wss://my.livekit.cloud", "ws://192.0.2.1:7880", "wss://127.0.0.1:7880"])
def test_no_server_for_any_other_url(url: str) -> None:
    with pytest.raises(DevServerError, match=r"livekit\.url"):
        dev_server.server_port(url)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_in_use_is_one_clear_message(kind: socket.SocketKind) -> None:
    port = free_port()
    dev_server.require_free(port, kind)
    with socket.socket(socket.AF_INET, kind) as stranger:
        stranger.bind(("127.0.0.1", port))
        if kind == socket.SOCK_STREAM:
            stranger.listen()
        with pytest.raises(DevServerError, match=rf"port {port} .* in use by process \d+ \("):
            dev_server.require_free(port, kind)
    dev_server.require_free(port, kind)
