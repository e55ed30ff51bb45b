"""A daemon as the command line sees it: a real HTTP server on a real Unix socket, with documents to serve."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Document = dict[str, Any]

ECHO = "agent-4dfca708-49a8-4982-8e36-0f1146f9a66e"
SALES = "agent-4e11aa00-0000-4000-8000-000000000001"
NIGHT = "night-desk"


def agent(id: str, name: str | None, **changes: Any) -> Document:
    fresh: Document = {
        "id": id,
        "name": name,
        "want": "running",
        "state": "ready",
        "reason": None,
        "pid": 4211,
        "since": "2026-01-31T11:58:00Z",
        "ready": True,
        "restarts": 0,
        "jobs": 1,
        "memory_bytes": 254_803_968,
    }
    return {**fresh, **changes}


STATUS: Document = {
    "version": 1,
    "daemon": {"version": "0.1.0", "pid": 4200, "since": "2026-01-31T11:00:00Z", "mode": "production"},
    "livekit": {"url": "ws://127.0.0.1:7880", "up": True, "error": None},
    "agents": [agent(ECHO, "Agent_66"), agent(SALES, "Sales", pid=4300), agent(NIGHT, "", pid=4400, jobs=0)],
    "rooms": {"healthy": 2, "missing_agent": 0, "conflict": 0, "empty": 1, "unknown": 0},
    "problems": [],
}

PROBLEM: Document = {
    "severity": "error",
    "agent_id": SALES,
    "room": None,
    "message": "crash loop: exit code 1",
    "fix": f"livekit-supervisor logs {SALES}",
}

ROOMS: Document = {
    "version": 1,
    "rooms": [
        {
            "name": "lobby",
            "sid": "RM_1",
            "state": "healthy",
            "reason": None,
            "humans": 1,
            "agents": [{"identity": "agent-AJ_1", "agent_id": ECHO, "holder": True}],
            "claim": {"agent_id": ECHO, "job_id": "AJ_1", "epoch": 3},
        },
        {
            "name": "support",
            "sid": "RM_2",
            "state": "missing_agent",
            "reason": "no ready worker of Sales",
            "humans": 2,
            "agents": [],
            "claim": None,
        },
    ],
}

CONFLICTS: Document = {
    "version": 1,
    "conflicts": [
        {
            "time": "2026-01-31T11:59:00Z",
            "kind": "duplicate_agent",
            "resolution": "evicted",
            "room": "lobby",
            "agent_id": ECHO,
            "seconds": 0.012,
        }
    ],
}


class Daemon(ThreadingUnixStreamServer):
    """Answers like the control socket.  ``on_command`` may change the documents, as a command would."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.status: Document = copy.deepcopy(STATUS)
        self.rooms: Document = copy.deepcopy(ROOMS)
        self.conflicts: Document = copy.deepcopy(CONFLICTS)
        self.commands: list[tuple[str, Document]] = []
        self.queries: list[dict[str, list[str]]] = []
        self.on_command: Callable[[str, Document], Document | tuple[int, Document]] = lambda name, given: {
            "ok": True
        }
        self.then: list[tuple[str, Document]] = []
        """Changes of agents: one before each further look at the status, once a command was given."""
        self.silent = threading.Event()
        self.released = threading.Event()
        self.raw: bytes | None = None
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def agent(self, id: str) -> Document:
        return next(a for a in self.status["agents"] if a["id"] == id)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Daemon

    def do_GET(self) -> None:
        if self.server.silent.is_set():
            self.server.released.wait(20)
            return
        if self.server.raw is not None:
            self.wfile.write(self.server.raw)
            return
        target = urlsplit(self.path)
        if self.server.commands and self.server.then:
            id, changes = self.server.then.pop(0)
            self.server.agent(id).update(changes)
        self.server.queries.append(parse_qs(target.query))
        documents = {
            "/v1/status": self.server.status,
            "/v1/rooms": self.server.rooms,
            "/v1/conflicts": self.server.conflicts,
        }
        found = documents.get(target.path)
        self._answer(404 if found is None else 200, found or {"error": "no such page", "exit_code": 2})

    def do_POST(self) -> None:
        name = self.path.removeprefix("/v1/commands/")
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.commands.append((name, given))
        answer = self.server.on_command(name, given)
        self._answer(*(answer if isinstance(answer, tuple) else (200, answer)))

    def _answer(self, code: int, document: Document) -> None:
        body = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""
