"""What agents have, by its key and by agent: one agent's part costs no look at that of all others.

The rule: whoever asks about one agent, or how much it has, does not pay for ten thousand rooms of others.
"""

from __future__ import annotations

from collections.abc import Collection, ItemsView, Iterator
from typing import Generic, Protocol, TypeVar


class _OfAgent(Protocol):
    @property
    def agent_id(self) -> str: ...


T = TypeVar("T", bound=_OfAgent)


class ByAgent(Generic[T]):
    """A mapping that is sorted by agent as well."""

    def __init__(self) -> None:
        self._all: dict[str, T] = {}
        self._of: dict[str, dict[str, T]] = {}

    def __iter__(self) -> Iterator[T]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    def get(self, key: str) -> T | None:
        return self._all.get(key)

    def items(self) -> ItemsView[str, T]:
        return self._all.items()

    def of_agent(self, agent_id: str) -> Collection[T]:
        part = self._of.get(agent_id)
        return part.values() if part is not None else ()

    def put(self, key: str, item: T) -> None:
        old = self._all.get(key)
        if old is not None and old.agent_id != item.agent_id:
            self.pop(key)
        self._all[key] = item
        self._of.setdefault(item.agent_id, {})[key] = item

    def pop(self, key: str) -> T | None:
        item = self._all.pop(key, None)
        if item is not None:
            part = self._of[item.agent_id]
            del part[key]
            if not part:
                del self._of[item.agent_id]
        return item
