"""The demo without a call: when it refuses, what it measures, and what it says at the end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from supervisor.cli import demo
from supervisor.cli.demo import audible_again
from supervisor.cli.demo_view import Result, Timeline
from supervisor.cli.disturbances import _kill
from supervisor.cli.errors import CliError, ExitCode
from supervisor.cli.hearing import Hearing
from tests.unit.cli_daemon import Daemon
from tests.unit.test_cli_commands import Run, config, daemon, run
from tests.unit.test_cli_hearing import Clock, play

__all__ = ["config", "daemon", "run"]


def test_it_touches_nothing_when_the_daemon_is_not_in_development_mode(run: Run, daemon: Daemon) -> None:
    outcome = run("demo")
    assert outcome.code == 2
    assert "production mode" in outcome.err
    assert "Nothing was touched" in outcome.err
    assert daemon.commands == []


def test_it_says_what_is_missing(run: Run, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "livekit.rtc", None)
    outcome = run("demo")
    assert outcome.code == 2
    assert "pip install livekit-agents" in outcome.err


def test_an_agent_that_is_not_there(run: Run, daemon: Daemon) -> None:
    daemon.status["daemon"]["mode"] = "development"
    outcome = run("demo", "Nobody")
    assert outcome.code == 2
    assert "no agent 'Nobody'" in outcome.err


def test_an_agent_that_does_not_become_ready(
    run: Run, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.cli.demo_setup._AGENT_STARTS", 0.1)
    daemon.status["daemon"]["mode"] = "development"
    for agent in daemon.status["agents"]:
        agent.update(ready=False, state="backoff", reason="exit code 3")
    outcome = run("demo")
    assert outcome.code == 1
    assert "backoff after 0.1 s: exit code 3" in outcome.err


def test_a_set_up_that_cannot_be_started(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter ends at once, as a daemon that finds its port taken would."""
    fake = config.with_name("python")
    fake.write_text("#!/bin/sh\necho 'port 7880 is taken' >&2\nexit 2\n")
    fake.chmod(0o755)
    monkeypatch.setattr("supervisor.cli.demo_setup.sys.executable", str(fake))
    outcome = run("demo")
    assert outcome.code == 2
    assert "port 7880 is taken" in outcome.err


def test_a_process_that_is_not_the_one_meant_is_left_alone() -> None:
    import os

    with pytest.raises(CliError, match="left alone") as error:
        _kill(os.getpid(), lambda: False)
    assert error.value.code is ExitCode.WRONG


# --- what it measures ---------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hearing(clock: Clock) -> Hearing:
    return Hearing(clock)


def test_an_agent_heard_throughout_was_not_interrupted(hearing: Hearing, clock: Clock) -> None:
    for _ in range(5):
        play(hearing, clock, 0.3, "a")
        clock.now += 0.2
    assert audible_again(hearing, 100.5, 100.5, cut=False) == 0.0


def test_a_short_silence_counts_when_the_connection_was_cut(hearing: Hearing, clock: Clock) -> None:
    play(hearing, clock, 1.0, "a")
    clock.now += 0.3
    play(hearing, clock, 1.0, "a")
    assert audible_again(hearing, 100.9, 100.9, cut=True) == pytest.approx(0.4, abs=0.05)
    assert audible_again(hearing, 100.9, 100.9, cut=False) == 0.0


def test_the_silence_counts_from_the_disturbance(hearing: Hearing, clock: Clock) -> None:
    play(hearing, clock, 1.2, "a")
    clock.now += 2.0
    play(hearing, clock, 3.0, "b")
    assert audible_again(hearing, 101.0, 101.0, cut=True) == pytest.approx(2.2, abs=0.05)


def test_a_human_who_was_away_counts_from_coming_back(hearing: Hearing, clock: Clock) -> None:
    play(hearing, clock, 1.0, "a")
    clock.now += 1.6
    play(hearing, clock, 1.0, "a")
    assert audible_again(hearing, 101.0, 102.5, cut=True) == pytest.approx(0.1, abs=0.05)


def test_an_agent_that_never_came_back(hearing: Hearing, clock: Clock) -> None:
    play(hearing, clock, 1.0, "a")
    clock.now += 30.0
    assert audible_again(hearing, 100.5, 100.5, cut=False) is None


# --- what it says -------------------------------------------------------------------------------------


def result(**changes: object) -> Result:
    given = {
        "name": "worker killed",
        "key": "worker_killed",
        "most_in_room": 2,
        "most_audible": 1,
        "seconds_two_audible": 0.0,
        "seconds_until_audible": 2.345,
        "healed": True,
    }
    return Result(**{**given, **changes})  # type: ignore[arg-type]


def test_the_summary_is_true_without_colour(capsys: pytest.CaptureFixture[str]) -> None:
    results = [
        result(),
        result(name="second dispatch", seconds_until_audible=0.0),
        result(name="LiveKit killed", seconds_until_audible=None, healed=False, most_audible=2),
    ]
    with Timeline(to_stderr=False) as timeline:
        timeline.announce("something is done")
        timeline.tell("healed")
        timeline.summary(results, one_audible=False)
    out = capsys.readouterr().out
    assert "→ something is done" in out
    assert "after 2.3 s" in out
    assert "not interrupted" in out
    assert "never" in out
    assert "not healed" in out
    assert "did not end with exactly one audible agent" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_document_of_a_disturbance() -> None:
    assert result().document() == {
        "disturbance": "worker_killed",
        "most_agents_in_room": 2,
        "most_agents_audible": 1,
        "seconds_two_audible": 0.0,
        "seconds_until_audible": 2.345,
        "healed": True,
    }
    assert result(seconds_until_audible=None).document()["seconds_until_audible"] is None
    assert demo.STEADY > 1
