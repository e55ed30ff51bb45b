"""Code of the script's own to run when the conversation starts anew.

One rule: a hook that fails is logged and hurts nothing else.

A script may import ``agent_guard`` and call ``agent_guard.on_reset(ctx, fn)``, or, to run without the
guard as well, append ``fn`` to ``ctx.proc.userdata.setdefault("agent_guard.on_reset", [])``.
``fn()`` may be a coroutine function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent_guard import log

if TYPE_CHECKING:
    from livekit.agents import JobContext

KEY = "agent_guard.on_reset"


def on_reset(ctx: JobContext, fn: Callable[[], Any]) -> None:
    """Call ``fn`` each time this job goes on with a human who came back."""
    ctx.proc.userdata.setdefault(KEY, []).append(fn)


async def run_reset_hooks(ctx: JobContext) -> None:
    for fn in list(ctx.proc.userdata.get(KEY, ())):
        try:
            result = fn()
            if inspect.isawaitable(result):
                await result
        except Exception:  # the script's code: anything may come out of it
            log.logger.exception(log.HOOK_FAILED)
