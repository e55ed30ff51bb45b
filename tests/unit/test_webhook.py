"""Webhooks: DESIGN's table of outcomes, and no input that raises."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from datetime import timedelta

import jwt
import pytest
from google.protobuf.json_format import MessageToJson
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.api import AccessToken
from livekit.protocol.models import ParticipantInfo
from livekit.protocol.webhook import WebhookEvent

from supervisor.core.model import ParticipantKind
from supervisor.events import OTHER_EVENT, WEBHOOK_EVENTS, WebhookOutcome
from supervisor.livekit import webhook as webhook_module
from supervisor.livekit.webhook import LARGEST_BODY, WebhookReceiver

KEY, SECRET = "livekit-key", "livekit-secret-0123456789abcdef0123456789"
HOOK_KEY, HOOK_SECRET = "webhook-key", "webhook-secret-0123456789abcdef0123456789"
MAX_AGE = 300.0


def event_body(
    *, id: str = "EV_1", event: str = "participant_joined", age: float = 0.0, dropped: int = 0
) -> bytes:
    message = WebhookEvent(id=id, event=event, created_at=int(time.time() - age), num_dropped=dropped)
    message.room.name = "lobby"
    message.room.sid = "RM_1"
    message.participant.identity = "agent-AJ_1"
    message.participant.kind = ParticipantInfo.Kind.AGENT
    return MessageToJson(message).encode()


def token_for(
    body: bytes, key: str = KEY, secret: str = SECRET, ttl: timedelta = timedelta(minutes=5)
) -> str:
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    return AccessToken(key, secret).with_sha256(digest).with_ttl(ttl).to_jwt()


@pytest.fixture
def receiver() -> WebhookReceiver:
    return WebhookReceiver({KEY: SECRET, HOOK_KEY: HOOK_SECRET}, MAX_AGE)


def receive(receiver: WebhookReceiver, body: bytes, token: str | None = None) -> WebhookOutcome:
    return receiver.receive(body, token_for(body) if token is None else token, time.time()).outcome


def test_accepted_event_tells_room_and_participant(receiver: WebhookReceiver) -> None:
    body = event_body(dropped=3)
    webhook = receiver.receive(body, token_for(body), time.time())
    assert webhook.outcome is WebhookOutcome.ACCEPTED
    assert (webhook.event, webhook.id, webhook.num_dropped) == ("participant_joined", "EV_1", 3)
    assert (webhook.room, webhook.room_sid) == ("lobby", "RM_1")
    assert (webhook.participant_identity, webhook.participant_kind) == ("agent-AJ_1", ParticipantKind.AGENT)


def test_room_event_has_no_participant(receiver: WebhookReceiver) -> None:
    message = WebhookEvent(id="EV_1", event="room_started", created_at=int(time.time()))
    message.room.name = "lobby"
    body = MessageToJson(message).encode()
    webhook = receiver.receive(body, token_for(body), time.time())
    assert (webhook.room, webhook.participant_identity, webhook.participant_kind) == ("lobby", None, None)


@pytest.mark.parametrize(("key", "secret"), [(KEY, SECRET), (HOOK_KEY, HOOK_SECRET)])
def test_either_key_signs(receiver: WebhookReceiver, key: str, secret: str) -> None:
    body = event_body()
    assert receive(receiver, body, token_for(body, key, secret)) is WebhookOutcome.ACCEPTED


def test_authorization_may_say_bearer(receiver: WebhookReceiver) -> None:
    body = event_body()
    assert receive(receiver, body, f"Bearer {token_for(body)}") is WebhookOutcome.ACCEPTED


def no_token(body: bytes) -> str:
    return ""


def another_secret(body: bytes) -> str:
    return token_for(body, KEY, "another-secret-0123456789abcdef0123456789")


def secret_of_the_other_key(body: bytes) -> str:
    return token_for(body, KEY, HOOK_SECRET)


def unknown_key(body: bytes) -> str:
    return token_for(body, "unknown-key", SECRET)


def token_of_another_body(body: bytes) -> str:
    return token_for(body + b" ")


def token_without_hash(body: bytes) -> str:
    return AccessToken(KEY, SECRET).to_jwt()


def token_without_signature(body: bytes) -> str:
    head, payload, _ = token_for(body).split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    assert head != none
    return f"{none}.{payload}."


@pytest.mark.parametrize(
    "forge",
    [
        no_token,
        another_secret,
        secret_of_the_other_key,
        unknown_key,
        token_of_another_body,
        token_without_hash,
        token_without_signature,
    ],
)
def test_unsigned(receiver: WebhookReceiver, forge: Callable[[bytes], str]) -> None:
    body = event_body()
    webhook = receiver.receive(body, forge(body), time.time())
    assert webhook.outcome is WebhookOutcome.UNSIGNED
    assert (webhook.room, webhook.event, webhook.id) == (None, OTHER_EVENT, "")
    assert receive(receiver, body) is WebhookOutcome.ACCEPTED, "a forged event must not use up the ID"


def test_no_authorization_at_all(receiver: WebhookReceiver) -> None:
    assert receiver.receive(event_body(), None, time.time()).outcome is WebhookOutcome.UNSIGNED


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"event": 7}', event_body(id="")])
def test_malformed_though_signed(receiver: WebhookReceiver, body: bytes) -> None:
    assert receive(receiver, body) is WebhookOutcome.MALFORMED


def test_fields_of_a_later_version_are_ignored(receiver: WebhookReceiver) -> None:
    body = json.dumps(json.loads(event_body()) | {"somethingNew": {"a": 1}}).encode()
    assert receive(receiver, body) is WebhookOutcome.ACCEPTED


@pytest.mark.parametrize("age", [MAX_AGE + 5, -MAX_AGE - 5])
def test_stale_when_too_old_or_from_the_far_future(receiver: WebhookReceiver, age: float) -> None:
    body = event_body(age=age)
    webhook = receiver.receive(body, token_for(body), time.time())
    assert webhook.outcome is WebhookOutcome.STALE
    assert (webhook.event, webhook.room) == ("participant_joined", None)


def test_stale_when_the_token_has_run_out(receiver: WebhookReceiver) -> None:
    body = event_body()
    assert receive(receiver, body, token_for(body, ttl=timedelta(minutes=-5))) is WebhookOutcome.STALE


def test_repeated_is_told_once_and_wakes_nobody(receiver: WebhookReceiver) -> None:
    body = event_body()
    assert receive(receiver, body) is WebhookOutcome.ACCEPTED
    again = receiver.receive(body, token_for(body), time.time())
    assert (again.outcome, again.event, again.room) == (WebhookOutcome.REPEATED, "participant_joined", None)


def test_memory_is_bounded(receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_module, "REMEMBERED_IDS", 3)
    bodies = [event_body(id=f"EV_{n}") for n in range(5)]
    assert {receive(receiver, body) for body in bodies} == {WebhookOutcome.ACCEPTED}
    assert len(receiver._seen) == 3
    assert receive(receiver, bodies[4]) is WebhookOutcome.REPEATED
    assert receive(receiver, bodies[0]) is WebhookOutcome.ACCEPTED


def test_oversized(receiver: WebhookReceiver) -> None:
    assert receive(receiver, b" " * (LARGEST_BODY + 1)) is WebhookOutcome.OVERSIZED
    at_the_limit = event_body() + b" " * (LARGEST_BODY - len(event_body()))
    assert receive(receiver, at_the_limit) is WebhookOutcome.ACCEPTED


@pytest.mark.parametrize(
    ("sent", "told"), [*((name, name) for name in WEBHOOK_EVENTS), ("brand_new", OTHER_EVENT)]
)
def test_event_names(receiver: WebhookReceiver, sent: str, told: str) -> None:
    body = event_body(event=sent)
    assert receiver.receive(body, token_for(body), time.time()).event == told


def test_without_keys_everything_is_unsigned() -> None:
    assert receive(WebhookReceiver({"": ""}, MAX_AGE), event_body()) is WebhookOutcome.UNSIGNED


# --- any input at all ---------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
event_fields = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("id", "event", "createdAt", "created_at", "room", "participant", "numDropped", "track"), json_values
    ),
)
signed_bodies = st.one_of(
    st.binary(), json_values.map(json.dumps).map(str.encode), event_fields.map(json.dumps).map(str.encode)
)
bodies = st.one_of(st.binary(), st.just(event_body()), event_fields.map(json.dumps).map(str.encode))
segments = st.one_of(
    st.text(alphabet="abcdefXYZ0189-_=", max_size=40),
    json_values.map(lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")),
)
tokens = st.one_of(st.none(), st.text(), st.lists(segments, min_size=3, max_size=3).map(".".join))


@given(body=bodies, token=tokens)
def test_no_forgery_raises_or_is_accepted(body: bytes, token: str | None) -> None:
    webhook = WebhookReceiver({KEY: SECRET}, MAX_AGE).receive(body, token, time.time())
    assert webhook.outcome is WebhookOutcome.UNSIGNED
    assert webhook.room is None


@given(body=signed_bodies, now=st.floats(allow_nan=False, allow_infinity=False))
def test_nothing_signed_raises(body: bytes, now: float) -> None:
    webhook = WebhookReceiver({KEY: SECRET}, MAX_AGE).receive(body, token_for(body), now)
    assert webhook.outcome in WebhookOutcome
    assert webhook.event in {*WEBHOOK_EVENTS, OTHER_EVENT}


@given(
    claims=st.dictionaries(
        st.sampled_from(["video", "sip", "agent", "roomConfig", "sha256", "exp", "nbf", "iss"]), json_values
    )
)
@settings(max_examples=50)
def test_no_signed_token_raises(claims: dict[str, object]) -> None:
    body = event_body()
    token = jwt.encode(claims | {"iss": KEY}, SECRET, algorithm="HS256")
    webhook = WebhookReceiver({KEY: SECRET}, MAX_AGE).receive(body, token, time.time())
    assert webhook.outcome in {WebhookOutcome.UNSIGNED, WebhookOutcome.STALE, WebhookOutcome.MALFORMED}


def test_a_deep_token_does_not_raise(receiver: WebhookReceiver) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 100_000).decode()
    assert receive(receiver, event_body(), f"{deep}.{deep}.x") is WebhookOutcome.UNSIGNED
