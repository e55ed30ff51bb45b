"""Part *rooms*: second agents, resyncs, webhooks in numbers, and calls that heal."""

from __future__ import annotations

from tests.bench import healing, resync, second_agent, webhooks
from tests.bench.ground import Ground


async def run(ground: Ground) -> None:
    await second_agent.run(ground)
    await resync.run(ground)
    await webhooks.run(ground)
    await healing.run(ground)
