"""Why LiveKit does not register the worker: a wrong key, no route, no server.

livekit-agents tries again and again, and tells the reason to nobody but its log.  One rule: it is that
record that is read; where a version words it otherwise, the reason stays unknown and nothing else is lost.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

LOGGER = "livekit.agents"
WORDS = "failed to connect to livekit"

_ANSWERS = {
    401: "the API key or secret is refused",
    403: "the API key is not allowed to register workers",
    404: "no LiveKit server at this address",
}
# What may be secret in an address: who logs in, and what is asked for.
_PRIVATE = re.compile(r"(?<=//)[^/@\s]*@|\?[^\s'\"]*")


class ConnectFailures(logging.Handler):
    """On the logger of livekit-agents: hands each reason to ``told``, and lets the record go on."""

    def __init__(self, told: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        if not str(record.msg).startswith(WORDS):
            return
        error = getattr(record, "error", None) or (record.exc_info[1] if record.exc_info else None)
        if isinstance(error, BaseException):
            self._told(reason_of(error))


def reason_of(error: BaseException) -> str:
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return f"LiveKit answered {status}: {_ANSWERS.get(status, 'it does not take workers')}"
    cause = getattr(error, "os_error", None) or error
    return _PRIVATE.sub("", f"LiveKit is not reached: {cause}" if str(cause) else type(cause).__name__)
