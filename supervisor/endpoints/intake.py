"""``POST /livekit/webhook``: the body is read within bounds of size and time, and judged elsewhere.

The rule: LiveKit is never answered 5xx or 429, which would make it send the same again; what a webhook
could not tell, the next resync finds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web

from supervisor.endpoints.ports import WebhookSink
from supervisor.events import EventBus, InternalError, WebhookOutcome, WebhookReceived

PATH = "/livekit/webhook"
LARGEST_BODY = 1024 * 1024
BODY_SECONDS = 5.0

STATUS: Mapping[WebhookOutcome, int] = {
    WebhookOutcome.ACCEPTED: 200,
    WebhookOutcome.REPEATED: 200,
    WebhookOutcome.UNSIGNED: 401,
    WebhookOutcome.MALFORMED: 400,
    WebhookOutcome.STALE: 400,
    WebhookOutcome.OVERSIZED: 413,
}


class Intake:
    """:meth:`handle` is the handler."""

    def __init__(self, sink: WebhookSink, bus: EventBus) -> None:
        self._sink = sink
        self._bus = bus

    async def handle(self, request: web.Request) -> web.Response:
        body = await _body(request)
        if isinstance(body, WebhookOutcome):
            outcome = body
            self._bus.publish(WebhookReceived(event="other", outcome=outcome))
        else:
            outcome = self._judge(body, request.headers.get("Authorization"))
        response = web.Response(status=STATUS[outcome], text=f"{outcome}\n")
        if outcome is not WebhookOutcome.ACCEPTED and outcome is not WebhookOutcome.REPEATED:
            response.force_close()
        return response

    def _judge(self, body: bytes, authorization: str | None) -> WebhookOutcome:
        try:
            return self._sink.receive(body, authorization)
        except Exception as error:  # ours to know, not LiveKit's to repeat
            self._bus.publish(InternalError.of("webhook", error))
            return WebhookOutcome.ACCEPTED


async def _body(request: web.Request) -> bytes | WebhookOutcome:
    """The whole body, or why there is none."""
    if (request.content_length or 0) > LARGEST_BODY:
        return WebhookOutcome.OVERSIZED
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > LARGEST_BODY:
                    return WebhookOutcome.OVERSIZED
    except Exception:  # too slow, cut off, wrongly encoded: a body can break in many ways, and all mean this
        return WebhookOutcome.MALFORMED
    return bytes(body)
