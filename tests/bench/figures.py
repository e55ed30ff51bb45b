"""Figures: samples summed up, and tables that are read by people and by programs.

One rule: a figure is a number with a unit and the count that it rests on; words never stand in for one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Value = float | int | str | None


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: a value that was really measured; of fewer than a hundred, p99 is the worst."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    return percentile(values, 0.5)


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    unit: str = ""
    digits: int = 1

    @property
    def title(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def text(self, value: Value) -> str:
        if value is None:
            return "–"
        if isinstance(value, float):
            return f"{value:,.{self.digits}f}"
        return f"{value:,}" if isinstance(value, int) else value


def spread(unit: str, digits: int = 1) -> tuple[Column, ...]:
    """The columns that :func:`summary` fills."""
    return (
        Column("n"),
        *(Column(name, unit, digits) for name in ("p50", "p99", "most")),
    )


def summary(values: Sequence[float], factor: float = 1.0) -> dict[str, Value]:
    if not values:
        return {"n": 0}
    scaled = [value * factor for value in values]
    return {
        "n": len(scaled),
        "p50": median(scaled),
        "p99": percentile(scaled, 0.99),
        "most": max(scaled),
    }


@dataclass(slots=True)
class Table:
    """``what`` says in a line what was done; ``aim`` what it ought to be."""

    title: str
    columns: Sequence[Column]
    what: str = ""
    aim: str = ""
    rows: list[tuple[str, Mapping[str, Value]]] = field(default_factory=list)

    def add(self, name: str, values: Mapping[str, Value]) -> None:
        unknown = values.keys() - {column.name for column in self.columns}
        assert not unknown, f"no column for {unknown}"
        self.rows.append((name, values))

    def text(self) -> str:
        """Markdown that is aligned, so that a terminal shows it well, too."""
        head = ["", *(column.title for column in self.columns)]
        body = [[name, *(c.text(values.get(c.name)) for c in self.columns)] for name, values in self.rows]
        widths = [max(3, *(len(row[i]) for row in [head, *body])) for i in range(len(head))]
        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        lines = [_line(head, widths), "| " + " | ".join(rule) + " |", *(_line(r, widths) for r in body)]
        told = [f"### {self.title}", "", *self._told(), *lines]
        return "\n".join(told)

    def _told(self) -> Iterable[str]:
        if self.what:
            yield from (self.what, "")
        if self.aim:
            yield from (f"Aim: {self.aim}.", "")

    def as_json(self) -> dict[str, object]:
        return {
            "title": self.title,
            "what": self.what,
            "aim": self.aim,
            "units": {column.name: column.unit for column in self.columns if column.unit},
            "rows": [{"name": name, **values} for name, values in self.rows],
        }


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]
    return "| " + " | ".join(padded) + " |"
