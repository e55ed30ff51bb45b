"""LiveKit's webhooks: who sent this, and which room does it speak of?

One rule: whatever comes in, the answer is an outcome.  Nothing is raised, nothing is done here, and only
an accepted event names a room, so that nobody is woken by another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.json_format import ParseError
from jwt import ExpiredSignatureError, ImmatureSignatureError
from livekit import api
from livekit.protocol.webhook import WebhookEvent

from supervisor.core.model import ParticipantKind
from supervisor.events import OTHER_EVENT, WEBHOOK_EVENTS, WebhookOutcome
from supervisor.livekit.messages import kind_of

LARGEST_BODY = 1024 * 1024
REMEMBERED_IDS = 10_000
"""LiveKit repeats within minutes; at a thousand events a second this still covers its first attempts."""

_LONGEST_ID = 256


@dataclass(frozen=True, slots=True)
class Webhook:
    """What came in.  All but ``outcome``, ``event`` and ``id`` is told of accepted events only."""

    outcome: WebhookOutcome
    event: str = OTHER_EVENT
    """LiveKit's name for it, where it is known; the sender's word counts only once it is proven."""
    id: str = ""
    room: str | None = None
    room_sid: str | None = None
    participant_identity: str | None = None
    participant_kind: ParticipantKind | None = None
    num_dropped: int = 0
    """Events that LiveKit lost before this one."""


class WebhookReceiver:
    """Checks signature, body hash and age; remembers the IDs of the latest accepted events."""

    def __init__(self, keys: Mapping[str, str], max_age: float) -> None:
        verifiers = [api.TokenVerifier(key, secret) for key, secret in keys.items() if key and secret]
        self._receivers = [api.WebhookReceiver(verifier) for verifier in verifiers]
        self._max_age = max_age
        self._seen: OrderedDict[str, None] = OrderedDict()

    def receive(self, body: bytes, authorization: str | None, now_wall: float) -> Webhook:
        if len(body) > LARGEST_BODY:
            return Webhook(WebhookOutcome.OVERSIZED)
        event = self._verified(body, (authorization or "").removeprefix("Bearer ").strip())
        if isinstance(event, WebhookOutcome):
            return Webhook(event)
        outcome = self._judge(event, now_wall)
        name = event.event if event.event in WEBHOOK_EVENTS else OTHER_EVENT
        if outcome is not WebhookOutcome.ACCEPTED:
            return Webhook(outcome, name, event.id[:_LONGEST_ID])
        return _accepted(event, name)

    def _verified(self, body: bytes, token: str) -> WebhookEvent | WebhookOutcome:
        """The event, if one of our keys signed it.  Each key accepts only tokens that it issued."""
        if not token:
            return WebhookOutcome.UNSIGNED
        for receiver in self._receivers:
            try:
                return receiver.receive(body.decode(), token)
            except ParseError:  # signature and hash were right
                return WebhookOutcome.MALFORMED
            except (ExpiredSignatureError, ImmatureSignatureError):  # the signature was right
                return WebhookOutcome.STALE
            except Exception:  # the library raises bare ones; the caller publishes the outcome
                continue
        return WebhookOutcome.UNSIGNED

    def _judge(self, event: WebhookEvent, now_wall: float) -> WebhookOutcome:
        if not 0 < len(event.id) <= _LONGEST_ID:
            return WebhookOutcome.MALFORMED
        if abs(now_wall - event.created_at) > self._max_age:
            return WebhookOutcome.STALE
        if event.id in self._seen:
            self._seen.move_to_end(event.id)
            return WebhookOutcome.REPEATED
        self._seen[event.id] = None
        if len(self._seen) > REMEMBERED_IDS:
            self._seen.popitem(last=False)
        return WebhookOutcome.ACCEPTED


def _accepted(event: WebhookEvent, name: str) -> Webhook:
    somebody = event.HasField("participant")
    return Webhook(
        WebhookOutcome.ACCEPTED,
        name,
        event.id,
        room=event.room.name or None,
        room_sid=event.room.sid or None,
        participant_identity=event.participant.identity if somebody else None,
        participant_kind=kind_of(event.participant) if somebody else None,
        num_dropped=event.num_dropped,
    )
