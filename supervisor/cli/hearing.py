"""What one listener heard, from whom and when: a timeline of sound and of presence, without any I/O.

One rule: somebody counts as heard only while sound with energy arrived on a track that was subscribed;
being listed in the room proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

LOUD = 300.0
"""Root mean square of 16-bit samples over which a frame has energy; comfort noise stays far below."""

PAUSE = 0.6
"""Silence up to this long belongs to speech: the speaker was audible throughout."""

_JOIN = 0.06
"""Frames this close together are one sound: arrival jitters by a frame or two."""


@dataclass(frozen=True, slots=True)
class Span:
    """``who`` was heard, or was there, from ``start`` to ``end``."""

    who: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


class Hearing:
    """The timeline of one listener.  Times are seconds of the clock handed in.

    ``since`` and ``until`` in the questions cut the timeline; without ``until`` it ends now.
    """

    def __init__(self, clock: Callable[[], float], *, loud: float = LOUD, pause: float = PAUSE) -> None:
        self._clock = clock
        self._loud = loud
        self._pause = pause
        self._sounds: list[Span] = []
        self._sounding: dict[str, Span] = {}
        self._presences: list[Span] = []
        self._present_since: dict[str, float] = {}

    # --- facts ------------------------------------------------------------------------------------

    def came(self, who: str) -> None:
        self._present_since.setdefault(who, self._clock())

    def went(self, who: str) -> None:
        self.hushed(who)
        start = self._present_since.pop(who, None)
        if start is not None:
            self._presences.append(Span(who, start, self._clock()))

    def frame(self, who: str, energy: float, seconds: float) -> bool:
        """A frame of sound arrived; whether somebody silent for longer than a pause is heard again."""
        if energy < self._loud:
            return False
        now = self._clock()
        last = self._sounding.get(who)
        if last is not None and now - last.end <= _JOIN:
            self._sounding[who] = replace(last, end=now + seconds)
            return False
        if last is not None:
            self._sounds.append(last)
        self._sounding[who] = Span(who, now, now + seconds)
        return last is None or now - last.end > self._pause

    def hushed(self, who: str) -> None:
        """The track has gone: nothing more can be heard of ``who``, what was buffered included."""
        last = self._sounding.pop(who, None)
        if last is not None:
            self._sounds.append(replace(last, end=min(last.end, max(last.start, self._clock()))))

    def forget(self, before: float) -> None:
        """Drop what ended before that time; a listener of many hours stays small."""
        self._sounds = [s for s in self._sounds if s.end >= before]
        self._presences = [s for s in self._presences if s.end >= before]

    # --- questions --------------------------------------------------------------------------------

    def present(self) -> tuple[str, ...]:
        return tuple(self._present_since)

    def audible(self, within: float | None = None) -> tuple[str, ...]:
        """Who is heard now: sound within the last ``within`` seconds (a pause), track still there."""
        horizon = self._clock() - (self._pause if within is None else within)
        return tuple(who for who, sound in self._sounding.items() if sound.end >= horizon)

    def last_heard(self, who: str) -> float | None:
        ends = [s.end for s in self._all_sounds() if s.who == who]
        return max(ends, default=None)

    def first_heard(self, since: float, *, other_than: Iterable[str] = ()) -> Span | None:
        """The first sound after ``since`` of somebody who is not one of those."""
        unwanted = frozenset(other_than)
        heard = (s for s in self._all_sounds() if s.who not in unwanted and s.end > since)
        first = min(heard, key=lambda s: s.start, default=None)
        return None if first is None else replace(first, start=max(first.start, since))

    def most_present(self, since: float) -> int:
        return _most(_cut(self._all_presences(), since, self._clock()), longer_than=0.0)

    def most_audible(self, since: float, *, longer_than: float = 0.1) -> int:
        """The most that were heard at once for longer than that.

        Less is one fading out while the next begins: nobody would call it two voices.
        """
        return _most(_cut(self._utterances(), since, self._clock()), longer_than=longer_than)

    def two_at_once(self, since: float) -> float:
        """The longest time without a break, in seconds, in which more than one was heard."""
        together = _depth(_cut(self._utterances(), since, self._clock()), 2)
        return max((s.seconds for s in together), default=0.0)

    def longest_silence(self, since: float, until: float | None = None) -> Span | None:
        """The longest time in which nobody at all was heard; None when somebody always was."""
        end = self._clock() if until is None else until
        heard = _depth(_cut(self._all_sounds(), since, end), 1)
        edges = [since, *(t for s in heard for t in (s.start, s.end)), end]
        gaps = [Span("", a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]
        return max(gaps, key=lambda s: s.seconds, default=None)

    def utterances(self, since: float = -math.inf) -> tuple[Span, ...]:
        """Who was audible from when to when, pauses bridged, in order of their start."""
        spans = (s for s in self._utterances() if s.end > since)
        return tuple(sorted(spans, key=lambda s: s.start))

    # --- inside -----------------------------------------------------------------------------------

    def _all_sounds(self) -> Iterator[Span]:
        yield from self._sounds
        yield from self._sounding.values()

    def _all_presences(self) -> Iterator[Span]:
        yield from self._presences
        now = self._clock()
        yield from (Span(who, start, now) for who, start in self._present_since.items())

    def _utterances(self) -> list[Span]:
        done: list[Span] = []
        speaking: dict[str, Span] = {}
        for sound in sorted(self._all_sounds(), key=lambda s: s.start):
            before = speaking.get(sound.who)
            if before is not None and sound.start - before.end <= self._pause:
                speaking[sound.who] = replace(before, end=max(before.end, sound.end))
                continue
            if before is not None:
                done.append(before)
            speaking[sound.who] = sound
        return [*done, *speaking.values()]


def _cut(spans: Iterable[Span], since: float, until: float) -> list[Span]:
    inside = (replace(s, start=max(s.start, since), end=min(s.end, until)) for s in spans)
    return [s for s in inside if s.end > s.start]


def _depth(spans: Sequence[Span], depth: int) -> list[Span]:
    """The times in which at least ``depth`` of the spans overlap."""
    edges = sorted([(s.start, 1) for s in spans] + [(s.end, -1) for s in spans], key=lambda e: (e[0], -e[1]))
    found: list[Span] = []
    level, start = 0, 0.0
    for at, step in edges:
        if step > 0 and level == depth - 1:
            start = at
        if step < 0 and level == depth:
            found.append(Span("", start, at))
        level += step
    return found


def _most(spans: list[Span], *, longer_than: float) -> int:
    most = 0
    while any(s.seconds > longer_than for s in _depth(spans, most + 1)):
        most += 1
    return most
