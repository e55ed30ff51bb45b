"""The same agent as an unsupervised worker runs it: ``python bare_voice.py start``, under the name given."""

from __future__ import annotations

import os

from livekit.agents import cli
from steady_voice import server

if __name__ == "__main__":
    server._agent_name = os.environ["BARE_AGENT_NAME"]
    server._host, server._port = "127.0.0.1", 0
    cli.run_app(server)
