"""Development mode: a LiveKit server of our own on loopback, supervised like a worker.

The rule: it is ours only if it holds its lock; anybody else on its port is a stranger, and one message.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from supervisor.config import Settings
from supervisor.core.backoff import BackoffPolicy
from supervisor.core.worker_plan import WorkerPolicy
from supervisor.livekit import dev_server
from supervisor.reconcile.worker import AgentSpec

SERVER_ID = dev_server.PROCESS_ID
RTC_OFFSET = 2
"""Media over UDP, from the server's own port: 7880 and 7882, LiveKit's usual ones, by default."""


class Development:
    """The development server's specification."""

    def __init__(self, settings: Settings, program: Path) -> None:
        self._settings = settings
        self._program = program
        self.port = dev_server.server_port(settings.livekit.url)

    @classmethod
    def prepare(cls, settings: Settings) -> Development:
        """Find the program, or build it.  Raises :class:`supervisor.livekit.dev_server.DevServerError`."""
        return cls(settings, dev_server.find_server(os.environ, _tell))

    def require_free_ports(self) -> None:
        """To be asked only when no server of ours is there.  Raises DevServerError."""
        dev_server.require_free(self.port)
        dev_server.require_free(self.port + RTC_OFFSET, socket.SOCK_DGRAM)

    def spec(self) -> AgentSpec:
        settings = self._settings
        livekit = settings.livekit
        key, secret = livekit.api_key, livekit.api_secret.get_secret_value()
        keys = {key: secret}
        listen = settings.http.webhook_listen or settings.http.listen
        text = dev_server.render_config(
            port=self.port,
            keys=keys,
            rtc_port=self.port + RTC_OFFSET,
            webhook_urls=[f"http://{listen.host}:{listen.port}/livekit/webhook"],
            webhook_key=key,
        )
        config = settings.paths.state / "livekit-server.yaml"
        dev_server.write_config(config, text)
        return AgentSpec(
            id=SERVER_ID,
            name="",
            rooms=(),
            max_rooms=0,
            policy=_POLICY,
            process=dev_server.process_spec(
                program=self._program,
                config=config,
                config_text=text,
                state=settings.paths.state,
                log=settings.paths.logs / f"{SERVER_ID}.log",
                environ=os.environ,
            ),
            is_agent=False,
        )


_POLICY = WorkerPolicy(
    backoff=BackoffPolicy(initial=0.2, factor=2.0, max=5.0),
    stable_after=5.0,
    startup_timeout=30.0,
    heartbeat_timeout=30.0,
    drain=0.0,
    kill=1.0,  # on SIGTERM it would wait for participants
    guarded=False,
)


def banner(settings: Settings, write: Callable[[str], None]) -> None:
    """Where to look, and what to try."""
    http = settings.http.listen
    base = f"http://{http.host}:{http.port}"
    agents = ", ".join(agent.name or agent.id for agent in settings.agents)
    write(
        "\n".join(
            (
                "",
                f"  livekit-supervisor watches over {agents or 'no agent yet'}  (development mode)",
                "",
                f"  status page   {base}/",
                f"  metrics       {base}/metrics",
                f"  ready?        {base}/readyz",
                f"  LiveKit       {settings.livekit.url}",
                f"  logs          {settings.paths.logs}",
                "",
                "  try, in another terminal:",
                "    make demo                                     break a call four times, see it heal",
                "    .venv/bin/livekit-supervisor status --watch   what is going on",
                "",
                "  Ctrl-C ends everything.",
                "",
            )
        )
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
