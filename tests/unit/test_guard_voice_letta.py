"""The voice agent's text answers from Letta, against an HTTP server that speaks Letta's part."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import voice

MESSAGES = [
    {"message_type": "reasoning_message", "reasoning": "they greet me"},
    {"message_type": "assistant_message", "content": "hello"},
    {"message_type": "assistant_message", "content": "there"},
]


class Letta(HTTPServer):
    asked: list[tuple[str, str | None, object]]


class _Handler(BaseHTTPRequestHandler):
    server: Letta

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        answer = json.dumps({"messages": MESSAGES}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def letta() -> Iterator[Letta]:
    server = Letta(("127.0.0.1", 0), _Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_agents_words_come_back_and_its_thoughts_do_not(
    letta: Letta, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETTA_API_KEY", "key")
    url = f"http://127.0.0.1:{letta.server_port}/v1/agents/a/messages"
    assert voice.ask_letta(url, "good morning") == "hello\nthere"
    [(path, authorization, body)] = letta.asked
    assert (path, authorization) == ("/v1/agents/a/messages", "Bearer key")
    assert body == {"messages": [{"role": "user", "content": "good morning"}]}


def test_the_greeting_is_long_enough_to_hear_and_never_clips() -> None:
    samples = [sample for frame in voice.greeting() for sample in frame.data]
    assert 1.0 < len(samples) / voice.RATE < 2.0
    assert 5_000 < max(samples) < 32_000
