"""Guards that talk to the daemon: several at once, about few rooms and jobs, so that they meet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from hypothesis import strategies as st

from tests.fuzz.daemon import OURS, QUIET, TREE
from tests.fuzz.grammar.spoil import NUMBERS, fields, weighted

_AGENTS = st.sampled_from([OURS, OURS, TREE, TREE, QUIET, "nobody"])
_ROOMS = st.sampled_from(["lobby", "lobby", "hall", "good", "ignored", "\ud800"])
_JOBS = st.sampled_from(["AJ_1", "AJ_2", "AJ_3", "AJ_good"])
_SHORT = st.sampled_from(["", "x", "agent-AJ_1"])
_EPOCHS = weighted((4, st.none()), (3, st.integers(0, 4)), (1, NUMBERS))

_FIELDS: Mapping[str, Mapping[str, st.SearchStrategy[object]]] = {
    "registered": {"worker_id": _SHORT, "agent_name": _SHORT, "http_port": st.integers(0, 70_000)},
    "unregistered": {"error": _SHORT},
    "request": {
        "id": st.integers(0, 9),
        "room": _ROOMS,
        "job_id": _JOBS,
        "dispatch_id": _SHORT,
        "identity": _SHORT,
    },
    "jobs": {
        "jobs": st.lists(
            st.fixed_dictionaries(
                {"job_id": _JOBS, "room": _ROOMS, "identity": _SHORT, "dispatch_id": _SHORT, "pid": NUMBERS}
            ),
            max_size=3,
        )
    },
    "abandon": {"job_id": _JOBS, "reason": _SHORT},
    "heartbeat": {"jobs": st.integers(0, 3), "late": st.floats(0, 1)},
    "joined": {"identity": _SHORT, "sid": _SHORT},
    "census": {"agents": st.lists(_SHORT, max_size=3), "humans": st.integers(-1, 3)},
    "report": {
        "report": st.sampled_from(["human_gone", "news"]),
        "detail": _SHORT,
        "room": _ROOMS,
        "job_id": _JOBS,
    },
    "failed": {"reason": _SHORT},
    "goodbye": {"reason": st.sampled_from(["stopped", "livekit_lost", ""])},
    "welcome": {},
}
_WORKER = {"v": st.just(1), "role": st.just("worker"), "agent_id": _AGENTS}
_JOB = {
    "v": st.just(1),
    "role": st.just("job"),
    "agent_id": _AGENTS,
    "room": _ROOMS,
    "job_id": _JOBS,
    "dispatch_id": _SHORT,
    "identity": _SHORT,
    "epoch": _EPOCHS,
    "joined": st.booleans(),
}


def _message(kind: str, usual: Mapping[str, st.SearchStrategy[object]]) -> st.SearchStrategy[bytes]:
    return fields(usual).map(lambda found: json.dumps({"type": kind, **found}).encode() + b"\n")


HELLOS = st.one_of(_message("hello", _WORKER), _message("hello", _JOB))
MESSAGES = st.sampled_from(sorted(_FIELDS)).flatmap(lambda kind: _message(kind, _FIELDS[kind]))

_PEERS = st.sampled_from([b"0", b"1", b"2", b"3"])
_SAID = st.lists(MESSAGES, max_size=4).map(b"".join)
_PARTS = weighted(
    (2, st.builds(lambda peer, hello, more: peer + hello + more, _PEERS, HELLOS, _SAID)),
    (3, st.builds(lambda peer, more: peer + more, _PEERS, _SAID)),
    (2, st.sampled_from([b"t", b"r", b"0", b"1"])),
)

DOCUMENTS = st.lists(_PARTS, min_size=1, max_size=8).map(b"\0".join)

WORDS: Sequence[bytes] = [
    *(b"\0" + peer for peer in (b"0", b"1", b"2", b"3", b"t", b"r")),
    *(f'{{"type":"{kind}",'.encode() for kind in (*_FIELDS, "hello")),
    *(f'"{key}":'.encode() for key in sorted({*_WORKER, *_JOB, *(k for f in _FIELDS.values() for k in f)})),
    *(f'"agent_id":"{agent}"'.encode() for agent in (OURS, TREE, QUIET)),
    *(
        b'"role":"worker"',
        b'"role":"job"',
        b'"v":1',
        b'"job_id":"AJ_1"',
        b'"room":"lobby"',
        b'"joined":true',
        b'"epoch":1',
    ),
    *(
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
        b"1e999",
        b"-1",
        b"9" * 30,
    ),
    *(b'"\\ud800"', b'"\\u0000"', b"\xff", b"[" * 2_000, b'{"type":"heartbeat"}\n' * 1_100),
]
