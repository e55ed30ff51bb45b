"""A worker's own health endpoint: livekit-agents answers 200 on ``/``, or 503 with what is wrong with it.

The rule: only a 5xx answer is a complaint.  No answer at all is unknown here; heartbeats tell what hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp

LONGEST_COMPLAINT = 200
"""Characters of an answer that are read and told."""


class NoAnswer(Exception):
    """Refused, too slow, or no HTTP."""


async def complaints(ports: Mapping[str, int], timeout: float) -> dict[str, str | None]:
    """Ask all at once: the key of ``ports`` → None for well, else the complaint; no key for no answer.

    ``timeout`` is in seconds, for each of them.
    """
    if not ports:
        return {}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout)) as session:
        answers = await asyncio.gather(
            *(_ask(session, port) for port in ports.values()), return_exceptions=True
        )
    told: dict[str, str | None] = {}
    for key, answer in zip(ports, answers, strict=True):
        if isinstance(answer, BaseException):
            if not isinstance(answer, NoAnswer):
                raise answer
        else:
            told[key] = answer
    return told


async def _ask(session: aiohttp.ClientSession, port: int) -> str | None:
    """Raises :class:`NoAnswer`."""
    try:
        async with session.get(f"http://127.0.0.1:{port}/", allow_redirects=False) as response:
            if response.status < 500:
                return None
            text = await response.content.read(LONGEST_COMPLAINT)
            return f"{response.status} {text.decode('utf-8', 'replace')}".strip()
    except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
        raise NoAnswer(str(error)) from error
