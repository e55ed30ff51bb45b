"""Commands of our own, told to people to be typed.

One rule: they name the configuration that this command was given, so that they are about the same daemon.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

_OUR_COMMAND = re.compile(r"^((?:sudo )?)livekit-supervisor (?=[a-z])", re.MULTILINE)


def about(config: Path | None, commands: str) -> str:
    """``commands``, a line each, with the configuration in those of our own; as they are without one."""
    if config is None:
        return commands
    ours = f"livekit-supervisor --config {shlex.quote(str(config))} "
    return _OUR_COMMAND.sub(lambda match: match[1] + ours, commands)
