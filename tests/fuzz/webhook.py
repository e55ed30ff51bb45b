"""A webhook: any body under any authorization is an outcome, and only what is signed wakes a room.

The first line is the authorization, the rest the body.  ``sign``, ``hook`` and ``wrong`` stand for a right
token of either key and one of another secret; ``claims {…}`` for a token of ours with those claims.
``@NOW@`` in the body is the time.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import time
from datetime import timedelta

import jwt
from livekit.api import AccessToken

from supervisor.daemon.webhooks import WebhookIntake
from supervisor.events import OTHER_EVENT, WEBHOOK_EVENTS, Event, EventBus, WebhookOutcome, WebhookReceived
from supervisor.livekit.webhook import LARGEST_BODY, WebhookReceiver
from supervisor.metrics.subscriber import Metrics
from tests.fuzz.checks import hold, soon

KEYS = {
    "livekit-key": "livekit-secret-0123456789abcdef0123456789",
    "webhook-key": "webhook-secret-0123456789abcdef0123456789",
}
KEY, HOOK_KEY = KEYS
ANOTHER_SECRET = "another-secret-0123456789abcdef0123456789"
MAX_AGE = 300.0
_ACCEPTED = (WebhookOutcome.ACCEPTED, WebhookOutcome.REPEATED)


def webhook(data: bytes) -> None:
    head, _, body = data.partition(b"\n")
    body = body.replace(b"@NOW@", str(int(time.time())).encode())
    authorization, ours = _authorization(head, body)
    intake = _Intake()
    with soon():
        first = intake.receive(body, authorization)
        second = intake.receive(body, authorization)
    refused = WebhookOutcome.OVERSIZED if len(body) > LARGEST_BODY else WebhookOutcome.UNSIGNED
    hold(ours or first is refused, "a stranger's was", first)
    if first is WebhookOutcome.ACCEPTED:
        hold(second is WebhookOutcome.REPEATED, "the same again was", second)
        hold(len(intake.woken) <= 1, "woke", intake.woken)
    else:
        hold(second is first, "judged in two ways:", first, second)
        hold(not intake.woken, "woke a room though it was", first)


def _authorization(head: bytes, body: bytes) -> tuple[str | None, bool]:
    """And whether it is signed by one of our secrets, whatever it says."""
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    kind, _, rest = head.partition(b" ")
    if kind == b"sign":
        return _token(KEY, KEYS[KEY], digest), True
    if kind == b"hook":
        return "Bearer " + _token(HOOK_KEY, KEYS[HOOK_KEY], digest), True
    if kind == b"wrong":
        return _token(KEY, ANOTHER_SECRET, digest), False
    if kind == b"claims":
        return jwt.encode({"iss": KEY, "sha256": digest, **_claims(rest)}, KEYS[KEY]), True
    return (head.decode("latin-1") if head else None), False


def _claims(text: bytes) -> dict[str, object]:
    try:
        claims = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    claims = claims if isinstance(claims, dict) else {}
    # What the library that signs refuses to sign is nothing that could come in.
    return {k: v for k, v in claims.items() if k != "iss" or isinstance(v, str)}


def _token(key: str, secret: str, digest: str) -> str:
    return AccessToken(key, secret).with_sha256(digest).with_ttl(timedelta(minutes=5)).to_jwt()


class _Intake:
    """The daemon's, with what it publishes checked and counted."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        bus = EventBus()
        bus.subscribe(_metrics())
        bus.subscribe(_check)
        self.receive = WebhookIntake(WebhookReceiver(KEYS, MAX_AGE), bus, self._notice).receive

    def _notice(self, _event: str, room: str, _sid: str) -> None:
        hold(bool(room), "a room without a name")
        room.encode()
        self.woken.append(room)


def _check(event: Event) -> None:
    assert isinstance(event, WebhookReceived)
    hold(event.event in {*WEBHOOK_EVENTS, OTHER_EVENT}, "a name without bounds:", event.event)
    hold(event.outcome in _ACCEPTED or event.dropped == 0, "counts what is not accepted:", event)


@functools.cache
def _metrics() -> Metrics:
    return Metrics(["a"])
