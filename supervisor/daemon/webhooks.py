"""Webhooks are hints: a genuine one wakes its room, and that is all it can do."""

from __future__ import annotations

import time
from collections.abc import Callable

from supervisor.config import Settings
from supervisor.events import EventBus, WebhookOutcome, WebhookReceived
from supervisor.livekit.webhook import WebhookReceiver


class WebhookIntake:
    """Implements :class:`supervisor.endpoints.ports.WebhookSink`."""

    def __init__(
        self, receiver: WebhookReceiver, bus: EventBus, notice: Callable[[str, str, str], None]
    ) -> None:
        self._receiver = receiver
        self._bus = bus
        self._notice = notice

    def receive(self, body: bytes, authorization: str | None) -> WebhookOutcome:
        webhook = self._receiver.receive(body, authorization, time.time())
        self._bus.publish(
            WebhookReceived(event=webhook.event, outcome=webhook.outcome, dropped=webhook.num_dropped)
        )
        if webhook.outcome is WebhookOutcome.ACCEPTED and webhook.room:
            self._notice(webhook.event, webhook.room, webhook.room_sid or "")
        return webhook.outcome


def webhook_keys(settings: Settings) -> dict[str, str]:
    """API keys that may sign webhooks, and their secrets."""
    livekit = settings.livekit
    keys = {livekit.api_key: livekit.api_secret.get_secret_value()}
    if livekit.webhook_api_key and livekit.webhook_api_secret is not None:
        keys[livekit.webhook_api_key] = livekit.webhook_api_secret.get_secret_value()
    return keys
