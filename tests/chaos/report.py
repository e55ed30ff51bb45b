"""What happened and how it went, for people and for programs.

One rule: everything in the text is in the JSON, too.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.chaos.witness import Broken


@dataclass(frozen=True)
class Round:
    """One fault, or two at once, and what came of it."""

    kinds: tuple[str, ...]
    began: float
    """Seconds since the beginning."""
    lasted: float
    recovery: float
    """Seconds from the end of the faults until every caller heard one agent."""
    silence: float
    """The longest that somebody heard nobody, from the beginning of the fault on."""
    doubled: float
    """Seconds for which somebody heard two."""


@dataclass
class Report:
    seed: int
    minutes: float
    rounds: list[Round] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    webhooks: dict[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        return {
            "version": 1,
            "seed": self.seed,
            "minutes": round(self.minutes, 2),
            "faults": {kind: self._fault(self._of(kind)) for kind in self._kinds()},
            "recovery": _summary(r.recovery for r in self.rounds),
            "silence": _summary(r.silence for r in self.rounds),
            "two_heard_worst_seconds": max((round(r.doubled, 2) for r in self.rounds), default=0.0),
            "webhooks": self.webhooks,
            "invariants_broken": len(self.broken),
            "broken": [asdict(broken) for broken in self.broken],
            "rounds": [asdict(r) for r in self.rounds],
        }

    def text(self) -> str:
        faults = sum(len(r.kinds) for r in self.rounds)
        doubled = max((r.doubled for r in self.rounds), default=0.0)
        lines = [
            f"chaos: seed {self.seed}, {self.minutes:.1f} minutes, "
            f"{faults} faults, {sum(len(r.kinds) > 1 for r in self.rounds)} times two at once",
            "",
            f"{'':<24}{'':>6}{'RECOVERY':^20}{'SILENCE':^20}".rstrip(),
            f"{'FAULT':<24}{'TIMES':>6}" + 2 * f"{'MEDIAN':>10}{'WORST':>10}",
        ]
        lines += [f"{kind:<24}{self._row(self._of(kind))}" for kind in self._kinds()]
        lines += [
            f"{'all':<24}{self._row(self.rounds)}",
            "",
            "Recovery: from the end of the fault until every caller heard exactly one agent; 0 where nobody",
            "noticed. Silence: the longest that a caller heard nobody, while the fault lasted included.",
            "What came of two faults at once counts for both.",
            f"Two agents were heard at once for {doubled:.2f} s at most.",
            "Webhooks: " + ", ".join(f"{count} {fate}" for fate, count in self.webhooks.items()),
            "",
            *(f"BROKEN at {broken.at:.1f} s: {broken.what}" for broken in self.broken),
            f"invariants broken: {len(self.broken)}",
        ]
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> None:
        """The text there, and the JSON beside it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.text())
        path.with_suffix(".json").write_text(json.dumps(self.document(), indent=2) + "\n")

    @staticmethod
    def _fault(rounds: list[Round]) -> dict[str, object]:
        return {
            "recovery": _summary(r.recovery for r in rounds),
            "silence": _summary(r.silence for r in rounds),
        }

    def _kinds(self) -> list[str]:
        return sorted({kind for r in self.rounds for kind in r.kinds})

    def _of(self, kind: str) -> list[Round]:
        return [r for r in self.rounds if kind in r.kinds]

    @staticmethod
    def _row(rounds: list[Round]) -> str:
        columns = [[r.recovery for r in rounds], [r.silence for r in rounds]]
        return f"{len(rounds):>6}" + "".join(map(_column, columns)) if rounds else f"{0:>6}"


def _summary(seconds: Iterable[float]) -> dict[str, float]:
    values = list(seconds)
    if not values:
        return {"times": 0}
    median, worst = round(statistics.median(values), 3), round(max(values), 3)
    return {"times": len(values), "median_seconds": median, "worst_seconds": worst}


def _column(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):>8.2f} s{max(seconds):>8.2f} s"
