"""Everything a diagnosis starts from, gathered once.

One rule: whatever is missing here is a finding, never the end of the diagnosis.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from supervisor.cli.check import check_settings
from supervisor.cli.client import Client
from supervisor.cli.diagnose_findings import Area, Finding, Notes, Situation
from supervisor.cli.documents import Status
from supervisor.cli.errors import CliError
from supervisor.cli.locate import Installation, locate
from supervisor.cli.text import count, plain
from supervisor.config import ConfigError, Settings, load

T = TypeVar("T")

HTTP_SECONDS = 3.0
RECENT_SECONDS = 3600.0

_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Our own addresses are on this machine: no proxy of the environment knows them."""

_CHECK = "livekit-supervisor check"

_SERIES = re.compile(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)


def gather(file: Path, environ: Mapping[str, str]) -> tuple[Situation, list[Finding]]:
    notes = Notes(Area.CONFIGURATION)
    installation = _locate(file, environ, notes)
    client = Client(installation.control_socket, file) if installation is not None else None
    status, absence = _status(client)
    running = status is not None
    settings = _load(file, environ, notes, running=running)
    situation = Situation(
        file=file,
        environ=environ,
        settings=settings,
        installation=installation,
        status=status,
        absence=absence,
        rooms=_ask(client, Client.rooms) if running else None,
        conflicts=_ask(client, lambda c: c.conflicts(time.time() - RECENT_SECONDS)) if running else None,
        metrics=metrics(settings) if running and settings is not None else {},
    )
    return situation, notes.findings


def _status(client: Client | None) -> tuple[Status | None, CliError | None]:
    if client is None:
        return None, None
    try:
        return client.status(), None
    except CliError as error:
        return None, error


def _ask(client: Client | None, question: Callable[[Client], T]) -> T | None:
    """What is wrong with the answer is told by the part that looks at the daemon."""
    if client is None:
        return None
    try:
        return question(client)
    except CliError:
        return None


def _locate(file: Path, environ: Mapping[str, str], notes: Notes) -> Installation | None:
    try:
        return locate(file, environ)
    except CliError as error:
        notes.error("the configuration cannot be read", *error.message.splitlines(), fix=_CHECK)
        return None


def _load(file: Path, environ: Mapping[str, str], notes: Notes, *, running: bool) -> Settings | None:
    try:
        settings = load(file, environ)
    except ConfigError as error:
        if not notes.findings:
            tell = notes.warning if running else notes.error
            also = "; the running daemon has read it earlier, or with other variables" if running else ""
            problems = count(len(error.problems), "problem")
            tell(f"{problems} in the configuration{also}", *map(str, error.problems), fix=_CHECK)
        return None
    _tell_checks(file, settings, notes)
    _tell_modes(file, settings, notes)
    return settings


def _tell_checks(file: Path, settings: Settings, notes: Notes) -> None:
    found = check_settings(file, settings)
    for finding in found:
        tell = notes.error if finding.severity == "error" else notes.warning
        tell(plain(f"{finding.key}: {finding.message}"), fix=_CHECK)
    if not found:
        notes.ok(f"{file} is valid, and every agent's Python has livekit-agents")


def _tell_modes(file: Path, settings: Settings, notes: Notes) -> None:
    """Files with secrets in them that others may read."""
    holds_secrets = [(file, "the configuration")] if _secret_in(file, settings) else []
    if settings.livekit.api_secret_file is not None:
        holds_secrets.append((settings.livekit.api_secret_file, "the file of LiveKit's secret"))
    holds_secrets += [
        (agent.env_file.path, f"the env_file of {agent.id}")
        for agent in settings.agents
        if agent.env_file is not None
    ]
    for path, what in dict(holds_secrets).items():
        mode = _mode(path)
        if mode is not None and mode & stat.S_IRWXO:
            notes.warning(
                f"{what} holds secrets, and every user of this machine can read it",
                f"{path} has mode {stat.S_IMODE(mode):04o}",
                fix=f"chmod o= {path}",
            )


def _secret_in(file: Path, settings: Settings) -> bool:
    """Whether a secret stands in the file itself; that of a LiveKit on loopback is of no use elsewhere."""
    if is_loopback(urlsplit(settings.livekit.url).hostname or ""):
        return False
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return settings.livekit.api_secret.get_secret_value() in file.read_text(encoding="utf-8")
    return False


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except OSError:
        return None


# --- the daemon's metrics -------------------------------------------------------------------------------


def metrics(settings: Settings) -> dict[str, float]:
    try:
        with _DIRECTLY.open(f"{http_url(settings)}/metrics", timeout=HTTP_SECONDS) as answer:
            text = answer.read().decode()
    except (OSError, ValueError):
        return {}
    return {name: float(value) for name, value in _SERIES.findall(text)}


def http_url(settings: Settings) -> str:
    """How this machine reaches ``http.listen``: an address that stands for all is no destination."""
    listen = settings.http.listen
    hosts = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
    host = hosts.get(listen.host, f"[{listen.host}]" if ":" in listen.host else listen.host)
    return f"http://{host}:{listen.port}"


def healthy(settings: Settings) -> str | None:
    """None when ``/healthz`` answers; else why not."""
    try:
        with _DIRECTLY.open(f"{http_url(settings)}/healthz", timeout=HTTP_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP {error.code}"
    except OSError as error:
        return plain(getattr(error, "reason", error))
