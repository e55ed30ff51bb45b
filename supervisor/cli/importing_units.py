"""systemd units, supervisord's programs and PM2's applications: what they start, where, with what."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from supervisor.cli.importing_commands import substitute, worker_of
from supervisor.cli.importing_env import read_variables
from supervisor.cli.importing_pieces import Pieces, Worker
from supervisor.cli.importing_shell import read_script, read_text

_SPAN = re.compile(r"([0-9.]+)\s*(ms|s|sec|seconds?|m|min|minutes?|h|hours?)?")
_SPANS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SPECIFIER = re.compile(r"%([%h])")
_MEMORY = re.compile(r"([0-9]+)\s*([KMGT]?)")


def workers_of(
    words: list[str], cwd: Path, source: Path, title: str, env: Mapping[str, str], pieces: Pieces
) -> list[Worker]:
    """Of a command as a service runs it: directly, by a shell, or by a script."""
    words = [substitute(word, env) for word in words]
    if not words:
        return []
    name = Path(words[0]).name
    if name in ("sh", "bash", "dash", "zsh") and len(words) > 1:
        at = next((n for n, w in enumerate(words[1:], 1) if w.startswith("-") and w.endswith("c")), None)
        if at is not None and len(words) > at + 1:
            return read_text(words[at + 1], source, cwd, pieces, title)
        words = [w for w in words[1:] if not w.startswith("-")]
    if words and (words[0].endswith(".sh") or _is_shell_script(cwd / words[0])):
        return read_script(cwd / words[0], pieces, title)
    worker = worker_of(words, cwd, str(source), title)
    return [worker] if worker is not None else []


def _is_shell_script(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return re.match(rb"#!.*\b(ba|da|z)?sh\b", file.read(64)) is not None
    except OSError:
        return False


# --- systemd --------------------------------------------------------------------------------------------


def read_systemd(path: Path, text: str, pieces: Pieces) -> list[Worker]:
    lines = list(_service_lines(text))
    home = _home(path, text, pieces)
    if home is None and any("h" in _SPECIFIER.findall(value) for _, value in lines):
        pieces.remarks.append(f"{path}: whose home %h is, is not known: write down yourself what it starts")
        return []
    service = [(key, _SPECIFIER.sub(lambda m: "%" if m[1] == "%" else str(home), v)) for key, v in lines]
    env: dict[str, str] = {}
    env_files: list[Path] = []
    cwd = path.parent
    for key, value in service:
        if key == "Environment":
            env.update(pair.partition("=")[::2] for pair in _split(value))
        elif key == "EnvironmentFile":
            env_files.append(Path(value.removeprefix("-")))
        elif key == "WorkingDirectory":
            cwd = _working_directory(value.removeprefix("-"), service, path, pieces)
    variables = dict(env)
    for file in env_files:
        found = read_variables(file, pieces)
        pieces.add_variables(found, file)
        variables.update(found)
    workers: list[Worker] = []
    for key, value in service:
        if key == "ExecStart":
            words = _split(value.lstrip("@-:+!"))
            workers += workers_of(words, cwd, path, path.name.removesuffix(".service"), variables, pieces)
    for worker in workers:
        worker.env = {**env, **worker.env}
        worker.env_files = [*env_files, *worker.env_files]
        _tell_settings(worker, service)
    if not workers and not pieces.seems_monitor(text, str(path)):
        pieces.remarks.append(f"{path}: starts no LiveKit worker")
    return workers


def _home(path: Path, text: str, pieces: Pieces) -> Path | None:
    """What ``%h`` stands for: the home of whoever runs the unit's systemd, whatever ``User=`` says."""
    folder = path.parent
    if folder.name == "user" and folder.parent.name == "systemd":
        for inside in (".config", ".local/share"):
            if folder.parent.match(f"{inside}/systemd"):
                return folder.parents[1 + len(Path(inside).parts)]
    is_machines = re.search(r"^(User=|WantedBy=multi-user\.target)", text, re.MULTILINE) is not None
    if is_machines or path.is_relative_to("/etc/systemd/system"):
        return Path("/root")
    return pieces.home


def _working_directory(value: str, service: list[tuple[str, str]], path: Path, pieces: Pieces) -> Path:
    """``~`` is the home of the user that it runs as."""
    if not value.startswith("~"):
        return Path(value)
    user = dict(service).get("User", "")
    try:
        return Path(f"~{user}{value[1:]}").expanduser()
    except RuntimeError:
        pieces.remarks.append(f"{path}: WorkingDirectory={value}: whose home that is, is not known")
        return path.parent


def _service_lines(text: str) -> Iterator[tuple[str, str]]:
    section = ""
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            yield key.strip(), value.strip()


def _tell_settings(worker: Worker, service: list[tuple[str, str]]) -> None:
    for key, value in service:
        if key == "TimeoutStopSec" and (seconds := _seconds(value)) is not None:
            worker.drain = seconds
        elif key in ("MemoryMax", "MemoryLimit") and (match := _MEMORY.fullmatch(value)) is not None:
            worker.memory_limit = int(match[1]) * 1024 ** " KMGT".index(match[2] or " ")
        elif key == "User":
            worker.remarks.append(f"ran as user {value}: the supervisor and all its agents run as one user")
        elif key.startswith(("ExecStartPre", "ExecStopPost", "ExecStartPost")):
            worker.remarks.append(f"not taken over: {key}={value}")


def _seconds(text: str) -> float | None:
    match = _SPAN.fullmatch(text)
    return float(match[1]) * _SPANS["ms" if match[2] == "ms" else (match[2] or "s")[0]] if match else None


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


# --- supervisord ----------------------------------------------------------------------------------------


def read_supervisord(path: Path, text: str, pieces: Pieces) -> list[Worker]:
    parser = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";",))
    try:
        parser.read_string(text)
    except configparser.Error as error:
        pieces.remarks.append(f"{path}: cannot be read: {str(error).splitlines()[0]}")
        return []
    workers: list[Worker] = []
    for section in parser.sections():
        if section.startswith("program:"):
            workers += _program(path, section.removeprefix("program:"), dict(parser.items(section)), pieces)
    return workers


def _program(path: Path, name: str, options: dict[str, str], pieces: Pieces) -> list[Worker]:
    options = {key: _filled(value, path, name) for key, value in options.items()}
    cwd = Path(options["directory"]) if "directory" in options else path.parent
    env = dict(re.findall(r"""([A-Za-z_]\w*)=["']?([^,"']*)["']?""", options.get("environment", "")))
    workers = workers_of(_split(options.get("command", "")), cwd, path, name, env, pieces)
    for worker in workers:
        worker.env = {**env, **worker.env}
        seconds = options.get("stopwaitsecs", "")
        worker.drain = float(seconds) if seconds.isdecimal() else None
        worker.fills_in = True
        if options.get("user"):
            worker.remarks.append(f"ran as user {options['user']}")
        if options.get("numprocs", "1") != "1":
            worker.remarks.append(
                f"ran {options['numprocs']} times: an agent ID has one process; see max_rooms"
            )
    if not workers and not pieces.seems_monitor(f"{name} {options.get('command')}", f"{path}: {name}"):
        pieces.remarks.append(f"{path}: program {name} is no LiveKit worker")
    return workers


def _filled(value: str, path: Path, name: str) -> str:
    value = value.replace("%(here)s", str(path.parent)).replace("%(program_name)s", name)
    return re.sub(r"%\(ENV_(\w+)\)s", r"${\1}", value).replace("%%", "%")


# --- PM2 ------------------------------------------------------------------------------------------------


def read_pm2(path: Path, text: str, pieces: Pieces) -> list[Worker]:
    try:
        loaded: Any = yaml.safe_load(_as_yaml(path, text))
    except yaml.YAMLError:
        pieces.remarks.append(f"{path}: has more than plain values in it; write down yourself what it starts")
        return []
    apps = loaded.get("apps", []) if isinstance(loaded, dict) else loaded
    workers: list[Worker] = []
    for app in apps if isinstance(apps, list) else [apps]:
        if isinstance(app, dict):
            workers += _app(path, app, pieces)
    return workers


def _is_script(path: Path) -> bool:
    """Whether ``process.env`` can stand in it."""
    return path.suffix in (".js", ".cjs", ".mjs")


def _as_yaml(path: Path, text: str) -> str:
    """An object literal of JavaScript is nearly one of YAML; nothing in it is run."""
    if not _is_script(path):
        return text
    strings = r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"|`[^`$]*`"
    text = re.sub(rf"({strings})|//[^\n]*|/\*.*?\*/", lambda m: m[1] or "", text, flags=re.DOTALL)
    text = re.sub(r"^.*?(?:module\.exports\s*=|export\s+default)\s*", "", text, count=1, flags=re.DOTALL)
    text = text.strip().removesuffix(";")
    text = re.sub(
        r"path\.(?:join|resolve)\(\s*__dirname\s*,\s*['\"]([^'\"]*)['\"]\s*\)", r"__dirname/\1", text
    )
    text = text.replace("__dirname", str(path.parent))
    text = re.sub(r"process\.env\.(\w+)", r"'${\1}'", text)
    text = re.sub(r"`([^`]*)`", r"'\1'", text)
    return re.sub(rf"({strings})|(\w):(?=\S)", lambda m: m[1] or f"{m[2]}: ", text)


def _app(path: Path, app: Mapping[str, Any], pieces: Pieces) -> list[Worker]:
    name = str(app.get("name") or app.get("script") or path.stem)
    cwd = path.parent / str(app.get("cwd") or ".")
    env = {str(k): str(v) for key in ("env", "env_production") for k, v in dict(app.get(key) or {}).items()}
    args = app.get("args") or []
    words = [str(app.get("script") or ""), *(map(str, args) if isinstance(args, list) else _split(str(args)))]
    interpreter = app.get("interpreter") or app.get("exec_interpreter")
    if interpreter and str(interpreter) != "none":
        words = [str(interpreter), *words]
    elif words[0].endswith((".js", ".ts", ".mjs", ".cjs")):
        words = ["node", *words]
    workers = workers_of(words, cwd, path, name, env, pieces)
    for worker in workers:
        worker.env = {**env, **worker.env}
        worker.fills_in = _is_script(path)
        if app.get("env_file"):
            worker.env_files.append(cwd / str(app["env_file"]))
        if str(app.get("kill_timeout", "")).isdecimal():
            worker.drain = int(app["kill_timeout"]) / 1000
        if app.get("instances") not in (None, 1, "1"):
            worker.remarks.append(f"ran {app['instances']} times: an agent ID has one process; see max_rooms")
    if not workers and not pieces.seems_monitor(f"{name} {' '.join(words)}", f"{path}: {name}"):
        pieces.remarks.append(f"{path}: application {name} is no LiveKit worker")
    return workers
