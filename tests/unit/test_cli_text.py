"""Times, sizes, agents' short IDs and references, as people type and read them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.cli.errors import CliError
from supervisor.cli.references import Reference, resolve, short_ids
from supervisor.cli.since import parse
from supervisor.cli.text import ago, local_time, plain, short_seconds, size, span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (-3, "0s"), (59.9, "59s"), (60, "1m 0s"), (3661, "1h 1m"), (90_000, "1d 1h")],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "-"), (512, "512 B"), (2048, "2 KiB"), (254_803_968, "243 MiB"), (3 << 30, "3.0 GiB")],
)
def test_sizes(count: float | None, text: str) -> None:
    assert size(count) == text


def test_times() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert ago("2026-01-31T11:58:00Z", now) == "2m 0s"
    assert ago("2026-01-31T12:58:00+01:00", now) == "2m 0s"
    assert ago("2026-01-31T11:58:00", now) == "2m 0s"
    assert ago("nonsense", now) == "-"
    assert ago(None, now) == "-"
    assert short_seconds(0.0123) == "12 ms"
    assert short_seconds(2.34) == "2.3 s"


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_a_time_beyond_the_calendar_is_shown_as_it_is(text: str) -> None:
    assert local_time(text) == text


@given(st.text())
def test_plain_text_has_no_control_and_no_direction_characters(text: str) -> None:
    shown = plain(text)
    assert all(ord(c) >= 32 and not 127 <= ord(c) < 160 and c not in "\u202e\u2066\u2028" for c in shown)
    assert shown == text or "\\" in shown


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 910.0), ("2m", 880.0), ("500ms", 999.5), (" 1.5 m ", 910.0), ("0s", 1000.0)]
)
def test_since_a_length(text: str, seconds: float) -> None:
    assert parse(text, 1000.0) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1w", "-1h", "h", "12", "2026-13-01", "9999999999999999d9"])
def test_since_nonsense(text: str) -> None:
    with pytest.raises(CliError, match="--since"):
        parse(text, 1000.0)


@given(st.sets(st.text("ab-", min_size=1, max_size=30), max_size=12))
def test_short_ids_are_unique_beginnings_that_resolve(ids: set[str]) -> None:
    short = short_ids(ids)
    agents = [Reference(id) for id in ids]
    assert set(short) == ids
    for id, beginning in short.items():
        assert id.startswith(beginning)
        assert resolve(beginning, agents).id == id


def test_a_whole_id_wins_over_a_beginning_and_a_name() -> None:
    agents = [Reference("a", "b"), Reference("ab", "a"), Reference("b", "x")]
    assert resolve("a", agents).id == "a"
    assert resolve("b", agents).id == "b"
    assert resolve("x", agents).id == "b"
    with pytest.raises(CliError, match="fits several"):
        resolve("same", [Reference("1", "same"), Reference("2", "same")])
    with pytest.raises(CliError, match="none is configured"):
        resolve("a", [])
    with pytest.raises(CliError, match="no agent ''"):
        resolve("", agents)
