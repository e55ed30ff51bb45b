"""What an operator's command line asks for over the control socket, and other programs that found it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import strategies as st

from tests.fuzz.daemon import OURS, QUIET, TREE
from tests.fuzz.grammar.spoil import LONG, ODD, fields, weighted

_NAMES = ["start", "stop", "drain", "restart", "reload", "handoff", "dev-server"]
_STRANGE = [b"", b"..", b"../status", b"%00", b"a" * 9_000, b"\xff"]
_COMMANDS = weighted((5, st.sampled_from(_NAMES).map(str.encode)), (1, st.sampled_from(_STRANGE)))
_ARGUMENTS = fields(
    {"agent": st.sampled_from([OURS, OURS, TREE, QUIET, "livekit-server"])},
    {"drain": st.booleans(), "now": st.booleans()},
)
_BODIES = weighted(
    (5, _ARGUMENTS.map(lambda value: json.dumps(value).encode())),
    (1, ODD.map(lambda value: json.dumps(value).encode())),
    (1, st.sampled_from([b"", b" " * LONG])),
)
_SINCE = st.sampled_from(
    [b"0", b"1700000000.25", b"-1", b"nan", b"inf", b"1e999", b"yesterday", b"", b"1_0", "\u0663".encode()]
)
_LINES = st.sampled_from(
    [
        *(
            b"GET /v1/status HTTP/1.1",
            b"POST /v1/commands/stop HTTP/1.1",
            b"GET /v1/rooms HTTP/1.0",
            b"PRI * HTTP/2.0",
            b"HEAD / HTTP/1.1",
        ),
        *(
            b"Host: daemon",
            b"Content-Length: 2",
            b"Content-Length: -1",
            b"Transfer-Encoding: chunked",
            b"Expect: 100-continue",
        ),
        *(
            b"Upgrade: websocket",
            b"Connection: upgrade",
            b"Content-Type: application/json",
            b"Content-Encoding: gzip",
            b"A: " + b"a" * 9_000,
        ),
        *(b"", b"{}", b"2\r\n{}\r\n0\r\n", b"ffffffffffffffff"),
    ]
)
_REQUESTS = st.lists(_LINES, max_size=6).map(lambda lines: b"!" + b"\r\n".join([*lines, b"", b""]))

DOCUMENTS = weighted(
    (3, st.builds(lambda command, body: command + b"\n" + body, _COMMANDS, _BODIES)),
    (1, _SINCE.map(lambda since: b"?" + since)),
    (2, _REQUESTS),
)

WORDS: Sequence[bytes] = [
    *(name.encode() + b"\n" for name in _NAMES),
    *(
        b'{"agent":"ours"',
        b'"drain":true',
        b'"now":true',
        b"?",
        b"!GET /v1/status HTTP/1.1\r\n",
        b"!POST /v1/commands/stop HTTP/1.1\r\n",
    ),
    *(
        b"Content-Length: 2\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: daemon\r\n",
        b"\r\n\r\n",
        b"{}",
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
    ),
    *(b"null", b"NaN", b"1e999", b'"\\ud800"', b"\xff", b"\0", b"%2e%2e/", b"[" * 2_000),
]
