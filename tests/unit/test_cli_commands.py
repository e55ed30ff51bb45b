"""Every command against a daemon's control socket: what it prints, asks for, and exits with."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup

from supervisor.cli import app as cli_app
from supervisor.process import lock
from tests.unit.cli_daemon import ECHO, NIGHT, PROBLEM, SALES, STATUS, Daemon, Document, agent


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Document:
        parsed: Document = json.loads(self.out)
        return parsed


Run = Callable[..., Outcome]

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path, runtime_dir: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(
        f"livekit: {{url: 'ws://127.0.0.1:7880', api_key: devkey, api_secret: {'s' * 40}}}\n"
        f"agents: [{{id: {ECHO}, name: Agent_66, command: [sleep, '1']}}]\n"
        f"paths: {{state: {tmp_path}/state, runtime: {runtime_dir}, logs: {tmp_path}/logs}}\n"
    )
    return file


@pytest.fixture
def run(config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LIVEKIT_SUPERVISOR_CONFIG", str(config))
    monkeypatch.setattr("supervisor.cli.actions._LOOK_AGAIN", 0.01)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["livekit-supervisor", *arguments])
        with pytest.raises(SystemExit) as end:
            cli_app.main()
        captured = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Outcome(end.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def daemon(runtime_dir: Path) -> Iterator[Daemon]:
    daemon = Daemon(runtime_dir / "control.sock")
    daemon.start()
    yield daemon
    daemon.stop()


# --- status -------------------------------------------------------------------------------------------


def test_status_says_first_that_nothing_is_wrong(run: Run, daemon: Daemon) -> None:
    outcome = run("status")
    assert outcome.code == 0
    assert outcome.out.splitlines()[0] == "✓ Nothing is wrong: 3 of 3 agents ready, 2 rooms with their agent"
    assert "Agent_66 agent-4dfca708" in outcome.out
    assert "night-desk" in outcome.out
    assert outcome.err == ""


def test_status_says_the_worst_thing_first(run: Run, daemon: Daemon) -> None:
    warning = {
        **PROBLEM,
        "severity": "warning",
        "agent_id": None,
        "room": "lobby",
        "message": "conflict: two",
    }
    daemon.status["problems"] = [warning, PROBLEM]
    outcome = run("status")
    assert outcome.code == 1
    first, second, *_ = outcome.out.splitlines()
    assert first.startswith("✗ Sales agent-4e11aa00")
    assert "crash loop: exit code 1" in first
    assert second.strip() == f"livekit-supervisor logs {SALES}"
    assert "! room lobby: conflict: two" in outcome.out


def test_commands_that_mend_name_the_configuration_in_use(run: Run, daemon: Daemon, config: Path) -> None:
    daemon.status["problems"] = [PROBLEM, {**PROBLEM, "agent_id": None, "room": "r", "fix": "curl x"}]
    told = [line.strip() for line in run("--config", str(config), "status").out.splitlines()]
    assert f"livekit-supervisor --config {config} logs {SALES}" in told
    assert "curl x" in told
    assert f"livekit-supervisor logs {SALES}" in run("status").out
    assert run("--config", str(config), "status", "--json").document["problems"][0]["fix"] == PROBLEM["fix"]


def test_an_agent_stopped_on_purpose_is_not_wrong(run: Run, daemon: Daemon) -> None:
    daemon.agent(NIGHT).update(want="stopped", state="stopped", ready=False, pid=None, reason="stopped")
    daemon.agent(ECHO).update(reason="two spare jobs")
    outcome = run("status")
    assert outcome.code == 0
    assert "2 of 2 agents ready, 1 stopped on purpose" in outcome.out.splitlines()[0]
    assert "night-desk: stopped" not in outcome.out
    assert "· Agent_66 agent-4dfca708: two spare jobs" in outcome.out


def test_a_note_is_not_wrong(run: Run, daemon: Daemon) -> None:
    daemon.status["problems"] = [{**PROBLEM, "severity": "info", "message": "an upgrade is there"}]
    outcome = run("status")
    assert outcome.code == 0
    assert outcome.out.startswith("✓")
    assert "an upgrade is there" in outcome.out


@pytest.mark.parametrize("state", ["backoff", "crash_loop"])
def test_a_failing_agent_is_wrong_also_when_no_problem_lists_it(run: Run, daemon: Daemon, state: str) -> None:
    daemon.agent(NIGHT).update(state=state, ready=False, reason="exit code 7", pid=None)
    outcome = run("status")
    assert outcome.code == 1
    assert "night-desk" in outcome.out.splitlines()[0]
    assert "exit code 7" in outcome.out.splitlines()[0]


def test_livekit_away_is_wrong(run: Run, daemon: Daemon) -> None:
    daemon.status["livekit"] = {"url": "ws://127.0.0.1:7880", "up": False, "error": "connection refused"}
    outcome = run("status")
    assert outcome.code == 1
    assert "not reached: connection refused" in outcome.out.splitlines()[0]


def test_status_fits_eighty_columns(run: Run, daemon: Daemon) -> None:
    long = "a-very-long-agent-identifier-that-goes-on-and-on-" + "x" * 60
    daemon.status["agents"] = [
        agent(
            long, "名" * 60, since="2024-01-01T00:00:00Z", pid=4194304, restarts=12345, memory_bytes=3 * 2**33
        ),
        agent(NIGHT, "", state="crash_loop", ready=False, reason="word " * 60, pid=None, since=None),
    ]
    daemon.status["problems"] = [{**PROBLEM, "message": "word " * 60}]
    daemon.status["livekit"]["url"] = "wss://" + "l" * 100
    outcome = run("status")
    from rich.cells import cell_len

    assert max(cell_len(line) for line in outcome.out.splitlines()) <= 80


def test_status_without_agents_and_rooms(run: Run, daemon: Daemon) -> None:
    daemon.status.update(agents=[], rooms={})
    outcome = run("status")
    assert outcome.code == 0
    assert "0 of 0 agents ready, no rooms" in outcome.out


def test_status_json_is_the_document(run: Run, daemon: Daemon) -> None:
    assert run("status", "--json").document == STATUS
    daemon.status["problems"] = [PROBLEM]
    outcome = run("status", "--json")
    assert outcome.code == 1
    assert outcome.document["problems"] == [PROBLEM]


@pytest.mark.parametrize("options", [("status",), ("status", "--json"), ("rooms",), ("rooms", "--json")])
def test_text_from_outside_cannot_steer_the_terminal(
    run: Run, daemon: Daemon, options: tuple[str, ...]
) -> None:
    nasty = "\x1b[2J\x07\u202eroom\x9b31m\n[red]x[/red]\x7f"
    daemon.rooms["rooms"][0]["name"] = nasty
    daemon.rooms["rooms"][1]["reason"] = nasty
    daemon.status["problems"] = [{**PROBLEM, "message": nasty, "room": nasty}]
    daemon.agent(ECHO)["name"] = nasty
    outcome = run(*options)
    assert not set("\x1b\x07\u202e\x9b\x7f") & set(outcome.out)
    assert "\\x1b[2J" in outcome.out or "\\u001b[2J" in outcome.out
    assert "[red]" in outcome.out or "…" in outcome.out


def test_status_watch_goes_on_until_interrupted(
    run: Run, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter(range(3))

    def sleep(_: float) -> None:
        if next(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("supervisor.cli.watch.time.sleep", sleep)
    outcome = run("status", "--watch", "--json")
    assert outcome.code == 0
    assert [json.loads(line) for line in outcome.out.splitlines()] == [STATUS] * 3


# --- a configuration that is none -----------------------------------------------------------------------


@pytest.mark.parametrize("command", ["status", "check", "run", "diagnose"])
def test_a_file_without_end(run: Run, command: str) -> None:
    outcome = run("--config", "/dev/zero", command)
    assert outcome.code == (1 if command == "diagnose" else 2)
    assert "is larger than 1 MiB" in outcome.out + outcome.err


@pytest.mark.parametrize("command", ["status", "check", "run", "diagnose", "install-service"])
def test_a_user_without_a_home(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """As in a container that runs as a number."""

    def nobody(uid: int) -> object:
        raise KeyError(uid)

    config.write_text(config.read_text().partition("paths:")[0])
    for name in ("HOME", "XDG_STATE_HOME", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    arguments = ("--user", "--program", "/bin/true") if command == "install-service" else ()
    outcome = run(command, *arguments)
    assert outcome.code == (1 if command == "diagnose" else 2)
    assert "set HOME" in outcome.out + outcome.err


# --- rooms and conflicts ------------------------------------------------------------------------------


def test_rooms_shows_what_needs_a_look_first(run: Run, daemon: Daemon) -> None:
    outcome = run("rooms")
    assert outcome.code == 1
    rows = outcome.out.splitlines()[1:]
    assert rows[0].startswith("support")
    assert "no ready worker of Sales" in rows[0]
    assert rows[1].startswith("lobby")
    assert "* agent-4dfca708" in rows[1] or f"* {ECHO[:14]}" in rows[1]


def test_rooms_is_fine_when_all_are_healthy_or_empty(run: Run, daemon: Daemon) -> None:
    daemon.rooms["rooms"][1]["state"] = "empty"
    assert run("rooms").code == 0
    daemon.rooms["rooms"] = []
    outcome = run("rooms")
    assert outcome.code == 0
    assert outcome.out == "No rooms of ours.\n"


def test_rooms_json_is_the_document(run: Run, daemon: Daemon) -> None:
    outcome = run("rooms", "--json")
    assert outcome.code == 1
    assert outcome.document == daemon.rooms


def test_conflicts(run: Run, daemon: Daemon) -> None:
    outcome = run("conflicts")
    assert outcome.code == 0
    assert "duplicate_agent" in outcome.out
    assert "evicted" in outcome.out
    assert "12 ms" in outcome.out
    assert run("conflicts", "--json").document == daemon.conflicts
    daemon.conflicts["conflicts"] = []
    assert run("conflicts").out == "No conflicts in that time.\n"


def test_conflicts_that_are_left_out_are_told_beside_the_document(run: Run, daemon: Daemon) -> None:
    [conflict] = daemon.conflicts["conflicts"]
    for number, told in (
        (999, ""),
        (1_000, "only the last 1,000 are shown; older ones since then are left out\n"),
    ):
        daemon.conflicts["conflicts"] = [conflict] * number
        outcome = run("conflicts", "--since", "7d", "--json")
        assert (outcome.document, outcome.err) == (daemon.conflicts, told)
        assert run("conflicts").err == told


def test_conflicts_since_is_asked_in_unix_seconds(
    run: Run, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.cli.app.time.time", lambda: 1_000_000.0)
    run("conflicts", "--since", "15m")
    run("conflicts", "--since", "2026-01-31T12:00:00Z")
    run("conflicts")
    asked = [float(query["since"][0]) for query in daemon.queries]
    assert asked == [1_000_000.0 - 900, 1_769_860_800.0, 1_000_000.0 - 86_400]


def test_conflicts_since_nonsense_is_bad_usage(run: Run, daemon: Daemon) -> None:
    outcome = run("conflicts", "--since", "yesterday")
    assert outcome.code == 2
    assert "--since: 'yesterday'" in outcome.err
    assert daemon.queries == []


# --- agents -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [ECHO, "Agent_66", "Agent_", "agent-4d"])
def test_an_agent_by_id_name_or_unique_beginning(run: Run, daemon: Daemon, text: str) -> None:
    outcome = run("start", text)
    assert outcome.code == 0
    assert daemon.commands == [("start", {"agent": ECHO})]
    assert outcome.out == f"Agent_66 ({ECHO}): ready, pid 4211\n"


def test_a_mistyped_agent_gets_a_suggestion(run: Run, daemon: Daemon) -> None:
    outcome = run("restart", "agnet_66")
    assert outcome.code == 2
    assert f"did you mean Agent_66 ({ECHO})?" in outcome.err
    assert daemon.commands == []


def test_an_ambiguous_beginning_is_an_error_that_names_the_candidates(run: Run, daemon: Daemon) -> None:
    outcome = run("stop", "agent-4")
    assert outcome.code == 2
    assert ECHO in outcome.err
    assert SALES in outcome.err
    assert daemon.commands == []


def test_an_agent_nobody_could_have_meant(run: Run, daemon: Daemon) -> None:
    outcome = run("drain", "zzz")
    assert outcome.code == 2
    assert "configured: " in outcome.err


def test_stop_waits_until_it_is_stopped(run: Run, daemon: Daemon) -> None:
    def stop(name: str, given: Document) -> Document:
        daemon.agent(ECHO).update(state="stopped", ready=False, pid=None)
        return {"ok": True}

    daemon.on_command = stop
    outcome = run("stop", "Agent_66")
    assert outcome.code == 0
    assert outcome.out == f"Agent_66 ({ECHO}): stopped\n"
    assert daemon.commands == [("stop", {"agent": ECHO, "drain": False})]
    run("stop", "Agent_66", "--drain")
    assert daemon.commands[1] == ("stop", {"agent": ECHO, "drain": True})
    assert run("drain", "Agent_66").out == f"Agent_66 ({ECHO}): drained and stopped\n"
    assert daemon.commands[2] == ("drain", {"agent": ECHO})


STOPPED: Document = {"state": "stopped", "ready": False, "pid": None}


def test_start_waits_until_it_is_ready(run: Run, daemon: Daemon) -> None:
    daemon.agent(ECHO).update(STOPPED)
    daemon.then = [(ECHO, {"state": "starting", "pid": 5000}), (ECHO, {"state": "ready", "ready": True})]
    outcome = run("start", "Agent_66")
    assert outcome.code == 0
    assert outcome.out == f"Agent_66 ({ECHO}): ready, pid 5000\n"


def test_start_that_fails_says_why(
    run: Run, daemon: Daemon, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.cli.actions._SETTLING", 0.05)
    daemon.agent(ECHO).update(STOPPED)
    daemon.then = [(ECHO, {"state": "backoff", "reason": "exit code 7"})]
    outcome = run("start", "Agent_66")
    assert outcome.code == 1
    assert f"Agent_66 ({ECHO}): backoff: exit code 7" in outcome.err
    assert f"livekit-supervisor logs {ECHO}" in outcome.err
    named = run("start", "Agent_66", "--config", str(config))
    assert named.err.rstrip().endswith(f"livekit-supervisor --config {config} logs {ECHO}")


def test_restart_is_done_by_another_process_only(run: Run, daemon: Daemon) -> None:
    new = {"state": "ready", "ready": True, "pid": 5001}
    daemon.then = [(ECHO, {}), (ECHO, {"state": "draining", "ready": False}), (ECHO, STOPPED), (ECHO, new)]
    outcome = run("restart", "Agent_66")
    assert outcome.out == f"Agent_66 ({ECHO}): ready again, pid 5001\n"
    assert daemon.commands == [("restart", {"agent": ECHO, "now": False})]
    assert daemon.then == []
    daemon.then = [(ECHO, {}), (ECHO, {"pid": 5002})]
    assert run("restart", "Agent_66", "--now").code == 0
    assert daemon.commands[1] == ("restart", {"agent": ECHO, "now": True})


@pytest.mark.parametrize("command", ["start", "stop", "restart", "drain"])
def test_no_wait_returns_at_once(run: Run, daemon: Daemon, command: str) -> None:
    daemon.agent(ECHO).update(state="starting", ready=False)
    outcome = run(command, "Agent_66", "--no-wait")
    assert outcome.code == 0
    assert [name for name, _ in daemon.commands] == [command]


def test_waiting_has_an_end(run: Run, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.cli.actions._PATIENCE", 0.1)
    daemon.agent(ECHO).update(state="starting", ready=False, reason="LiveKit is not reached")
    outcome = run("start", "Agent_66")
    assert outcome.code == 1
    assert "still starting" in outcome.err
    assert "LiveKit is not reached" in outcome.err


def test_an_agent_that_is_configured_no_more(run: Run, daemon: Daemon) -> None:
    def forget(name: str, given: Document) -> Document:
        daemon.status["agents"] = [a for a in daemon.status["agents"] if a["id"] != ECHO]
        return {"ok": True}

    daemon.on_command = forget
    outcome = run("stop", "Agent_66")
    assert outcome.code == 1
    assert "no longer configured" in outcome.err


def test_reload_tells_what_changed(run: Run, daemon: Daemon) -> None:
    daemon.on_command = lambda name, given: {"added": ["new"], "changed": [ECHO], "removed": []}
    assert run("reload").out == f"configuration reloaded: added new; changed {ECHO}\n"
    daemon.on_command = lambda name, given: {"added": [], "changed": [], "removed": []}
    assert run("reload").out == "configuration reloaded: nothing changed\n"


def test_the_daemon_s_refusal_is_passed_on(run: Run, daemon: Daemon) -> None:
    problem = "config.yaml:3: agents[0].id: is there twice"
    daemon.on_command = lambda name, given: (400, {"error": problem, "exit_code": 2})
    outcome = run("reload")
    assert outcome.code == 2
    assert outcome.err == f"{problem}\n"
    assert outcome.out == ""


def test_handoff_waits_until_the_daemon_has_gone(run: Run, daemon: Daemon, runtime_dir: Path) -> None:
    def leave(name: str, given: Document) -> Document:
        (runtime_dir / "control.sock").unlink()
        return {"ok": True}

    daemon.on_command = leave
    outcome = run("handoff")
    assert outcome.code == 0
    assert outcome.out == "the daemon has gone; 3 workers go on; next: livekit-supervisor run\n"
    assert daemon.commands == [("handoff", {})]


def test_handoff_waits_until_the_state_is_given_back(
    run: Run, daemon: Daemon, runtime_dir: Path, tmp_path: Path
) -> None:
    """A client that has not finished its question keeps a daemon that listens no more."""
    (tmp_path / "state").mkdir(mode=0o700)
    held = lock.acquire(tmp_path / "state" / "daemon.lock")
    given_back = threading.Timer(0.5, os.close, (held,))

    def leave(name: str, given: Document) -> Document:
        (runtime_dir / "control.sock").unlink()
        given_back.start()
        return {"ok": True}

    daemon.on_command = leave
    assert run("handoff").code == 0
    assert not given_back.is_alive()


# --- daemon down, bad arguments -----------------------------------------------------------------------

NEED_THE_DAEMON = (
    ("status",),
    ("status", "--json"),
    ("status", "--watch"),
    ("rooms",),
    ("rooms", "--json"),
    ("conflicts",),
    ("conflicts", "--since", "1h", "--json"),
    ("start", "Agent_66"),
    ("stop", "Agent_66"),
    ("restart", "Agent_66"),
    ("drain", "Agent_66"),
    ("reload",),
    ("handoff",),
)


@pytest.mark.parametrize("command", NEED_THE_DAEMON, ids=" ".join)
def test_without_a_daemon(run: Run, command: tuple[str, ...]) -> None:
    outcome = run(*command)
    assert outcome.code == 3
    assert outcome.out == ""
    assert "the daemon is not running" in outcome.err
    assert "livekit-supervisor run" in outcome.err


def test_without_a_daemon_the_configuration_in_use_is_named(run: Run, config: Path) -> None:
    outcome = run("status", "--config", str(config))
    assert outcome.err.rstrip().endswith(f"start it with: livekit-supervisor --config {config} run")
    assert run("status").err.rstrip().endswith("start it with: livekit-supervisor run")


def test_a_socket_that_nobody_listens_on_any_more(run: Run, runtime_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(runtime_dir / "control.sock"))
    outcome = run("status")
    assert outcome.code == 3
    assert "the daemon is not running" in outcome.err


def test_a_daemon_that_does_not_answer(run: Run, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.cli.client.TIMEOUT", 0.2)
    daemon.silent.set()
    outcome = run("status")
    assert outcome.code == 3
    assert "does not answer within" in outcome.err


@pytest.mark.parametrize(
    "raw", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"]
)
def test_an_answer_broken_off(run: Run, daemon: Daemon, raw: bytes) -> None:
    daemon.raw = raw
    outcome = run("status")
    assert outcome.code == 3
    assert "broke off its answer" in outcome.err


def test_an_answer_that_is_no_document(run: Run, daemon: Daemon) -> None:
    daemon.raw = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
    outcome = run("status")
    assert outcome.code == 1
    assert "makes no sense" in outcome.err


def test_a_daemon_of_another_version(run: Run, daemon: Daemon) -> None:
    daemon.status["version"] = 2
    outcome = run("status")
    assert outcome.code == 2
    assert "version 2" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--wacth"),
        ("status", "extra"),
        ("rooms", "extra"),
        ("conflicts", "--since"),
        ("start",),
        ("stop",),
        ("restart", "a", "b"),
        ("drain",),
        ("reload", "x"),
        ("logs",),
        ("logs", "Agent_66", "-n", "-1"),
        ("handoff", "x"),
        ("run", "--deb"),
        ("check", "x"),
        ("frobnicate",),
        (),
    ],
    ids=" ".join,
)
def test_bad_arguments(run: Run, daemon: Daemon, arguments: tuple[str, ...]) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert daemon.commands == []
    if arguments:
        assert outcome.out == ""
        assert "Error" in outcome.err


@pytest.mark.parametrize(
    ("typed", "meant"), [("statsu", "status"), ("restrat", "restart"), ("conflict", "conflicts")]
)
def test_a_mistyped_command_gets_a_suggestion(run: Run, typed: str, meant: str) -> None:
    outcome = run(typed)
    assert outcome.code == 2
    assert f"'{meant}'" in outcome.err
    assert "Did you mean" in outcome.err


# --- configuration ------------------------------------------------------------------------------------


def test_config_before_and_after_the_command(
    run: Run, daemon: Daemon, config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LIVEKIT_SUPERVISOR_CONFIG")
    monkeypatch.chdir(tmp_path.parent)
    assert run("status").code == 2
    assert run("--config", str(config), "status").code == 0
    assert run("status", "--config", str(config)).code == 0
    assert run("--config", "nowhere.yaml", "status", "--config", str(config)).code == 0
    monkeypatch.chdir(tmp_path)
    assert run("status").code == 0


def test_no_configuration(run: Run, tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    outcome = run("status", "--config", str(missing))
    assert outcome.code == 2
    assert outcome.err.startswith(f"{missing}: no such configuration file")


def test_a_configuration_that_is_no_yaml(run: Run, config: Path) -> None:
    config.write_text("agents: [\n  - {")
    outcome = run("status")
    assert outcome.code == 2
    assert outcome.err.startswith(f"{config}:")
    assert "Traceback" not in outcome.err


def test_status_needs_neither_the_secrets_nor_a_whole_configuration(
    run: Run, daemon: Daemon, config: Path
) -> None:
    text = config.read_text().replace("api_key: devkey", "api_key: '${ONLY_THE_SERVICE_KNOWS}', typo: 1")
    config.write_text(text)
    assert run("status").code == 0


def test_a_path_that_cannot_be_told(run: Run, config: Path) -> None:
    config.write_text("paths:\n  runtime: ${NO_SUCH_VARIABLE_HERE}/x\n")
    outcome = run("status")
    assert outcome.code == 2
    assert outcome.err.startswith(f"{config}:2: paths.runtime: ")


def test_a_socket_path_that_is_too_long(run: Run, config: Path) -> None:
    config.write_text(f"paths: {{runtime: /tmp/{'x' * 200}}}\n")
    outcome = run("status")
    assert outcome.code == 2
    assert "too long" in outcome.err


# --- the program --------------------------------------------------------------------------------------


COMMANDS = (
    *("run", "check", "demo"),
    *("status", "rooms", "conflicts", "logs"),
    *("start", "stop", "restart", "drain", "reload", "handoff"),
)


def test_help_lists_every_command(run: Run) -> None:
    outcome = run("--help")
    assert outcome.code == 0
    for command in COMMANDS:
        assert f" {command} " in outcome.out
        assert run(command, "--help").code == 0
    assert "Exit codes: 0 fine" in outcome.out


def test_version(run: Run) -> None:
    outcome = run("--version")
    assert outcome.code == 0
    assert outcome.out.startswith("livekit-supervisor ")


def test_status_starts_light(config: Path, daemon: Daemon) -> None:
    program = (
        "import sys; sys.argv = ['livekit-supervisor', 'status']\n"
        "from supervisor.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "weights = ('aiohttp', 'livekit', 'google', 'apscheduler', 'prometheus_client')\n"
        "heavy = [m for m in weights if m in sys.modules]\n"
        "sys.exit(f'heavy: {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=CHECKOUT,
        env={"LIVEKIT_SUPERVISOR_CONFIG": str(config), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Nothing is wrong" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_terminal_without_unicode(config: Path, daemon: Daemon) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", "status"],
        cwd=CHECKOUT,
        env={"LIVEKIT_SUPERVISOR_CONFIG": str(config), "PYTHONIOENCODING": "ascii", "PATH": ""},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_every_command_takes_the_configuration_before_and_after_it(run: Run, config: Path) -> None:
    group = typer.main.get_command(cli_app.app)
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        assert any("--config" in option.opts for option in command.params), name
    assert run("schema", "--config", str(config)).code == 0
    assert run("import", "--config", str(config), "/no/such/file").err.startswith(
        "/no/such/file: there is no"
    )


@pytest.mark.parametrize(
    ("redirection", "code", "told"),
    [
        (">/dev/full", 1, "the output cannot be written: No space left on device\n"),
        (">&-", 0, ""),
        ("2>&- >/dev/null", 0, ""),
        ("<&- >/dev/null", 0, ""),
        ("| head -n 0", 0, ""),
    ],
)
@pytest.mark.parametrize("command", ["status", "status --json", "schema"])
def test_an_output_that_takes_nothing(
    config: Path, daemon: Daemon, command: str, redirection: str, code: int, told: str
) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m supervisor {command} {redirection}"],
        cwd=CHECKOUT,
        env={"LIVEKIT_SUPERVISOR_CONFIG": str(config), "PATH": os.defpath},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, told)


def test_the_other_supervisor_in_the_environment(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """supervisord's files beside ours: said at once, before anything of theirs is taken for ours."""
    (tmp_path / "cli").mkdir()
    (tmp_path / "supervisord.py").touch()
    monkeypatch.setattr(cli_app, "__file__", str(tmp_path / "cli" / "app.py"))
    outcome = run("status")
    assert outcome.code == 2
    assert "supervisord" in outcome.err
