"""Round after round: faults, then everything has to become well again.

One rule: the order of the faults depends on the seed alone, whatever they lead to.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from tests import leaks
from tests.chaos.faults import FAULTS, Fault, StillThere
from tests.chaos.report import Report, Round
from tests.chaos.witness import Witness
from tests.chaos.world import World, now, world

BEGIN_WITHIN = 30.0
TOGETHER = 0.25
"""Share of rounds with two faults at once."""
REMEMBERED = 120.0


def deal(rng: random.Random) -> Iterator[tuple[Fault, ...]]:
    """Every fault once, in some order, some in pairs; then again in another order, for ever."""
    while True:
        cards = list(FAULTS)
        rng.shuffle(cards)
        while cards:
            fault = cards.pop()
            partners = [card for card in cards if _go_together(fault, card)]
            if _needs_another(fault) and not partners:
                yield (fault, rng.choice([f for f in FAULTS if _go_together(fault, f)]))
            elif partners and (_needs_another(fault) or rng.random() < TOGETHER):
                cards.remove(partners[0])
                yield (fault, partners[0])
            else:
                yield (fault,)


def _go_together(one: Fault, other: Fault) -> bool:
    if one.alone or other.alone or one.befalls == other.befalls:
        return False
    return other.told if _needs_another(one) else one.told or not _needs_another(other)


def _needs_another(fault: Fault) -> bool:
    """Webhooks that get lost while there is nothing to tell are no loss."""
    return fault.befalls == "webhook"


async def run(folder: Path, minutes: float, seed: int, patience: float) -> Report:
    processes = leaks.Processes()
    processes.mark(folder)
    before = processes.all()
    report = Report(seed, minutes)
    async with world(folder, patience) as here:
        witness = Witness(here)
        async with _watching(witness):
            await _play(here, witness, report, seed)
        await here.end()
        await witness.rooms_empty()
        report.webhooks = {fate.value: count for fate, count in here.stand.relay.fates.items()}
    witness.daemon_had_no_defect()
    for left in leaks.end(processes.all() - before, grace=5):
        witness.breaks(f"a process was left: {left}")
    report.broken = witness.broken
    return report


async def _play(here: World, witness: Witness, report: Report, seed: int) -> None:
    rng = random.Random(seed)
    rounds = deal(rng)
    began = now()
    for human in here.humans.values():
        if not await human.wait_settled(BEGIN_WITHIN * here.patience):
            witness.breaks(f"{human.room}: no agent came in the first place")
            return
    while now() < began + report.minutes * 60:
        faults, seeds = next(rounds), (rng.getrandbits(32), rng.getrandbits(32))
        start = now()
        await _make(here, witness, faults, seeds)
        over = now()
        recovery = await witness.settles(faults, over)
        doubled = witness.callers_were_well(faults, start)
        told = " + ".join(fault.kind for fault in faults)
        silence = witness.longest_silence(start)
        print(f"{start - began:6.1f} s  {told}: all is well after {recovery:.2f} s", flush=True)
        kinds = tuple(fault.kind for fault in faults)
        report.rounds.append(Round(kinds, start - began, over - start, recovery, silence, doubled))
        await witness.becomes_quiet()
        _forget(here, now() - REMEMBERED)
        await asyncio.sleep(rng.uniform(0.0, 1.0))


async def _make(here: World, witness: Witness, faults: tuple[Fault, ...], seeds: tuple[int, ...]) -> None:
    made = [fault.make(here, random.Random(own)) for fault, own in zip(faults, seeds, strict=False)]
    try:
        async with asyncio.TaskGroup() as group:
            for fault in made:
                group.create_task(fault)
    except* StillThere as still_there:
        witness.breaks("; ".join(str(error) for error in still_there.exceptions))


@contextlib.asynccontextmanager
async def _watching(witness: Witness) -> AsyncIterator[None]:
    watching = asyncio.create_task(witness.watch_processes())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        if not watching.cancelled() and (error := watching.exception()) is not None:
            raise error


def _forget(here: World, before: float) -> None:
    """Hours of sound would be too much to remember."""
    for human in here.humans.values():
        for hearing in (human.agents, human.others, human.echo):
            hearing.forget(before)
