"""What must hold, whatever happens; checked all along by callers who listen and by looks at the machine.

One rule: it only watches.  What is broken is written down with the moment and the reason, and never mended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from livekit import api

from supervisor.cli.documents import Status
from supervisor.cli.human import Human, What
from tests.chaos.faults import Fault
from tests.chaos.world import GRACE, UNREACHABLE, World, now

STEADY = 1.5
"""Seconds that one agent has to be heard for, so that the room counts as well."""
DOUBLED = 1.0
"""Seconds for which two agents may be heard at once by somebody, where the daemon can see them."""
QUIET_WITHIN = 90.0
"""Seconds: a worker that was stopped before the daemon came is waited for as long as a start may take."""
PATIENCE = 60.0
"""Seconds that are waited beyond what is allowed, so that one failure does not spoil what follows."""
LOOK = 0.2

_REMOVED = frozenset({"participant_removed", "room_deleted", "user_rejected"})


@dataclass(frozen=True)
class Broken:
    at: float
    """Seconds since the beginning."""
    what: str


class Witness:
    def __init__(self, world: World) -> None:
        self.broken: list[Broken] = []
        self._world = world
        self._began = now()
        self._removals: set[tuple[str, float]] = set()

    def breaks(self, what: str) -> None:
        self.broken.append(Broken(round(now() - self._began, 2), what))
        print(f"  BROKEN: {what}", flush=True)

    # --- all along ---

    async def watch_processes(self) -> None:
        """For ever: never two worker processes of one agent ID."""
        while True:
            for agent, pids in self._world.workers().items():
                if len(pids) > 1:
                    self.breaks(f"agent {agent} has {len(pids)} worker processes: {pids}")
            await asyncio.sleep(LOOK)

    # --- after a fault ---

    async def settles(self, faults: Sequence[Fault], since: float) -> float:
        """Seconds until every caller heard exactly one agent, and went on hearing it."""
        within = self._world.patience * max(fault.within for fault in faults)
        humans = self._world.humans.values()
        took = await asyncio.gather(*(_settled(human, since, within + PATIENCE) for human in humans))
        for human, seconds in zip(humans, took, strict=True):
            if seconds is None or seconds > within:
                heard = "not at all" if seconds is None else f"after {seconds:.1f} s"
                self.breaks(f"{human.room}: one agent was heard {heard}, allowed are {within:g} s")
        return max(seconds if seconds is not None else within + PATIENCE for seconds in took)

    def callers_were_well(self, faults: Sequence[Fault], since: float) -> float:
        """Nobody was removed, nobody heard two agents for long; how long somebody did hear two."""
        allowed = self._world.patience * (DOUBLED + sum(fault.blind for fault in faults))
        worst = 0.0
        for human in self._world.humans.values():
            doubled = human.agents.two_at_once(since)
            worst = max(worst, doubled)
            if doubled > allowed:
                self.breaks(
                    f"{human.room}: two agents were heard for {doubled:.1f} s, allowed are {allowed:g} s"
                )
            for happening in human.history:
                removal = (human.room, happening.at)
                lost = happening.what is What.LOST and happening.detail in _REMOVED
                if lost and removal not in self._removals:
                    self._removals.add(removal)
                    self.breaks(f"{human.room}: the human was put out: {happening.detail}")
        return worst

    def longest_silence(self, since: float) -> float:
        silences = [human.agents.longest_silence(since) for human in self._world.humans.values()]
        return max((silence.seconds for silence in silences if silence is not None), default=0.0)

    async def becomes_quiet(self) -> None:
        """The daemon finds that all is well, too."""
        try:
            await self._world.stand.daemon.until(_is_quiet, QUIET_WITHIN * self._world.patience)
        except AssertionError as error:
            self.breaks(f"it does not become quiet: {str(error).splitlines()[0]}")

    # --- at the end ---

    async def rooms_empty(self) -> None:
        """No agent stays in a room that its humans have left."""
        deadline = now() + GRACE + 10.0 * self._world.patience
        left = await self._agents()
        while left and now() < deadline:
            await asyncio.sleep(LOOK)
            left = await self._agents()
        if left:
            self.breaks(f"agents stayed in rooms without a human: {left}")

    async def _agents(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        rooms = await self._world.stand.livekit.room.list_rooms(api.ListRoomsRequest())
        for room in rooms.rooms:
            with contextlib.suppress(*UNREACHABLE):
                if agents := await self._world.stand.agents_in(room.name):
                    found[room.name] = agents
        return found

    def daemon_had_no_defect(self) -> None:
        lines = self._world.stand.daemon.log.read_text(errors="replace").splitlines()
        defects = [line for line in lines if '"internal_error"' in line or line.startswith("Traceback")]
        if defects:
            self.breaks(f"the daemon met {len(defects)} unexpected errors, first: {defects[0][:500]}")


async def _settled(human: Human, since: float, within: float) -> float | None:
    """Seconds from ``since`` to the beginning of a time in which exactly one agent was heard throughout."""
    good_since: float | None = None

    def settled() -> bool:
        nonlocal good_since
        if not human.exactly_one_audible():
            good_since = None
            return False
        good_since = now() if good_since is None else good_since
        return now() - good_since >= STEADY

    if not await human.wait_until(settled, within + STEADY) or good_since is None:
        return None
    return max(0.0, good_since - since)


def _is_quiet(status: Status) -> bool:
    rooms = {state: count for state, count in status["rooms"].items() if count}
    return (
        status["livekit"]["up"]
        and all(agent["ready"] for agent in status["agents"])
        and not set(rooms) - {"healthy", "empty"}
    )
