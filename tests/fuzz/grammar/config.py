"""Configuration files: the sections that the settings have, with values that fit, or belong elsewhere."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence

import yaml
from hypothesis import strategies as st
from pydantic import BaseModel

from supervisor.config import Settings
from tests.fuzz.config_file import ENVIRONMENT, WRITTEN_SECRET
from tests.fuzz.grammar.spoil import ODD, weighted

_DURATIONS: Sequence[object] = ("1s", "500ms", "2m", "0", 0, "99999999999d", "1", "-1s", "${NUMBER}")
_PATHS: Sequence[object] = (
    "agent.py",
    "gone.py",
    "dir",
    "loop",
    "empty",
    "binary",
    "/dev/null",
    "agent.py/x",
    "~/x",
    "~nobody-of-that-name/x",
    "x" * 300,
    "/" + "x/" * 3_000,
    "a\nb\x1b[2J",
    "\0",
    "${SECRET_PATH}",
    "${LINES}",
    "${NOT_UTF8}",
)
_TEXTS: Sequence[object] = (
    "a",
    "",
    "*",
    "${SECRET}",
    "${EMPTY}",
    "${UNSET}",
    "${EMPTY:-b}",
    "${LINES}",
    "a\nb",
    "\u202e",
)
_COUNTS: Sequence[object] = (
    1,
    0,
    5,
    -1,
    1.5,
    True,
    10**30,
    "${NUMBER}",
    "${BROKEN_NUMBER}",
    "${LONG_NUMBER}",
    "${SEXAGESIMAL}",
)

_KNOWN: Mapping[str, Sequence[object]] = {
    "url": ("ws://127.0.0.1:7880", "wss://h/", "ftp://h", "ws://h:99999", "ws://[", "${URL}", "${SECRET}"),
    "api_secret": (WRITTEN_SECRET, "${SECRET}", "${UNSET}", "${UNSET:-x}", ""),
    "api_secret_file": (
        "secret",
        "empty",
        "binary",
        "gone",
        "x" * 300,
        "~nobody-of-that-name",
        "${SECRET}",
        WRITTEN_SECRET,
    ),
    "webhook_api_secret": (WRITTEN_SECRET, "${SECRET}"),
    "id": ("a", "b", "livekit-server", "a/b", "a" * 129, "${SECRET}"),
    "script": _PATHS,
    "command": (
        ["sh", "-c", "true"],
        ["./python"],
        [],
        ["gone"],
        ["x" * 300],
        ["/" + "x" * 300],
        ["\0"],
        ["${SECRET}"],
    ),
    "python": ("python", "sh", *_PATHS),
    "args": ([], ["a", "\0"], ["${SECRET}"], [1]),
    "cwd": ("dir", *_PATHS),
    "env": ({}, {"A": "1"}, {"A-B": "1"}, {"A": "${SECRET}"}, {"LIVEKIT_SUPERVISOR_X": "1"}, {"A": "\0"}),
    "env_file": ("good.env", "bad.env", *_PATHS),
    "rooms": (["*"], ["a[", "${SECRET}"], []),
    "ignore": (["*"], ["["]),
    "ignore_agents": (["*"], [1]),
    "listen": ("127.0.0.1:9105", "[::1]:1", "h", "h:0", "${SECRET}"),
    "store": ("sqlite", "redis://h/1", "redis://[", "redis://u:${SECRET}@h", "${SECRET}"),
    "state": _PATHS,
    "runtime": _PATHS,
    "logs": _PATHS,
    "max_size": ("1MiB", "1", 1),
    "webhook_listen": ("127.0.0.1:9106", 1),
    "memory_limit": ("1GiB", "0", "1", "99999999999TiB"),
    "level": ("debug", "loud", "${SECRET}"),
    "format": ("json", "${SECRET}"),
    "rogue": ("report", "ignore"),
    **dict.fromkeys(("factor", "jitter", "max_rooms", "keep"), _COUNTS),
    **dict.fromkeys(
        ("initial", "interval", "kill", "drain", "resync", "stable_after", "max_age"), _DURATIONS
    ),
    **dict.fromkeys(("timeout", "max", "startup_timeout", "webhook_max_age"), ("2m", *_DURATIONS)),
    **dict.fromkeys(("reconnect_grace", "human_return_grace"), _DURATIONS),
    **dict.fromkeys(("redact", "warm_spare", "inherit_env", "enforce"), (True, "yes", 1, "${NUMBER}")),
}
RIGHT, WRONG = 60, 4
"""To one that is nothing, and one that is odd."""

_OTHERS: Sequence[object] = (*_TEXTS, *_COUNTS, *_DURATIONS, True, False, None)


def _sections(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (tuple, typing.Union, types.UnionType):
        for argument in typing.get_args(annotation):
            yield from _sections(argument)


def _value(name: str, annotation: object) -> st.SearchStrategy[object]:
    inner = next(_sections(annotation), None)
    if inner is not None:
        section = _section(inner)
        return (
            st.lists(section, min_size=1, max_size=3) if typing.get_origin(annotation) is tuple else section
        )
    values = _KNOWN.get(name, _OTHERS)
    # The first is right, and so is most of a file, or its first fault would hide all others.
    others = (WRONG, st.sampled_from(values)), (1, st.none()), (1, ODD)
    return weighted((RIGHT, st.just(values[0])), *others)


def _section(model: type[BaseModel]) -> st.SearchStrategy[object]:
    fields = {name: _value(name, field.annotation) for name, field in model.model_fields.items()}
    needed = {name for name, field in model.model_fields.items() if field.is_required()}
    return st.fixed_dictionaries(
        {name: fields[name] for name in fields if name in needed},
        optional={name: fields[name] for name in fields if name not in needed},
    )


def _written(data: dict[str, object], sensible: bool, flow: bool | None) -> bytes:
    if sensible:
        _make_sensible(data)
    text = yaml.dump(data, Dumper=yaml.SafeDumper, default_flow_style=flow, sort_keys=False)
    return text.encode("utf-8", "surrogatepass")


def _make_sensible(data: dict[str, object]) -> None:
    """Without what only makes sense alone."""
    livekit, agents = data.get("livekit"), data.get("agents")
    if isinstance(livekit, dict):
        for key in ("api_secret_file", "webhook_api_key", "webhook_api_secret"):
            livekit.pop(key, None)
    for number, agent in enumerate(agents if isinstance(agents, list) else []):
        agent["id"] = f"a{number}"
        agent["script"] = agent.get("script") or "agent.py"
        agent.pop("command", None)


DOCUMENTS = st.builds(_written, _section(Settings), st.booleans(), st.sampled_from([False, None, True]))

WORDS: Sequence[bytes] = [
    *(key.encode() + b": " for key in (*Settings.model_fields, *_KNOWN)),
    *(f"${{{name}}}".encode() for name in ENVIRONMENT),
    *(
        b"- ",
        b"\n",
        b"\n  ",
        b"\n    ",
        b": ",
        b"? ",
        b"{",
        b"}",
        b"[",
        b"]",
        b", ",
        b"'",
        b'"',
        b"# ",
        b"|\n",
        b">-\n",
    ),
    *(
        b"&a ",
        b"*a",
        b"<<: *a",
        b"!!str ",
        b"!!int ",
        b"!!bool ",
        b"!!float ",
        b"!!binary ",
        b"!!python/name:os.system ",
        b"%YAML 1.1\n",
        b"---\n",
        b"...\n",
    ),
    *(
        b"${",
        b"$${",
        b"}",
        b":-",
        b"null",
        b"~",
        b".inf",
        b".nan",
        b"1:30",
        b"0x",
        b"0b_",
        b"2001-01-01",
        b"yes",
        b"\t",
    ),
    *(b"\xff", b"\xef\xbb\xbf", b"\0", b"\x1b", b"\\", b'"\\ud800"', b"\xc2\x85", b"\xe2\x80\xa8", b"\r"),
]
