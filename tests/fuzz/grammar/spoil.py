"""What happens to a document on its way: a slice is lost, doubled, or something else stands in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from hypothesis import strategies as st

MOST_EDITS = 4
LONG = 70_000
"""More than a line of the guard protocol, or a command, may have."""


@st.composite
def spoiled(draw: st.DrawFn, documents: st.SearchStrategy[bytes], words: Sequence[bytes]) -> bytes:
    data = draw(documents)
    pieces = st.one_of(st.sampled_from(words), st.binary(max_size=4))
    for _ in range(draw(st.integers(1, MOST_EDITS))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        edit = draw(st.integers(0, 40))
        if edit < 25:
            middle = draw(pieces)
        elif edit < 40:
            middle = data[start:end] * draw(st.integers(2, 5))
        else:
            middle = draw(pieces) * (LONG // 16)
        data = data[:start] + middle + data[end:]
    return data


NUMBERS: st.SearchStrategy[object] = st.one_of(
    st.integers(-1, 5),
    st.sampled_from([2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**400, -(2**70)]),
    st.sampled_from([0.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf")]),
)

_STRANGE = ["", "a", "\0", "a\nb", "\x1b[2J", "\ud800", "\u202e", "é", "*", "[", "x" * 1_024, "x" * 1_025]
TEXTS: st.SearchStrategy[str] = st.one_of(st.sampled_from(_STRANGE), st.text(max_size=6))

_LEAVES = st.one_of(st.sampled_from([None, True, False]), NUMBERS, TEXTS)
ODD: st.SearchStrategy[object] = st.one_of(
    _LEAVES,
    st.lists(_LEAVES, max_size=3),
    st.dictionaries(TEXTS, st.one_of(_LEAVES, st.lists(_LEAVES, max_size=3)), max_size=2),
)
"""Anything that JSON can say, and a bit more."""


T = TypeVar("T")


def weighted(*choices: tuple[int, st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """``one_of`` takes the same strategy twice for once."""
    strategies = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.integers(0, len(strategies) - 1).flatmap(strategies.__getitem__)


Fields = Mapping[str, st.SearchStrategy[object]]


def fields(usual: Fields, optional: Fields | None = None) -> st.SearchStrategy[dict[str, object]]:
    """An object with these fields, one of which is, one time in four, something odd."""
    right = st.fixed_dictionaries(dict(usual), optional=dict(optional or {}))
    names = st.sampled_from([*usual, *(optional or {}), "later"])
    wrong = st.builds(lambda values, name, odd: {**values, name: odd}, right, names, ODD)
    return weighted((3, right), (1, wrong))
