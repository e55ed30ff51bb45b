"""What was found, written as ``config.yaml``: every value quoted as it needs, every doubt a comment.

One rule: no secret is copied into the configuration; it stays in its file, or gets one of its own.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from supervisor.cli.importing_env import is_usable
from supervisor.cli.importing_pieces import Pieces, Worker, is_open
from supervisor.config.env_file import NAME, RESERVED
from supervisor.config.secret_names import is_secret
from supervisor.config.units import spell_duration, spell_size

PRIMARY_ID, PRIMARY_NAME = "VOICE_PRIMARY_AGENT_ID", "VOICE_PRIMARY_AGENT_NAME"
_OURS = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
"""Workers get them from ``livekit:``."""

_PLAIN = re.compile(r"(?:-{0,2}[A-Za-z0-9]|[_./+])[A-Za-z0-9_./@%+=-]*(?: [A-Za-z0-9_./@%+=-]+)*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SHORTEST_DRAIN = 1.0


def render(pieces: Pieces, folder: Path | None, *, secret_file: str | None, observe: bool) -> str:
    """``folder`` is where it will lie; None where that is not known."""
    lines = [*_head(pieces), *_livekit(pieces, secret_file), "", "agents:"]
    ids: set[str] = set()
    for worker in pieces.workers:
        lines += _agent(worker, pieces, ids, folder, observe=observe)
    return "\n".join([*lines, *_rest()]) + "\n"


def _head(pieces: Pieces) -> Iterator[str]:
    yield "# Written by `livekit-supervisor import`. Look through it, then: livekit-supervisor check --online"
    for remark in pieces.remarks:
        yield f"# not told: {_one_line(remark)}"
    for monitor in pieces.monitors:
        yield f"# not needed any more, since the supervisor does it: {_one_line(monitor)}"
    yield ""


def _livekit(pieces: Pieces, secret_file: str | None) -> Iterator[str]:
    known = pieces.variables
    yield "livekit:"
    if known.get("LIVEKIT_URL"):
        yield f"  url: {quoted(known['LIVEKIT_URL'])}"
    else:
        yield "  # not told: LiveKit's address"
        yield "  url: ${LIVEKIT_URL:-ws://127.0.0.1:7880}"
    if known.get("LIVEKIT_API_KEY"):
        yield f"  api_key: {quoted(known['LIVEKIT_API_KEY'])}"
    else:
        yield "  # not told: LiveKit's key"
        yield "  api_key: ${LIVEKIT_API_KEY:-CHANGE-ME}"
    if secret_file is not None:
        yield f"  api_secret_file: {secret_file}"
    else:
        yield "  # The key's secret, in the environment; better: api_secret_file: /a/file/of/mode/0600"
        yield "  api_secret: ${LIVEKIT_API_SECRET:-CHANGE-ME}"


def _rest() -> Iterator[str]:
    yield ""
    yield "rooms:"
    yield "  # Only observes: everything is decided and reported, and nothing is touched. When what"
    yield "  # `livekit-supervisor conflicts` shows is right, and the old programs are stopped, remove this."
    yield "  enforce: false"


# --- an agent -------------------------------------------------------------------------------------------


def _agent(
    worker: Worker, pieces: Pieces, ids: set[str], folder: Path | None, *, observe: bool
) -> Iterator[str]:
    only = len(pieces.workers) == 1
    agent_id = _id(worker, pieces, ids, only=only)
    name = _name(worker, pieces, only=only)
    yield f"  # from {_one_line(worker.source)}: {_one_line(worker.title)}"
    for remark in worker.remarks:
        yield f"  # {_one_line(remark)}"
    yield f"  - id: {quoted(agent_id)}"
    if name is None and not observe:
        yield "    # name: left out: the script's own, as it registers"
    else:
        yield f"    name: {quoted(name or '')}"
    if observe:
        yield "    # Stands in for the old worker, which goes on: nothing is started beside it."
        yield "    command: [sleep, infinity]"
    else:
        yield from _program(worker, folder)
    yield from _rooms(name, only=only)
    if not observe:
        yield from _environment(worker, pieces, folder)
        yield from _limits(worker)
        yield "    # A second process of this agent, such as the old one, is only reported. Remove this line"
        yield "    # together with the other one below: then it is ended."
        yield "    rogue: report"


def _id(worker: Worker, pieces: Pieces, ids: set[str], *, only: bool) -> str:
    told = worker.env.get(PRIMARY_ID) or (pieces.variables.get(PRIMARY_ID) if only else None)
    if not told or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", told, re.ASCII):
        told = re.sub(r"[^A-Za-z0-9._-]+", "-", worker.title).strip("-._")[:100] or "agent"
    if told == "livekit-server":
        told = "livekit-server-agent"
    free, number = told, 1
    while free in ids:
        number += 1
        free = f"{told}-{number}"
    ids.add(free)
    return free


def _name(worker: Worker, pieces: Pieces, *, only: bool) -> str | None:
    """As the script says; else as the environment does; None for the script's own, whatever that is."""
    told = worker.env.get(PRIMARY_NAME) or (pieces.variables.get(PRIMARY_NAME) if only else None)
    return _name_in_script(worker.script) or (told if told and not is_open(told) else None)


def _name_in_script(script: Path | None) -> str | None:
    """``agent_name="..."`` anywhere in it."""
    try:
        tree = ast.parse(script.read_bytes()) if script is not None else None
    except (OSError, SyntaxError, ValueError):
        return None
    for node in ast.walk(tree) if tree is not None else ():
        if (
            isinstance(node, ast.keyword)
            and node.arg == "agent_name"
            and isinstance(node.value, ast.Constant)
        ):
            return node.value.value if isinstance(node.value.value, str) else None
    return None


def _program(worker: Worker, folder: Path | None) -> Iterator[str]:
    if worker.script is None:
        yield f"    command: [{_list(worker, worker.command)}]"
    else:
        yield f"    script: {_quoted_path(worker, worker.script, folder)}"
        if worker.python is not None:
            yield f"    python: {_quoted_path(worker, worker.python, folder)}"
        if worker.args:
            yield f"    args: [{_list(worker, worker.args)}]"
    if worker.cwd is not None and worker.cwd != folder:
        yield f"    cwd: {_quoted_path(worker, worker.cwd, folder)}"
    if not worker.fills_in and any(map(is_open, (*worker.args, *worker.command))):
        yield "    # not told: what the variables in that line stand for; they are taken as plain text"


def _rooms(name: str | None, *, only: bool) -> Iterator[str]:
    if only or name is None:
        yield "    # Every room with a human in which nothing else was dispatched, as a room monitor has it."
        yield '    rooms: ["*"]'
    else:
        yield "    # not told: which rooms are this agent's where nothing was dispatched; none, as it stands"
        yield "    rooms: []"


def _environment(worker: Worker, pieces: Pieces, folder: Path | None) -> Iterator[str]:
    files = [*worker.env_files, *pieces.variable_files]
    usable = [file for file in dict.fromkeys(files) if is_usable(file)]
    if usable:
        yield f"    env_file: {quoted(_path(usable[0], folder))}"
    for file in usable[1:]:
        yield f"    # not taken over, since there is one env_file: {_one_line(str(file))}"
    told = {k: v for k, v in worker.env.items() if k not in _OURS}
    wanted = {k: v for k, v in told.items() if NAME.fullmatch(k) and not k.startswith(RESERVED)}
    kept = {k: v for k, v in wanted.items() if not is_secret(k)}
    for name in sorted(wanted.keys() - kept.keys()):
        yield f"    # {name} is a secret: put it into a file, and name that in env_file"
    if kept:
        yield "    env:"
        for name, value in sorted(kept.items()):
            yield f"      {name}: {_filled_in(value) if worker.fills_in else quoted(value)}"


def _limits(worker: Worker) -> Iterator[str]:
    if worker.drain is not None and worker.drain >= _SHORTEST_DRAIN:
        yield f"    stop: {{drain: {spell_duration(worker.drain)}}}"
    if worker.memory_limit:
        yield f"    memory_limit: {spell_size(worker.memory_limit)}"


# --- text -----------------------------------------------------------------------------------------------


def quoted(value: str) -> str:
    """As YAML, plain where it is safe; a ``${`` of theirs is none of ours."""
    value = value.replace("${", "$${")
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS and not _looks_like_a_number(value):
        return value
    if re.fullmatch(r"(?:wss?|https?)://[A-Za-z0-9./:_-]+", value):
        return value
    return _in_quotes(value)


def _filled_in(value: str) -> str:
    """With its ``${NAME}`` to be filled in by the daemon; with nothing, where that is not set."""
    parts = _VARIABLE.split(value)
    if len(parts) == 1:
        return quoted(value)
    pairs = zip(parts[::2], [f"${{{name}:-}}" for name in parts[1::2]] + [""], strict=True)
    return '"' + "".join(_in_quotes(text.replace("${", "$${"))[1:-1] + name for text, name in pairs) + '"'


def _quoted_path(worker: Worker, path: Path, folder: Path | None) -> str:
    text = _path(path, folder)
    if not worker.fills_in or _VARIABLE.search(text) is None:
        return quoted(text)
    # What a variable stands for at the beginning is a whole path.
    return _in_quotes(re.sub(r"^.*/(?=\$\{)", "", text))


def _list(worker: Worker, values: Iterable[str]) -> str:
    fills_in = worker.fills_in
    return ", ".join(_filled_in(v) if fills_in and _VARIABLE.search(v) else _in_list(v) for v in values)


def _in_quotes(value: str) -> str:
    """With YAML's escapes: JSON's break characters beyond 16 bits in two."""
    return '"' + "".join(map(_character, value)) + '"'


def _character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if " " <= character <= "~":
        return character
    return f"\\U{ord(character):08x}"


def _in_list(value: str) -> str:
    text = quoted(value)
    return text if re.fullmatch(r"[A-Za-z0-9_./=-]+|\".*\"", text) else _in_quotes(value.replace("${", "$${"))


def _looks_like_a_number(value: str) -> bool:
    return re.fullmatch(r"[-+.0-9][0-9a-fA-FxXoO_.eE+:-]*|[-+]?\.(?i:inf|nan)", value) is not None


def _path(path: Path, folder: Path | None) -> str:
    """Relative to where the configuration lies, where it lies below."""
    path = Path(os.path.normpath(path))
    return str(path.relative_to(folder)) if folder is not None and path.is_relative_to(folder) else str(path)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
