"""A real LiveKit server for development and tests: found, else built from the pinned module; loopback only.

One rule: nothing here reaches beyond this machine at run time, and no secret appears on a command line.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import yaml

from supervisor.config import defaults
from supervisor.core.ports import ProcessSpec
from supervisor.livekit.dev_build import BuildError, build

VERSION = "v1.13.5"
"""As in ``dev/livekit-server/go.mod``."""

PROCESS_ID = "livekit-server"
"""Names its lock, pidfile and log; no agent may be called so."""

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

_INSTALL = (
    "install Go 1.26 or later (https://go.dev/dl), so that it can be built from its pinned source, "
    f"or install livekit-server {VERSION} and put it on PATH or name it in LIVEKIT_SERVER"
)

_NO_STUN_SERVER = "127.0.0.1:9"
"""The discard port: refused at once, so that nobody waits for an answer."""

_INHERITED = ("HOME", "LANG", "PATH", "TMPDIR", "TZ")
"""All it gets of our environment: livekit-server takes settings from variables such as ``LIVEKIT_CONFIG``."""


class DevServerError(Exception):
    """There can be no development server; the message says why and what to do, for the operator."""


# --- the program --------------------------------------------------------------------------------------


def find_server(environ: Mapping[str, str], progress: Callable[[str], None]) -> Path:
    """The livekit-server program: ``LIVEKIT_SERVER``, ``PATH``, the project's cache, else built into it.

    Takes minutes when it has to be built, and tells ``progress`` about it, a line at a time.
    """
    named = environ.get("LIVEKIT_SERVER")
    if named:
        path = Path(named).expanduser().absolute()
        if not _is_program(path):
            raise DevServerError(f"LIVEKIT_SERVER names {named}, which is no executable file")
        return path
    found = shutil.which("livekit-server", path=environ.get("PATH", ""))
    if found:
        return Path(found).absolute()
    cached = cache_dir(environ) / f"livekit-server-{VERSION}"
    if not _is_program(cached):
        _build_into(cached, environ, progress)
    return cached


def cache_dir(environ: Mapping[str, str]) -> Path:
    """Raises DevServerError for a user without a home."""
    if base := environ.get("XDG_CACHE_HOME"):
        return Path(base) / "livekit-supervisor"
    try:
        home = defaults.home(environ)
    except ValueError:
        raise DevServerError("this user has no home directory: set HOME, or XDG_CACHE_HOME") from None
    return home / ".cache" / "livekit-supervisor"


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _build_into(target: Path, environ: Mapping[str, str], progress: Callable[[str], None]) -> None:
    # Go's own installer puts it where many a PATH does not look.
    go = shutil.which("go", path=f"{environ.get('PATH', '')}:/usr/local/go/bin")
    if go is None:
        raise DevServerError(f"livekit-server was not found, and neither was Go to build it: {_INSTALL}")
    try:
        build(Path(go), _pinned_module(), target, environ, progress, lambda: _is_program(target))
    except BuildError as error:
        message = f"livekit-server could not be built: {error}\nEither mend that, or {_INSTALL}"
        raise DevServerError(message) from None


def _pinned_module() -> Path:
    """The folder with go.mod and go.sum: in a checkout, or as data of the installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "dev" / "livekit-server", package / "_dev" / "livekit-server"):
        if (folder / "go.mod").is_file():
            return folder
    raise DevServerError(f"the pinned module of livekit-server is missing from this installation: {_INSTALL}")


# --- its configuration --------------------------------------------------------------------------------


def server_port(url: str) -> int:
    """The port of a LiveKit URL that the development server can serve: on loopback, without TLS."""
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "http") or parts.hostname not in LOOPBACK:
        raise DevServerError(
            f"livekit.url is {url}: development mode brings its own server, which serves "
            "ws://127.0.0.1:PORT only; to use another server, run without --dev"
        )
    return parts.port or 80


def render_config(
    *,
    port: int,
    keys: Mapping[str, str],
    rtc_port: int,
    webhook_urls: Sequence[str] = (),
    webhook_key: str = "",
    log_level: str = "info",
    departure_timeout: int = 20,
) -> str:
    """livekit-server's YAML, ``rtc_port`` for media over UDP.  It holds secrets: :func:`write_config`."""
    config: dict[str, object] = {
        "port": port,
        "bind_addresses": ["127.0.0.1"],
        "rtc": {
            "udp_port": rtc_port,
            # Media over TCP would be listened for on every address of this machine.
            "tcp_port": 0,
            "node_ip": "127.0.0.1",
            "ips": {"includes": ["127.0.0.1/32"]},
            "enable_loopback_candidate": True,
            "use_external_ip": False,
            # Without a list, clients would be told to ask public servers for their address.
            "stun_servers": [_NO_STUN_SERVER],
        },
        "keys": dict(keys),
        "room": {"departure_timeout": departure_timeout},
        # ListParticipants from live memory, not from a store that lags.
        "api": {"enable_psrpc_for_get_list_participants": True},
        # A busy two-core machine is no reason to send a worker nothing.
        "agents": {"target_load": 10.0},
        "logging": {"level": log_level, "pion_level": "error", "json": False},
    }
    if webhook_urls:
        config["webhook"] = {"urls": list(webhook_urls), "api_key": webhook_key}
    return yaml.safe_dump(config, sort_keys=False)


def write_config(path: Path, text: str) -> None:
    """Replace ``path``, readable by us only: an observer sees the old file or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


# --- its process --------------------------------------------------------------------------------------


def process_spec(
    *, program: Path, config: Path, config_text: str, state: Path, log: Path, environ: Mapping[str, str]
) -> ProcessSpec:
    """How the server is started, supervised like a worker; the file ``config`` holds ``config_text``."""
    marks = (("LIVEKIT_SUPERVISOR_AGENT_ID", PROCESS_ID), ("LIVEKIT_SUPERVISOR_STATE", str(state)))
    argv = (str(program), "--config", str(config))
    inherited = tuple((name, environ[name]) for name in _INHERITED if name in environ)
    return ProcessSpec(
        id=PROCESS_ID,
        argv=argv,
        cwd=str(state),
        env=inherited + marks,
        log_path=str(log),
        marks=marks,
        command_hash=hashlib.sha256("\0".join((*argv, config_text)).encode()).hexdigest()[:16],
    )


def require_free(port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
    """Raise when a stranger has the port.  To be asked only when no server of ours was adopted."""
    if _can_bind(port, kind):
        return
    protocol = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
    raise DevServerError(
        f"{protocol} port {port} on 127.0.0.1, which the development LiveKit server needs, is in use by "
        f"{_owner(port, kind)}: end that, or choose another port with LIVEKIT_URL=ws://127.0.0.1:PORT"
    )


def _can_bind(port: int, kind: socket.SocketKind) -> bool:
    with contextlib.closing(socket.socket(socket.AF_INET, kind)) as probe:
        if kind == socket.SOCK_STREAM:
            # Connections of an earlier server that linger in TIME_WAIT are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _owner(port: int, kind: socket.SocketKind) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("udp4" if kind == socket.SOCK_DGRAM else "tcp"):
            listens = kind == socket.SOCK_DGRAM or connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr and connection.laddr.port == port and connection.pid:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "another program"


def main() -> int:
    """``python -m supervisor.livekit.dev_server``: make sure that the program is there."""
    try:
        find_server(os.environ, lambda line: print(line, file=sys.stderr, flush=True))
    except DevServerError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
