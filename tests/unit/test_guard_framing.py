"""Lines on the guard's socket: whole objects of bounded size, or an error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_guard.framing import MAX_LINE, Decoder, FramingError, encode

OBJECTS = st.lists(
    st.dictionaries(
        st.text(max_size=8), st.one_of(st.integers(), st.text(max_size=20), st.none()), max_size=4
    ),
    max_size=5,
)


@given(OBJECTS, st.integers(1, 50))
def test_objects_come_out_as_they_went_in_however_the_bytes_are_cut(
    objects: list[dict[str, object]], size: int
) -> None:
    data = b"".join(encode(o) for o in objects)
    decoder = Decoder()
    out = [o for i in range(0, len(data), size) for o in decoder.feed(data[i : i + size])]
    assert out == objects


def test_a_message_is_one_line() -> None:
    assert encode({"type": "heartbeat", "text": "a\nb"}).count(b"\n") == 1


def test_the_longest_line_is_taken_and_a_longer_one_is_not() -> None:
    room = MAX_LINE - len(encode({"t": ""}))
    assert len(encode({"t": "x" * room})) == MAX_LINE
    assert Decoder().feed(encode({"t": "x" * room})) == [{"t": "x" * room}]
    with pytest.raises(FramingError):
        encode({"t": "x" * (room + 1)})
    with pytest.raises(FramingError):
        Decoder().feed(json.dumps({"t": "x" * MAX_LINE}).encode() + b"\n")


def test_a_line_without_end_is_not_kept_for_ever() -> None:
    decoder = Decoder()
    assert decoder.feed(b"x" * (MAX_LINE - 1)) == []
    with pytest.raises(FramingError):
        decoder.feed(b"x")


@pytest.mark.parametrize("line", [b"[1]", b"1", b"nonsense", b"", b"\xff\xfe", b'{"a":'])
def test_what_is_no_object_is_an_error(line: bytes) -> None:
    with pytest.raises(FramingError):
        Decoder().feed(line + b"\n")


def test_numbers_that_json_does_not_know_are_not_sent() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        encode({"load": float("inf")})
