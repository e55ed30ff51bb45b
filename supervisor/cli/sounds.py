"""Sounds that are easy to make, to hear and to tell apart, with nothing but the standard library.

One rule: samples are 16-bit mono.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

RATE = 48_000
"""Samples a second of what is spoken; WebRTC's own rate."""

SYLLABLE = 0.24
"""Seconds of one syllable and the little silence after it: about four a second, as in speech."""


def syllable(pitch: float, rate: int = RATE) -> array[int]:
    """One speech-like syllable: a voiced tone with overtones that swells and fades, then a short rest."""
    samples = int(SYLLABLE * rate)
    voiced = int(samples * 0.75)
    sound = array("h", bytes(2 * samples))
    for i in range(voiced):
        swell = math.sin(math.pi * i / voiced)
        turn = 2 * math.pi * pitch * i / rate
        wave = math.sin(turn) + 0.3 * math.sin(2 * turn) + 0.1 * math.sin(3 * turn)
        sound[i] = int(9_000 * swell * wave)
    return sound


def energy(samples: Sequence[int]) -> float:
    """Root mean square."""
    if not samples:
        return 0.0
    return math.sqrt(sum(s * s for s in samples) / len(samples))


def share_of_pitch(samples: Sequence[int], pitch: float, rate: int) -> float:
    """How much of the energy lies at ``pitch``, 0 to 1 (Goertzel's filter over the whole of the samples)."""
    total = sum(s * s for s in samples)
    if not total:
        return 0.0
    coefficient = 2 * math.cos(2 * math.pi * pitch / rate)
    before, last = 0.0, 0.0
    for s in samples:
        before, last = last, s + coefficient * last - before
    power = last * last + before * before - coefficient * last * before
    return min(1.0, 2 * power / (len(samples) * total))
