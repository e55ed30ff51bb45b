"""What a listener says it heard follows from the frames that arrived, and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.cli.hearing import LOUD, PAUSE, Hearing
from supervisor.cli.sounds import RATE, energy, share_of_pitch, syllable

FRAME = 0.02


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hearing(clock: Clock) -> Hearing:
    return Hearing(clock)


def play(hearing: Hearing, clock: Clock, seconds: float, *who: str) -> None:
    """Those speak for that long, everybody else is silent."""
    end = clock.now + seconds
    while clock.now < end - FRAME / 2:
        for name in who:
            hearing.frame(name, LOUD * 10, FRAME)
        clock.now += FRAME


def test_somebody_present_is_not_therefore_audible(hearing: Hearing) -> None:
    hearing.came("agent")
    assert hearing.present() == ("agent",)
    assert hearing.audible() == ()


def test_silent_frames_are_not_heard(hearing: Hearing) -> None:
    assert not hearing.frame("agent", LOUD / 2, FRAME)
    assert hearing.audible() == ()
    assert hearing.first_heard(0) is None


def test_audible_until_a_pause_after_the_last_sound(hearing: Hearing, clock: Clock) -> None:
    play(hearing, clock, 1.0, "agent")
    clock.now += PAUSE - 0.05
    assert hearing.audible() == ("agent",)
    clock.now += 0.2
    assert hearing.audible() == ()


def test_a_track_that_left_is_not_audible_at_once(hearing: Hearing, clock: Clock) -> None:
    play(hearing, clock, 1.0, "agent")
    hearing.hushed("agent")
    assert hearing.audible() == ()
    assert hearing.utterances() != ()


def test_heard_again_is_told_after_a_pause_only(hearing: Hearing, clock: Clock) -> None:
    assert hearing.frame("agent", LOUD, FRAME)
    clock.now += PAUSE / 2
    assert not hearing.frame("agent", LOUD, FRAME)
    clock.now += PAUSE * 2
    assert hearing.frame("agent", LOUD, FRAME)


def test_one_after_the_other_is_one_voice(hearing: Hearing, clock: Clock) -> None:
    play(hearing, clock, 1.0, "old")
    play(hearing, clock, 1.0, "new")
    assert hearing.most_audible(100.0) == 1
    assert hearing.two_at_once(100.0) < 0.1
    assert hearing.audible() == ("new",)


def test_two_at_once_are_counted_and_timed(hearing: Hearing, clock: Clock) -> None:
    play(hearing, clock, 1.0, "a")
    play(hearing, clock, 2.0, "a", "b")
    play(hearing, clock, 1.0, "b")
    assert hearing.most_audible(100.0) == 2
    assert hearing.two_at_once(100.0) == pytest.approx(2.0, abs=0.1)
    assert hearing.two_at_once(102.5) == pytest.approx(0.5, abs=0.1)
    assert hearing.most_audible(103.5) == 1


def test_taking_turns_with_pauses_is_two_at_once(hearing: Hearing, clock: Clock) -> None:
    for _ in range(5):
        play(hearing, clock, 0.2, "a")
        play(hearing, clock, 0.2, "b")
    assert hearing.most_audible(100.0) == 2


def test_the_longest_silence_ends_with_anybody_s_sound(hearing: Hearing, clock: Clock) -> None:
    play(hearing, clock, 1.0, "a")
    clock.now += 3.0
    play(hearing, clock, 1.0, "b")
    gap = hearing.longest_silence(100.0)
    assert gap is not None
    assert gap.start == pytest.approx(101.0, abs=0.03)
    assert gap.end == pytest.approx(104.0, abs=0.03)
    clock.now += 5.0
    gap = hearing.longest_silence(100.0)
    assert gap is not None
    assert gap.seconds == pytest.approx(5.0, abs=0.03)


def test_nothing_heard_at_all_is_silence_throughout(hearing: Hearing, clock: Clock) -> None:
    clock.now += 2.0
    gap = hearing.longest_silence(100.0)
    assert gap is not None
    assert gap.seconds == pytest.approx(2.0)


def test_first_heard_skips_those_not_meant_and_what_was_before(hearing: Hearing, clock: Clock) -> None:
    play(hearing, clock, 1.0, "old")
    play(hearing, clock, 0.5, "old", "new")
    first = hearing.first_heard(100.5, other_than=["new"])
    assert first is not None
    assert (first.who, first.start) == ("old", 100.5)
    first = hearing.first_heard(100.5, other_than=["old"])
    assert first is not None
    assert first.start == pytest.approx(101.0)
    assert hearing.first_heard(clock.now + 1) is None


def test_most_present_remembers_those_who_went(hearing: Hearing, clock: Clock) -> None:
    hearing.came("a")
    clock.now += 1
    hearing.came("b")
    clock.now += 0.01
    hearing.went("b")
    clock.now += 1
    assert hearing.present() == ("a",)
    assert hearing.most_present(100.0) == 2
    assert hearing.most_present(101.5) == 1


def test_what_is_forgotten_is_only_what_ended_before(hearing: Hearing, clock: Clock) -> None:
    hearing.came("a")
    play(hearing, clock, 1.0, "a")
    clock.now += 2
    play(hearing, clock, 1.0, "a")
    hearing.forget(102.0)
    assert len(hearing.utterances()) == 1
    assert hearing.present() == ("a",)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", ""]), st.integers(1, 40)), max_size=30))
def test_silence_and_sound_fill_the_time(turns: list[tuple[str, int]]) -> None:
    clock = Clock()
    hearing = Hearing(clock)
    for who, frames in turns:
        play(hearing, clock, frames * FRAME, *([who] if who else []))
    heard = hearing.most_audible(100.0)
    assert heard <= len({who for who, _ in turns if who})
    longest = max((frames for who, frames in turns if not who), default=0) * FRAME
    gap = hearing.longest_silence(100.0)
    assert (0.0 if gap is None else gap.seconds) >= longest - 0.06  # shorter gaps are none: frames jitter
    assert hearing.two_at_once(100.0) <= clock.now - 100.0


def test_a_syllable_has_energy_at_its_own_pitch() -> None:
    sound = syllable(330.0)
    voiced = sound[: len(sound) // 2]
    assert energy(voiced) > 1_000
    assert share_of_pitch(voiced, 330.0, RATE) > 0.7
    assert share_of_pitch(voiced, 500.0, RATE) < 0.1
    assert energy(sound[-100:]) == 0
    assert energy([]) == 0
    assert share_of_pitch([0, 0], 330.0, RATE) == 0
