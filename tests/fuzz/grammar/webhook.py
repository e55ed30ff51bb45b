"""Webhooks as LiveKit sends them, signed by ours, by others, and with claims that are nobody's."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import strategies as st

from supervisor.events import WEBHOOK_EVENTS
from tests.fuzz.grammar.spoil import ODD, fields, weighted

_NAMES = st.sampled_from(["lobby", "room 2", "agent-AJ_1", ""])
_ROOM = fields({"name": _NAMES}, {"sid": _NAMES, "numParticipants": st.integers(0, 9)})
_PARTICIPANT = fields(
    {"identity": _NAMES, "kind": st.sampled_from(["AGENT", "STANDARD", 4, 99])},
    {"attributes": st.just({"a": "b"}), "joinedAt": st.just("1")},
)
_EVENT = fields(
    {
        "id": st.sampled_from(["EV_1", "EV_1", "x" * 256, "x" * 257]),
        "event": st.sampled_from([*WEBHOOK_EVENTS, "brand_new"]),
        "createdAt": st.sampled_from(["@NOW@", "@NOW@", "@NOW@", "0", 1]),
        "room": _ROOM,
    },
    {
        "participant": _PARTICIPANT,
        "numDropped": st.integers(-1, 3),
        "track": st.just({}),
        "egressInfo": st.just({}),
    },
)
_CLAIMS = ["video", "sip", "agent", "roomConfig", "sha256", "exp", "nbf", "iat", "sub", "iss", "kind"]


def _claims(claims: dict[str, object]) -> bytes:
    return b"claims " + json.dumps(claims).encode()


_OTHERS = [b"wrong", b"", b"Bearer a.b.c", b"Basic YTpi", b"eyJhbGciOiJub25lIn0.e30."]
_HEADS = weighted(
    (6, st.sampled_from([b"sign", b"hook"])),
    (2, st.sampled_from(_OTHERS)),
    (2, st.dictionaries(st.sampled_from(_CLAIMS), ODD, max_size=3).map(_claims)),
    (1, st.binary(max_size=30).map(lambda head: head.replace(b"\n", b""))),
)
_BODY: st.SearchStrategy[object] = weighted((6, _EVENT), (1, ODD))

DOCUMENTS = st.builds(
    lambda head, event: head + b"\n" + json.dumps(event).encode(),
    _HEADS,
    st.one_of(_EVENT, _EVENT, _EVENT, ODD),
)

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
    *(event.encode() for event in WEBHOOK_EVENTS),
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
