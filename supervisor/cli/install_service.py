"""``install-service``: the units of systemd, made from deploy/systemd and what the configuration needs.

One rule: without ``--write`` nothing is touched, and what is shown is exactly what would be written.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.cli.documents import VERSION
from supervisor.cli.errors import CliError, ExitCode
from supervisor.cli.settings import load_settings
from supervisor.cli.written import readable, scalars
from supervisor.config import Settings, defaults
from supervisor.config.env_file import EnvFile
from supervisor.config.problems import FileProblems

NAME = "livekit-supervisor"
SERVICE_USER = NAME
TEMPLATE_PROGRAM = "/opt/livekit-supervisor/bin/livekit-supervisor"
TEMPLATE_CONFIG = "/etc/livekit-supervisor/config.yaml"
ETC = Path("/etc/livekit-supervisor")
DIRECTORIES = {
    "STATE_DIRECTORY": f"/var/lib/{NAME}",
    "RUNTIME_DIRECTORY": f"/run/{NAME}",
    "LOGS_DIRECTORY": f"/var/log/{NAME}",
}
"""What systemd gives to the service of the machine."""

STOP_MARGIN = 20.0
_REFERENCE = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)")
_OF_THE_SHELL = frozenset({"XDG_STATE_HOME"})
"""Decides where files are, and a user's systemd does not know of it."""

_HOMES = ("/home", "/root", "/run/user")


@dataclass(frozen=True, slots=True)
class Unit:
    path: Path
    content: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Plan:
    units: tuple[Unit, ...]
    notes: tuple[str, ...]
    """What the operator has to see to; none of it keeps the units from being written."""
    commands: tuple[str, ...]
    """What comes next."""

    def document(self, *, written: bool) -> dict[str, object]:
        files = [{"path": str(u.path), "mode": f"{u.mode:04o}", "content": u.content} for u in self.units]
        return {
            "version": VERSION,
            "written": written,
            "files": files,
            "notes": list(self.notes),
            "commands": list(self.commands),
        }


def plan(
    config: Path, environ: Mapping[str, str], *, user: bool, program: str | None, root: Path = Path("/")
) -> Plan:
    """Raises CliError when the configuration has mistakes: the service would not run."""
    file = config.absolute()
    command = program or own_program()
    if user:
        return _user_plan(file, command, environ)
    variables = _variables(root / "etc/livekit-supervisor/environment")
    settings = load_settings(file, {**environ, **variables, **DIRECTORIES})
    return Plan(
        (
            Unit(root / f"etc/systemd/system/{NAME}.service", _system_unit(file, command, settings)),
            Unit(root / f"etc/sysusers.d/{NAME}.conf", template(f"{NAME}.sysusers")),
        ),
        tuple(_notes(file, command, settings, environ, variables)),
        (
            "systemd-sysusers",
            f"install -d -m 0750 -g {SERVICE_USER} {ETC}",
            "systemctl daemon-reload",
            f"systemctl enable --now {NAME}",
            f"systemctl status {NAME}",
        ),
    )


def _variables(file: Path) -> Mapping[str, str]:
    """Those that systemd will give to the service."""
    try:
        return EnvFile.read(file).variables
    except OSError:
        return {}
    except FileProblems as error:
        raise CliError("\n".join(map(str, error.problems)), ExitCode.USAGE) from error


def write(units: tuple[Unit, ...]) -> None:
    for unit in units:
        try:
            unit.path.parent.mkdir(parents=True, exist_ok=True)
            draft = unit.path.with_name(f".{unit.path.name}.new")
            draft.write_text(unit.content, encoding="utf-8")
            draft.chmod(unit.mode)
            draft.replace(unit.path)
        except OSError as error:
            why = f"{unit.path}: cannot be written: {error.strerror}"
            hint = "; run this with sudo, or with --user" if isinstance(error, PermissionError) else ""
            raise CliError(f"{why}{hint}", ExitCode.USAGE) from error


def template(name: str) -> str:
    """As it was installed with us, or as it lies in the checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_deploy" / "systemd", package.parent / "deploy" / "systemd"):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise CliError(f"{name} is missing from this installation", ExitCode.WRONG)


def own_program() -> str:
    """The command that this is, by its whole path: systemd has no PATH of yours."""
    beside = Path(sys.prefix) / "bin" / NAME
    if beside.is_file():
        return str(beside)
    found = shutil.which(NAME)
    if found is None:
        raise CliError(f"{NAME} is not on PATH: name it with --program", ExitCode.USAGE)
    return str(Path(found).absolute())


# --- units ----------------------------------------------------------------------------------------------


def _filled_in(text: str, config: Path, program: str) -> str:
    if not Path(program).is_absolute():
        raise CliError(
            f"{program}: name the program by its whole path: systemd has no PATH of yours", ExitCode.USAGE
        )
    for path in (str(config), program):
        if any(character in path for character in " \t\n\"'\\%$"):
            raise CliError(f"{path}: systemd would take this path apart; choose another", ExitCode.USAGE)
    return text.replace(TEMPLATE_PROGRAM, program).replace(TEMPLATE_CONFIG, str(config))


def _set(text: str, key: str, value: str) -> str:
    lines = text.splitlines()
    return "\n".join(f"{key}={value}" if line.startswith(f"{key}=") else line for line in lines) + "\n"


def _add_after(text: str, key: str, line: str) -> str:
    lines = text.splitlines()
    at = max(number for number, each in enumerate(lines) if each.startswith(f"{key}="))
    return "\n".join([*lines[: at + 1], line, *lines[at + 1 :]]) + "\n"


def _system_unit(file: Path, program: str, settings: Settings) -> str:
    text = _filled_in(template(f"{NAME}.service"), file, program)
    text = _set(text, "TimeoutStopSec", _stop_seconds(settings))
    outside = _outside(settings)
    if any(_is_below(path, home) for path in (*_needed(file, settings), *outside) for home in _HOMES):
        text = _set(text, "ProtectHome", "read-only")
    if outside:
        text = _add_after(text, "ProtectSystem", f"ReadWritePaths={' '.join(map(str, outside))}")
    if not _uses_credential(file, settings):
        text = "\n".join(line for line in text.splitlines() if not line.startswith("LoadCredential=")) + "\n"
    return text


def _home(environ: Mapping[str, str]) -> Path:
    try:
        return defaults.home(environ)
    except ValueError as error:
        raise CliError(str(error), ExitCode.USAGE) from error


def _user_plan(file: Path, program: str, environ: Mapping[str, str]) -> Plan:
    home = _home(environ)
    environment = home / ".config" / NAME / "environment"
    variables = _variables(environment)
    settings = load_settings(file, {**environ, **variables})
    text = _filled_in(template(f"{NAME}.user.service"), file, program)
    text = _set(text, "TimeoutStopSec", _stop_seconds(settings))
    units = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "systemd/user"
    return Plan(
        (Unit(units / f"{NAME}.service", text),),
        tuple(_user_notes(file, settings, environ, variables, environment)),
        (
            "systemctl --user daemon-reload",
            f"systemctl --user enable --now {NAME}",
            "loginctl enable-linger   # it runs, too, while you are not logged in",
        ),
    )


def _stop_seconds(settings: Settings) -> str:
    longest = max(agent.stop.drain + agent.stop.kill for agent in settings.agents)
    return f"{int(longest + STOP_MARGIN)}s"


def _uses_credential(file: Path, settings: Settings) -> bool:
    if settings.livekit.api_secret_file is None:
        return False
    document = readable(file.read_text(encoding="utf-8"))
    written = scalars(document, lambda key: key == "api_secret_file")
    return any("CREDENTIALS_DIRECTORY" in node.value for node in written)


def _outside(settings: Settings) -> list[Path]:
    """What it writes to, and systemd's directories do not hold."""
    paths = settings.paths
    given = [Path(path) for path in DIRECTORIES.values()]
    return [p for p in (paths.state, paths.runtime, paths.logs) if not any(_is_below(p, g) for g in given)]


def _is_below(path: Path, folder: Path | str) -> bool:
    return path.is_relative_to(folder)


def _needed(file: Path, settings: Settings) -> list[Path]:
    """What the service's user reads."""
    found = [file]
    secret = settings.livekit.api_secret_file
    if secret is not None and not _uses_credential(file, settings):
        found.append(secret)
    for agent in settings.agents:
        env_file = agent.env_file.path if agent.env_file is not None else None
        program = Path(agent.command[0]) if agent.command and "/" in agent.command[0] else None
        found += [p for p in (agent.script, agent.python, agent.cwd, env_file, program) if p is not None]
    return list(dict.fromkeys(found))


# --- what the operator has to see to --------------------------------------------------------------------


def _notes(
    file: Path,
    program: str,
    settings: Settings,
    environ: Mapping[str, str],
    variables: Mapping[str, str],
) -> Iterator[str]:
    yield from _unreadable([Path(program), *_needed(file, settings)])
    secret = settings.livekit.api_secret_file
    if _uses_credential(file, settings):
        yield from _open_secrets(ETC / "environment", ETC / "livekit-api-secret", secret)
    else:
        yield from _open_secrets(ETC / "environment", *({ETC / "livekit-api-secret"} - {secret}))
        yield from _open_secrets(secret, for_group=True)
    outside = _outside(settings)
    if outside:
        yield f"paths: {', '.join(map(str, outside))} must belong to user {SERVICE_USER}, mode 0700"
        yield from _unreachable([p for p in outside if not any(p != o and _is_below(p, o) for o in outside)])
    yield from _elsewhere(settings, load_settings(file, {**environ, **variables}))
    yield from _lacking(file, environ, {*variables, "CREDENTIALS_DIRECTORY"}, ETC / "environment")


def _user_notes(
    file: Path,
    settings: Settings,
    environ: Mapping[str, str],
    variables: Mapping[str, str],
    environment: Path,
) -> Iterator[str]:
    """It runs as whoever asks, who may read what is needed."""
    yield from _open_secrets(environment, settings.livekit.api_secret_file)
    services = {name: value for name, value in environ.items() if name not in _OF_THE_SHELL}
    yield from _elsewhere(load_settings(file, {**services, **variables}), settings)
    yield from _lacking(file, environ, {*variables, "XDG_RUNTIME_DIR", "USER", "LOGNAME"}, environment)


def _elsewhere(services: Settings, typed: Settings) -> Iterator[str]:
    paths = services.paths
    if paths != typed.paths:
        yield (
            "commands typed by hand look elsewhere than the service writes; put into the configuration: "
            f"paths: {{state: {paths.state}, runtime: {paths.runtime}, logs: {paths.logs}}}"
        )


def _lacking(file: Path, environ: Mapping[str, str], there: set[str], environment: Path) -> Iterator[str]:
    """What this command has filled in from variables that the service does not have."""
    used = set(_REFERENCE.findall(file.read_text(encoding="utf-8"))) & environ.keys()
    lacking = sorted(used - there - {"HOME", "PATH"})
    if lacking:
        yield f"the service does not have your variables: put {', '.join(lacking)} into {environment}"


def _unreadable(paths: list[Path]) -> Iterator[str]:
    """What only its owner or group can reach: is that the service's user?"""
    for path in paths:
        yield from _barred(path, [*reversed(path.parents), path])


def _unreachable(paths: list[Path]) -> Iterator[str]:
    """The same of what belongs to the service's user itself: the way to it."""
    for path in paths:
        yield from _barred(path, [*reversed(path.parents)])


def _barred(path: Path, way: list[Path]) -> Iterator[str]:
    barred = next((p for p in way if not _open_to_all(p)), None)
    if barred is not None:
        yield f"{path}: user {SERVICE_USER} may not get past {barred}, unless by its group"


def _open_to_all(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return True  # ``check`` says what is missing
    return bool(mode & (stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH))


def _open_secrets(*files: Path | None, for_group: bool = False) -> Iterator[str]:
    """``for_group``: the service's user is not the owner, and reads it by the file's group."""
    too_much, cure = (stat.S_IRWXO, "o=") if for_group else (stat.S_IRWXG | stat.S_IRWXO, "0600")
    for path in dict.fromkeys(p for p in files if p is not None):
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except OSError:
            continue
        if mode & too_much:
            yield f"{path} holds secrets and has mode {mode:04o}: chmod {cure} {path}"
