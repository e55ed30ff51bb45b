"""What happens to a document on its way: a slice is lost, doubled, or something else stands in its place."""

from __future__ import annotations

from collections.abc import Sequence

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


def numbers() -> st.SearchStrategy[object]:
    return st.one_of(
        st.integers(-1, 5),
        st.sampled_from([2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**400, -(2**70)]),
        st.sampled_from([0.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf")]),
    )


def texts() -> st.SearchStrategy[str]:
    return st.one_of(
        st.sampled_from(
            ["", "a", "\0", "a\nb", "\x1b[2J", "\ud800", "\u202e", "é", "*", "[", "x" * 1_024, "x" * 1_025]
        ),
        st.text(max_size=6),
    )


def odd() -> st.SearchStrategy[object]:
    """Anything that JSON can say, and a bit more."""
    leaves = st.one_of(st.none(), st.booleans(), numbers(), texts())
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3),
        max_leaves=4,
    )


def mostly(usual: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """The usual, and one time in eight something odd."""
    return st.integers(0, 7).flatmap(lambda n: odd() if n == 7 else usual)
