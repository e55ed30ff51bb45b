"""Webhooks as LiveKit sends them, signed by ours, by others, and with claims that are nobody's."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import strategies as st

from supervisor.livekit.webhook import EVENTS
from tests.fuzz.grammar.spoil import mostly, odd

_NAMES = st.sampled_from(["lobby", "room 2", "agent-AJ_1", ""])
_ROOM = st.fixed_dictionaries(
    {"name": mostly(_NAMES)}, optional={"sid": odd(), "numParticipants": odd(), "later": odd()}
)
_PARTICIPANT = st.fixed_dictionaries(
    {"identity": mostly(_NAMES), "kind": mostly(st.sampled_from(["AGENT", "STANDARD", 4, 99]))},
    optional={"attributes": odd(), "joinedAt": odd(), "state": odd()},
)
_EVENT = st.fixed_dictionaries(
    {
        "id": mostly(st.sampled_from(["EV_1", "x" * 256, "x" * 257])),
        "event": mostly(st.sampled_from(sorted(EVENTS))),
        "createdAt": mostly(st.sampled_from(["@NOW@", "0", 1])),
        "room": mostly(_ROOM),
    },
    optional={
        "participant": mostly(_PARTICIPANT),
        "numDropped": mostly(st.integers(-1, 3)),
        "track": odd(),
        "egressInfo": odd(),
        "created_at": odd(),
    },
)
_CLAIM = st.sampled_from(
    [
        "video",
        "sip",
        "agent",
        "roomConfig",
        "sha256",
        "exp",
        "nbf",
        "iat",
        "sub",
        "iss",
        "name",
        "attributes",
        "kind",
    ]
)


def _claims(claims: dict[str, object]) -> bytes:
    return b"claims " + json.dumps(claims).encode()


_HEADS = st.one_of(
    st.sampled_from(
        [
            b"sign",
            b"sign",
            b"hook",
            b"wrong",
            b"",
            b"Bearer a.b.c",
            b"Basic YTpi",
            b"eyJhbGciOiJub25lIn0.e30.",
        ]
    ),
    st.dictionaries(_CLAIM, odd(), max_size=3).map(_claims),
    st.binary(max_size=30).filter(lambda head: b"\n" not in head),
)

DOCUMENTS = st.builds(lambda head, event: head + b"\n" + json.dumps(event).encode(), _HEADS, mostly(_EVENT))

WORDS: Sequence[bytes] = [
    *(b"sign\n", b"hook\n", b"wrong\n", b"claims {", b"Bearer ", b"@NOW@", b"eyJhbGciOiJIUzI1NiJ9.", b"."),
    *(
        b'"id":',
        b'"event":',
        b'"createdAt":',
        b'"room":{"name":',
        b'"participant":{"identity":',
        b'"numDropped":',
    ),
    *(b'"kind":"AGENT"', b'"attributes":{', b'"video":{"roomJoin":true}', b'"sha256":', b'"exp":', b'"iss":'),
    *(event.encode() for event in sorted(EVENTS)),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"null",
        b"NaN",
        b"1e999",
        b"-1",
        b'"\\ud800"',
        b"\xff",
        b"\0",
        b"[" * 2_000,
    ),
]
