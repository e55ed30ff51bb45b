"""``diagnose --bundle``: one archive for a bug report.

One rule: every text goes through :class:`supervisor.cli.redaction.Redactor` on its way in, and what cannot be
understood well enough to clean it stays out.
"""

from __future__ import annotations

import io
import json
import os
import platform
import tarfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil

from supervisor import __version__
from supervisor.cli.diagnose_findings import Report, Situation
from supervisor.cli.errors import CliError, ExitCode
from supervisor.cli.known_secrets import redactor, without_secrets
from supervisor.cli.redaction import Redactor
from supervisor.process.logs import last_output
from supervisor.process.variables import STATE

LOG_BYTES = 131_072
LARGEST_CONFIG = 1_048_576
FOLDER = "livekit-supervisor-diagnosis"


def write_bundle(path: Path, report: Report, text: str, situation: Situation) -> list[str]:
    """The names of what is in it.  Never over another file, and readable by nobody else."""
    config = _config_text(situation.file)
    known = redactor(situation.file, config, situation.settings, situation.environ)
    names = []
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, content in _contents(report, text, config, situation):
                _add(archive, name, _clean(content, known))
                names.append(name)
    except OSError as error:
        raise CliError(f"{path}: the bundle cannot be written: {error.strerror}", ExitCode.USAGE) from error
    return names


def _clean(content: object, known: Redactor) -> str:
    if isinstance(content, str):
        return known.clean(content)
    return json.dumps(known.clean_document(content), indent=2) + "\n"


def _add(archive: tarfile.TarFile, name: str, content: str) -> None:
    data = content.encode("utf-8", "backslashreplace")
    info = tarfile.TarInfo(f"{FOLDER}/{name}")
    info.size, info.mode, info.mtime = len(data), 0o600, int(time.time())
    archive.addfile(info, io.BytesIO(data))


def _contents(
    report: Report, text: str, config: str | None, situation: Situation
) -> Iterator[tuple[str, object]]:
    """Texts, and documents that are to be JSON."""
    yield "diagnosis.txt", text
    yield "diagnosis.json", report.document()
    yield "versions.json", _versions()
    yield "config.yaml", _config(config)
    yield "processes.txt", "\n".join(_processes(situation)) + "\n"
    if situation.status is not None:
        yield "status.json", situation.status
    if situation.metrics:
        yield "metrics.txt", "".join(f"{n} {v!r}\n" for n, v in sorted(situation.metrics.items()))
    if situation.installation is not None:
        yield from _pidfiles(situation.installation.state / "agents")
    if situation.settings is not None and situation.settings.log.redact:
        yield "left-out.txt", "log.redact is set: no rooms, conflicts and worker logs.\n"
        return
    for name, document in (("rooms", situation.rooms), ("conflicts", situation.conflicts)):
        if document is not None:
            yield f"{name}.json", document
    if situation.installation is not None:
        for agent in situation.installation.agents:
            lines = last_output(situation.installation.logs / f"{agent.id}.log", 0, LOG_BYTES)
            if lines and "/" not in agent.id:
                yield f"logs/{agent.id}.log", "\n".join(lines) + "\n"


def _config_text(file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            return opened.read(LARGEST_CONFIG).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _config(text: str | None) -> str:
    cleaned = without_secrets(text) if text is not None else None
    if cleaned is None:
        return "# left out: it cannot be read as YAML, so its secrets cannot be told from the rest\n"
    return cleaned


def _versions() -> dict[str, object]:
    packages = {d.metadata["Name"]: d.version for d in metadata.distributions() if d.metadata["Name"]}
    return {
        "livekit-supervisor": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "system": _os_release(),
        "processors": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "packages": dict(sorted(packages.items())),
    }


def _os_release() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _processes(situation: Situation) -> Iterator[str]:
    """Whoever belongs to this state directory, and the daemon."""
    state = str(situation.installation.state) if situation.installation is not None else ""
    daemon = situation.status["daemon"]["pid"] if situation.status is not None else None
    yield "pid ppid started memory command"
    for process in psutil.process_iter():
        try:
            if process.pid != daemon and process.environ().get(STATE) != (state or None):
                continue
            with process.oneshot():
                started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(process.create_time()))
                facts = (process.pid, process.ppid(), started, process.memory_info().rss)
                yield " ".join(map(str, (*facts, *process.cmdline())))
        except psutil.Error:
            continue


def _pidfiles(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.pid")):
        try:
            if not path.is_symlink() and path.stat().st_size < 4096:
                yield f"pidfiles/{path.name}", path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
