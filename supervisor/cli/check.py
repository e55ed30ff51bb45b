"""``check``: would this configuration run?

One rule: nothing is started or changed, and every problem is told at once.  A warning is no problem.
"""

from __future__ import annotations

import ast
import asyncio
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from supervisor.cli.documents import VERSION
from supervisor.cli.progress import Tell, untold
from supervisor.cli.screen import print_error
from supervisor.cli.text import count, plain
from supervisor.config import AgentSettings, ConfigError, Settings, load
from supervisor.config.document import parse
from supervisor.config.load import MAX_BYTES

_IMPORT = "import livekit.agents; print(livekit.agents.__version__)"
_IMPORT_TIMEOUT = 60.0
_AT_ONCE = 2
"""Importing livekit-agents takes a core for seconds."""


@dataclass(frozen=True, slots=True)
class Finding:
    severity: str
    """``error`` or ``warning``."""
    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        warning = "warning: " if self.severity == "warning" else ""
        key = f"{self.key}: " if self.key else ""
        return plain(f"{where}: {key}{warning}{self.message}")


@dataclass(frozen=True, slots=True)
class Report:
    file: Path
    agents: int
    findings: tuple[Finding, ...]

    @property
    def good(self) -> bool:
        return all(f.severity != "error" for f in self.findings)

    def document(self) -> dict[str, object]:
        return {"version": VERSION, "ok": self.good, "problems": [asdict(f) for f in self.findings]}

    def print(self) -> None:
        for finding in self.findings:
            print_error(str(finding))
        if self.good:
            print(f"OK: {self.file}: {count(self.agents, 'agent')}")


def check_file(file: Path, environ: Mapping[str, str], *, online: bool, tell: Tell = untold) -> Report:
    try:
        settings = load(file, environ)
    except ConfigError as error:
        return Report(file, 0, tuple(Finding("error", *_place(p), p.message) for p in error.problems))
    tell("asking each agent's Python for livekit-agents")
    found = check_settings(file, settings)
    if online:
        tell("asking LiveKit")
        found += asyncio.run(_check_livekit(file, settings))
    return Report(file, len(settings.agents), tuple(found))


def check_settings(file: Path, settings: Settings) -> list[Finding]:
    """Scripts and Python environments, and what this version does not do yet."""
    places = _Places(file)
    return [
        *_check_store(places, settings),
        *_check_spares(places, settings.agents),
        *_check_scripts(places, settings.agents),
        *_check_environments(places, settings),
    ]


class _Places:
    """Where in the file something stands."""

    def __init__(self, file: Path) -> None:
        self._file = str(file)
        try:
            with file.open("rb") as opened:
                text = opened.read(MAX_BYTES).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError):  # gone since it was read
            text = ""
        self._document = parse(text, {})

    def error(self, message: str, *place: str | int) -> Finding:
        return self._finding("error", message, place)

    def warning(self, message: str, *place: str | int) -> Finding:
        return self._finding("warning", message, place)

    def _finding(self, severity: str, message: str, place: tuple[str | int, ...]) -> Finding:
        return Finding(severity, self._file, self._document.line(place), _spelled(place), message)


def _spelled(place: tuple[str | int, ...]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).removeprefix(".")


def _check_store(places: _Places, settings: Settings) -> list[Finding]:
    """What ``run`` refuses."""
    if settings.store == "sqlite":
        return []
    message = "this version supports sqlite only: leave it out; see docs/several-hosts.md"
    return [places.error(message, "store")]


def _check_spares(places: _Places, agents: Iterable[AgentSettings]) -> list[Finding]:
    message = "has no effect in this version: a worker that died is replaced by a new one"
    wanted = (index for index, agent in enumerate(agents) if agent.warm_spare)
    return [places.warning(message, "agents", index, "warm_spare") for index in wanted]


def _place(problem: object) -> tuple[str, int | None, str]:
    return (str(getattr(problem, "file", "")), getattr(problem, "line", None), getattr(problem, "key", ""))


def _check_scripts(places: _Places, agents: Iterable[AgentSettings]) -> list[Finding]:
    found = []
    for index, agent in enumerate(agents):
        if agent.script is None:
            continue
        place = ("agents", index, "script")
        try:
            tree = ast.parse(agent.script.read_bytes(), str(agent.script))
        except (OSError, SyntaxError, ValueError) as error:
            found.append(places.error(f"cannot be read as Python: {plain(error)}", *place))
            continue
        if _uses_threads(tree):
            message = "uses the thread executor: a job that hangs cannot be ended alone, and costs the worker"
            found.append(places.warning(message, *place))
    return found


def _uses_threads(tree: ast.AST) -> bool:
    """``JobExecutorType.THREAD`` anywhere in the script."""
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == "THREAD"
        and ast.unparse(node.value).endswith("JobExecutorType")
        for node in ast.walk(tree)
    )


@dataclass(frozen=True, slots=True)
class _Interpreter:
    """A Python as a worker runs it: where its packages are, the environment and the folder decide, too."""

    program: str
    cwd: str
    env: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, agent: AgentSettings, settings: Settings) -> Self:
        from supervisor.daemon.specs import agent_spec

        # A folder that is not there: the guard's own is made by the daemon, and holds nothing but the guard.
        process = agent_spec(agent, settings, settings.paths.state / "guard", dev=False).process
        # By those of our own the daemon knows its workers, and this is none.
        env = (pair for pair in process.env if not pair[0].startswith("LIVEKIT_SUPERVISOR_"))
        return cls(process.argv[0], process.cwd, tuple(env))


def _check_environments(places: _Places, settings: Settings) -> list[Finding]:
    """Each agent's Python must import livekit-agents; each is asked once, agents with the same share it."""
    users: dict[_Interpreter, list[int]] = {}
    for index, agent in enumerate(settings.agents):
        if agent.script is not None:
            users.setdefault(_Interpreter.of(agent, settings), []).append(index)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = list(pool.map(_imports_agents, users))
    return [
        places.error(f"{interpreter.program}: {problem}", "agents", index, "python")
        for (interpreter, indices), problem in zip(users.items(), answers, strict=True)
        if problem is not None
        for index in indices
    ]


def _imports_agents(interpreter: _Interpreter) -> str | None:
    # No -I: a worker runs without it. -P stands in its environment, for every Python that knows it.
    try:
        done = subprocess.run(
            [interpreter.program, "-c", _IMPORT],
            cwd=interpreter.cwd,
            env=dict(interpreter.env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_IMPORT_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"importing livekit.agents took longer than {_IMPORT_TIMEOUT:g} s"
    except OSError as error:
        return f"cannot be run: {error.strerror}"
    if done.returncode == 0:
        return None
    return f"cannot import livekit.agents: {plain(_last_line(done.stderr) or f'exit code {done.returncode}')}"


def _last_line(output: bytes) -> str:
    lines: Sequence[str] = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


async def _check_livekit(file: Path, settings: Settings) -> list[Finding]:
    from supervisor.core.ports import Failed
    from supervisor.events import EventBus
    from supervisor.livekit.api import LiveKitClient

    livekit = settings.livekit
    secret = livekit.api_secret.get_secret_value()
    client = LiveKitClient(livekit.url, livekit.api_key, secret, livekit.timeout, EventBus())
    try:
        answer = await client.ping()
    finally:
        await client.aclose()
    if isinstance(answer, Failed):
        return [_Places(file).error(f"{livekit.url}: {plain(answer.message)}", "livekit")]
    return []
