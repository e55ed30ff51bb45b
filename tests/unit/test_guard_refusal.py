"""Why LiveKit does not register a worker, as the log of livekit-agents has it, old and new."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from agent_guard.refusal import LOGGER, ConnectFailures, reason_of


def refused(status: int) -> aiohttp.WSServerHandshakeError:
    url = URL("ws://host/agent?worker_token=secret")
    request = aiohttp.RequestInfo(url, "GET", CIMultiDictProxy(CIMultiDict()), url)
    return aiohttp.WSServerHandshakeError(request, (), status=status, message="Invalid response status")


@pytest.fixture
def told() -> Iterator[list[str]]:
    reasons: list[str] = []
    handler = ConnectFailures(reasons.append)
    logger = logging.getLogger(LOGGER)
    level = logger.level
    logger.setLevel(logging.WARNING)  # others in this process may have silenced its parent
    logger.addHandler(handler)
    yield reasons
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_both_ways_in_which_versions_log_it_are_read(told: list[str]) -> None:
    logger = logging.getLogger(LOGGER)
    logger.warning("failed to connect to livekit, retrying in 0s", exc_info=refused(401))
    logger.warning("failed to connect to livekit, retrying in 2s", extra={"error": refused(503)})
    logger.warning("failed to connect to livekit, retrying in 4s")
    logger.warning("something else", exc_info=refused(401))
    assert told == [
        "LiveKit answered 401: the API key or secret is refused",
        "LiveKit answered 503: it does not take workers",
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            aiohttp.InvalidURL("ws://me:word@host/agent?worker_token=secret"),
            "LiveKit is not reached: ws://host/agent",
        ),
        (TimeoutError(), "TimeoutError"),
        (
            ConnectionRefusedError(111, "Connection refused"),
            "LiveKit is not reached: [Errno 111] Connection refused",
        ),
    ],
)
def test_nothing_secret_of_an_address_is_told(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason
