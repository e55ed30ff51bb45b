"""Conflicts in rooms, from the look that finds one to the look that does not find it any more.

One rule: what was done about a conflict counts when a later look finds it gone, and under the name of the
last thing that was done; what failed, or is left alone, is told once while it stands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from supervisor.core.conflicts import Conflict, ConflictKind, Resolution
from supervisor.core.room import Decision, RemoveParticipant
from supervisor.events import ConflictDetected, ConflictResolved, EventBus


@dataclass(slots=True)
class _Open:
    """A conflict that stands."""

    since: float
    resolution: Resolution | None = None
    """What has been done about it so far."""
    reported: bool = False
    failed: bool = False
    """Something was tried in vain, and that has been told."""


class StandingConflicts:
    """Those of all rooms."""

    def __init__(self, bus: EventBus, clock: Callable[[], float]) -> None:
        self._bus = bus
        self._clock = clock
        self._open: dict[str, dict[Conflict, _Open]] = {}
        self._unresolved: Counter[ConflictKind] = Counter()

    def unresolved(self) -> dict[ConflictKind, int]:
        return {kind: self._unresolved[kind] for kind in ConflictKind}

    def record(self, room: str, decision: Decision, *, enforce: bool) -> bool:
        """What a look has found.  True: something is gone of which nothing was done."""
        for conflict in decision.conflicts:
            entry = self._detect(room, conflict, decision)
            if not entry.reported and not (enforce and _is_acted_on(conflict, decision)):
                entry.reported = True
                self._resolved(room, conflict, Resolution.REPORTED, entry)
        gone = [c for c in self._open.get(room, ()) if c not in decision.conflicts]
        closed = [self._close(room, conflict) for conflict in gone]
        return any(entry.resolution is None for entry in closed)

    def forget(self, room: str) -> None:
        """It is gone, and its conflicts with it."""
        for conflict in list(self._open.get(room, ())):
            self._close(room, conflict)

    def note(self, room: str, kind: ConflictKind, subject: str, resolution: Resolution) -> None:
        """Something was done, or tried in vain, about what stands there."""
        for conflict, entry in self._open.get(room, {}).items():
            if conflict.kind is not kind or (conflict.subject and conflict.subject != subject):
                continue
            if resolution is not Resolution.FAILED:
                entry.resolution = resolution
            elif not entry.failed:
                entry.failed = True
                self._resolved(room, conflict, resolution, entry)

    def _detect(self, room: str, conflict: Conflict, decision: Decision) -> _Open:
        standing = self._open.setdefault(room, {})
        entry = standing.get(conflict)
        if entry is None:
            since = decision.memory.silent_since if conflict.kind is ConflictKind.MISSING_AGENT else None
            entry = standing[conflict] = _Open(self._clock() if since is None else since)
            self._unresolved[conflict.kind] += 1
            self._bus.publish(
                ConflictDetected(
                    kind=conflict.kind, agent_id=conflict.agent_id, room=room, identity=conflict.subject
                )
            )
        return entry

    def _close(self, room: str, conflict: Conflict) -> _Open:
        standing = self._open[room]
        entry = standing.pop(conflict)
        if not standing:
            del self._open[room]
        self._unresolved[conflict.kind] -= 1
        if entry.resolution is not None or not (entry.reported or entry.failed):
            self._resolved(room, conflict, entry.resolution or Resolution.REPORTED, entry)
        return entry

    def _resolved(self, room: str, conflict: Conflict, resolution: Resolution, entry: _Open) -> None:
        self._bus.publish(
            ConflictResolved(
                kind=conflict.kind,
                resolution=resolution,
                seconds=max(0.0, self._clock() - entry.since),
                agent_id=conflict.agent_id,
                room=room,
                identity=conflict.subject,
            )
        )


def _is_acted_on(conflict: Conflict, decision: Decision) -> bool:
    """False for what is told of and left alone: a foreign agent that is alone, or another supervisor's."""
    if conflict.kind is not ConflictKind.FOREIGN_AGENT or conflict.subject in decision.memory.suspects:
        return True
    return any(isinstance(a, RemoveParticipant) and a.identity == conflict.subject for a in decision.actions)
