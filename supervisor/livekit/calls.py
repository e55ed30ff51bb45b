"""One request to LiveKit's server API: with a time-out that holds, tried once, its outcome told.

One rule: whatever happens, the answer is a message or :class:`Failed`; only cancellation is raised.

livekit-api hands aiohttp ``timeout=None`` for every call of its services, which overrides a session's
own time-outs; its client one level below takes them per request, so that one is used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from google.protobuf.message import Message
from livekit.api import AccessToken, ServerError, VideoGrants
from livekit.api.twirp_client import ServerErrorCode, TwirpClient

from supervisor.core.ports import Failed, RequestOutcome
from supervisor.events import EventBus, LiveKitRequest

CONCURRENCY = 64
"""Requests at a time that never wait for one another."""
TOKEN_SECONDS = 600.0
"""A token is used again for so long; it is valid for hours."""
TOKENS_KEPT = 16_384
"""Half a kilobyte each, so that a resync of ten thousand rooms does not sign anew."""

_SCHEMES = ("http://", "https://", "ws://", "wss://")
_PROTOBUF = "application/protobuf"
_LONGEST_MESSAGE = 200

_BY_CODE = {
    ServerErrorCode.NOT_FOUND: RequestOutcome.NOT_FOUND,
    ServerErrorCode.UNAUTHENTICATED: RequestOutcome.UNAUTHORIZED,
    ServerErrorCode.PERMISSION_DENIED: RequestOutcome.UNAUTHORIZED,
    ServerErrorCode.DEADLINE_EXCEEDED: RequestOutcome.TIMEOUT,
    ServerErrorCode.UNAVAILABLE: RequestOutcome.UNAVAILABLE,
    ServerErrorCode.RESOURCE_EXHAUSTED: RequestOutcome.UNAVAILABLE,
}
# A 404 without LiveKit's own code comes from something else under this address: no word about a room.
_BY_STATUS = {
    401: RequestOutcome.UNAUTHORIZED,
    403: RequestOutcome.UNAUTHORIZED,
    429: RequestOutcome.UNAVAILABLE,
    502: RequestOutcome.UNAVAILABLE,
    503: RequestOutcome.UNAVAILABLE,
    504: RequestOutcome.UNAVAILABLE,
}

T = TypeVar("T", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[T]):
    """One method of the API.  ``label`` is its name in metrics."""

    label: str
    service: str
    name: str
    answer: type[T]
    grants: Callable[[str], VideoGrants]


class NotLiveKit(aiohttp.ClientError):
    """Something answered 200, but not in LiveKit's format; an empty body would read as "nothing there"."""


class Calls:
    """Sends requests over one pool of connections, made in the running loop at the first call."""

    def __init__(self, url: str, key: str, secret: str, timeout: float, bus: EventBus) -> None:
        if not url.startswith(_SCHEMES):
            raise ValueError("the URL of LiveKit must start with ws://, wss://, http:// or https://")
        self._url = _without_user(url)
        self._key = key
        self._secret = secret
        self._timeout = timeout
        self._bus = bus
        self._session: aiohttp.ClientSession | None = None
        self._tokens: dict[tuple[Callable[[str], VideoGrants], str], tuple[str, float]] = {}
        self._limits = aiohttp.ClientTimeout(
            total=timeout, connect=timeout, sock_connect=timeout, sock_read=timeout
        )

    async def call(self, method: Method[T], request: Message, room: str = "") -> T | Failed:
        started = time.monotonic()
        answer = await self._attempt(method, request, room)
        failure = answer if isinstance(answer, Failed) else None
        self.publish(method, failure, time.monotonic() - started)
        return answer

    def publish(self, method: Method[T], failure: Failed | None, seconds: float) -> None:
        self._bus.publish(
            LiveKitRequest(
                method=method.label,
                outcome=failure.outcome if failure else RequestOutcome.OK,
                seconds=seconds,
                error=failure.message if failure else "",
            )
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _attempt(self, method: Method[T], request: Message, room: str) -> T | Failed:
        try:
            # aiohttp rounds up what is longer than 5 s: this one is exact, and the last word.
            async with asyncio.timeout(self._timeout):
                headers = self._headers(method, room)
                return await self._client().request(
                    method.service, method.name, request, headers, method.answer, timeout=self._limits
                )
        except TimeoutError:
            return Failed(RequestOutcome.TIMEOUT, f"no answer within {self._timeout:g} s")
        except ServerError as error:
            failed = _refused(error)
            if failed.outcome is RequestOutcome.UNAUTHORIZED:
                self._tokens.clear()  # made while our clock was wrong, perhaps
            return failed
        except (NotLiveKit, aiohttp.InvalidURL) as error:
            return Failed(RequestOutcome.ERROR, _text(error))
        except (aiohttp.ClientError, OSError) as error:
            return Failed(RequestOutcome.UNAVAILABLE, _text(error))
        except Exception as error:  # the library names no others, and none may be raised
            return Failed(RequestOutcome.ERROR, _text(error))

    def _client(self) -> TwirpClient:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Each of 64 looks makes two calls, and each of those may ask whether its room exists;
                # the question whether LiveKit is there must wait for none of them.
                connector=aiohttp.TCPConnector(limit=5 * CONCURRENCY, ttl_dns_cache=10),
                cookie_jar=aiohttp.DummyCookieJar(),
                raise_for_status=_require_protobuf,
            )
        # Failover would try three times, and a write might happen as often.
        return TwirpClient(self._session, self._url, "livekit", failover=False)

    def _headers(self, method: Method[T], room: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token(method.grants, room)}"}

    def _token(self, grants: Callable[[str], VideoGrants], room: str) -> str:
        """Signing is a quarter of a request's cost, and a look at a room asks twice with the same rights."""
        now = time.monotonic()
        token, until = self._tokens.get((grants, room), ("", 0.0))
        if now >= until:
            token = AccessToken(self._key, self._secret).with_grants(grants(room)).to_jwt()
            if len(self._tokens) >= TOKENS_KEPT:
                self._tokens.clear()
            self._tokens[grants, room] = token, now + TOKEN_SECONDS
        return token


def _without_user(url: str) -> str:
    """Errors name the address, and must not tell a password; LiveKit is asked with a token anyway."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


async def _require_protobuf(response: aiohttp.ClientResponse) -> None:
    """aiohttp asks this of every answer, before its body is read."""
    if response.status == 200 and response.content_type != _PROTOBUF:
        raise NotLiveKit(f"the answer is {response.content_type}, not LiveKit's {_PROTOBUF}")


def _refused(error: ServerError) -> Failed:
    outcome = _BY_CODE.get(error.code) or _BY_STATUS.get(error.status, RequestOutcome.ERROR)
    said = ": ".join(part for part in (error.code, error.message) if part)
    return Failed(outcome, f"status {error.status}, {said}"[:_LONGEST_MESSAGE])


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_LONGEST_MESSAGE]
