"""Those who come to a room by themselves: humans, and agents and avatars that nobody dispatched."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping

from supervisor.core.model import ATTRIBUTE_PUBLISH_ON_BEHALF, ParticipantKind
from tests.simulation import model_facts as facts
from tests.simulation.model_ports import Why
from tests.simulation.model_rooms import ModelServer

TRY_AGAIN = (1.0, 5.0)
"""Seconds until somebody joins anew whom the SDK has given up on."""


def reconnect(rng: random.Random, attempt: Callable[[], bool], give_up: Callable[[], None]) -> None:
    """The SDK's tries to come back; ``attempt`` says True when there is nothing more to try."""
    loop = asyncio.get_running_loop()

    def again(number: int) -> None:
        if attempt():
            return
        if number >= facts.RECONNECT_TRIES:
            give_up()
            return
        loop.call_later(facts.reconnect_delay(number, rng), again, number + 1)

    loop.call_later(facts.reconnect_delay(0, rng), again, 1)


class Guest:
    """A participant with a token.  ``wants`` says whether it means to be in the room."""

    def __init__(
        self,
        server: ModelServer,
        rng: random.Random,
        room: str,
        identity: str,
        kind: ParticipantKind = ParticipantKind.STANDARD,
        attributes: Mapping[str, str] | None = None,
        *,
        comes_back: bool = True,
    ) -> None:
        self.room = room
        self.identity = identity
        self.kind = kind
        self.attributes: Mapping[str, str] = attributes or {}
        self.alive = True
        self.makes_sound = True
        self.wants = False
        self.present = False
        self.put_out_because: list[Why] = []
        self._server = server
        self._rng = rng
        self._comes_back = comes_back

    @property
    def is_avatar(self) -> bool:
        return ATTRIBUTE_PUBLISH_ON_BEHALF in self.attributes

    def join(self, agents: tuple[str, ...] = ()) -> None:
        """Now, or as soon as the server is there."""
        self.wants = True
        self._agents = agents
        self._join()

    def leave(self) -> None:
        self.wants = self.present = False
        self._server.leave(self, self.room)

    def die(self) -> None:
        """Its process is killed, or its network is gone for good."""
        self.alive = self.wants = self.present = False
        self._server.vanish(self, self.room)

    def fall_silent(self) -> None:
        self.makes_sound = False
        self._server.touch(self.room)

    def put_out(self, why: Why) -> None:
        self.present = False
        self.put_out_because.append(why)
        if why is Why.SERVER_GONE and self._comes_back:
            reconnect(self._rng, self._arrived, self._join)
        else:
            self.wants = False

    def look_around(self, humans: int, agents: int) -> None:
        pass

    def _join(self) -> None:
        if not self._arrived():
            asyncio.get_running_loop().call_later(self._rng.uniform(*TRY_AGAIN), self._join)

    def _arrived(self) -> bool:
        if not self.alive or not self.wants or self.present:
            return True
        # Set first: whoever is told of the joining may look at it.
        self.present = True
        self.present = self._server.join(self, self.room, self._agents)
        return self.present
