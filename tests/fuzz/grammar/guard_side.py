"""What a daemon says to a guard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from hypothesis import strategies as st

from tests.fuzz.grammar.spoil import NUMBERS, ODD, fields

_TEXT = st.sampled_from(["", "x", "held"])
_SECONDS = st.one_of(st.floats(0, 30), NUMBERS)
_EPOCH = st.one_of(st.none(), st.integers(0, 9), NUMBERS)

_FIELDS: Mapping[str, Mapping[str, st.SearchStrategy[object]]] = {
    "welcome": {
        "v": st.just(1),
        "instance": _TEXT,
        "heartbeat": st.fixed_dictionaries({"interval": _SECONDS, "timeout": _SECONDS}),
        "human_return_grace": _SECONDS,
        "reconnect_grace": _SECONDS,
        "epoch": _EPOCH,
        "hold": st.booleans(),
    },
    "refused": {"reason": _TEXT},
    "answer": {
        "id": st.integers(0, 9),
        "outcome": _TEXT,
        "epoch": _EPOCH,
        "terminate": st.booleans(),
        "holder": _TEXT,
    },
    "drain": {"timeout": _SECONDS},
    "resume": {},
    "leave": {"reason": _TEXT, "epoch": _EPOCH},
    "reset": {},
    "news": {"of": ODD},
}


def _message(kind: str) -> st.SearchStrategy[bytes]:
    return fields(_FIELDS[kind]).map(lambda found: json.dumps({"type": kind, **found}).encode() + b"\n")


_STREAMS = st.lists(st.sampled_from(sorted(_FIELDS)).flatmap(_message), max_size=6).map(b"".join)
_SIZES = st.sampled_from([b"\x01", b"\x02", b"\x07", b"\x40", b"\xff"])

DOCUMENTS = st.builds(lambda size, stream: size + stream, _SIZES, _STREAMS)

WORDS: Sequence[bytes] = [
    *(f'{{"type":"{kind}",'.encode() for kind in _FIELDS),
    *(f'"{key}":'.encode() for key in sorted({key for fields in _FIELDS.values() for key in fields})),
    *(
        b'"heartbeat":{"interval":',
        b"\n",
        b"}\n",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"true",
        b"NaN",
        b"Infinity",
    ),
    *(b"1e999", b"-1", b"9" * 400, b'"\\ud800"', b"\xff", b"\0", b"[" * 2_000, b"x" * 5_000),
]
