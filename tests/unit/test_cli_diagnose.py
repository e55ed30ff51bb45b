"""``diagnose`` where no LiveKit is: configuration, daemon, files, Letta; its JSON and its bundle."""

from __future__ import annotations

import json
import os
import re
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from agent_guard import log as guard_log
from supervisor.cli import app as cli_app
from supervisor.cli import diagnose_host, diagnose_logs, diagnose_rooms
from supervisor.cli.diagnose_findings import Area, Notes, Severity, Situation
from supervisor.cli.diagnose_livekit import tell_webhooks, webhook_lines
from supervisor.cli.diagnose_processes import as_owner_of
from supervisor.cli.locate import Installation
from supervisor.cli.references import Reference
from supervisor.config import load
from tests.json_documents import DIAGNOSIS
from tests.ports import free_port
from tests.unit.cli_daemon import CONFLICTS, PROBLEM, ROOMS, SALES, Daemon
from tests.unit.closed import closed

SECRET = "s3cret-of-livekit-0123456789-0123456789"


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    def findings(self, area: str, severity: str = "") -> list[dict[str, Any]]:
        document = json.loads(self.out)
        jsonschema.validate(document, DIAGNOSIS)
        assert document["wrong"] is (self.code == 1)
        return [f for f in document["findings"] if f["area"] == area and severity in ("", f["severity"])]


Run = Callable[..., Outcome]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, runtime_dir: Path) -> Write:
    def write(agent: str = "", top: str = "") -> Path:
        file = tmp_path / "config.yaml"
        file.write_text(
            f"livekit: {{url: 'ws://127.0.0.1:{free_port()}', api_key: devkey, api_secret: {SECRET}}}\n"
            f"agents:\n  - {{id: one, name: One, command: [sleep, '1'], {agent}}}\n"
            f"http: {{listen: '127.0.0.1:{free_port()}'}}\n"
            f"paths: {{state: {tmp_path}/state, runtime: {runtime_dir}, logs: {tmp_path}/logs}}\n{top}"
        )
        file.chmod(0o600)
        return file

    return write


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setattr("supervisor.cli.diagnose_host.PROCESSOR_SECONDS", 0.01)

    def run(*arguments: str) -> Outcome:
        config = str(tmp_path / "config.yaml")
        monkeypatch.setattr(sys, "argv", ["livekit-supervisor", "--config", config, *arguments])
        with pytest.raises(SystemExit) as end:
            cli_app.main()
        captured = capsys.readouterr()
        assert isinstance(end.value.code, int)
        assert "Traceback" not in captured.err
        return Outcome(end.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def daemon(runtime_dir: Path) -> Iterator[Daemon]:
    daemon = Daemon(runtime_dir / "control.sock")
    daemon.start()
    yield daemon
    daemon.stop()


# --- daemon and configuration ---------------------------------------------------------------------------


def test_without_a_daemon_it_says_so_and_how_to_start_it(write: Write, run: Run) -> None:
    file = write()
    outcome = run("diagnose", "--json")
    assert outcome.code == 1
    [finding] = outcome.findings("daemon", "error")
    assert finding["message"] == "the daemon is not running"
    assert finding["fix"] == f"livekit-supervisor --config {file} run"
    assert finding["evidence"][0].endswith(f"start it with: {finding['fix']}")
    [livekit] = outcome.findings("livekit", "error")
    assert "is not reached" in livekit["message"]
    assert "curl" in livekit["fix"]


def test_it_makes_no_file(write: Write, run: Run, tmp_path: Path) -> None:
    write()
    before = sorted(tmp_path.rglob("*"))
    run("diagnose")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_page_says_what_is_wrong_first(write: Write, run: Run) -> None:
    write()
    outcome = run("diagnose")
    lines = outcome.out.splitlines()
    assert outcome.code == 1
    assert lines[0].startswith("✗ 2 things wrong now")
    assert lines[2] == "✗ daemon: the daemon is not running"
    assert any(line.strip().startswith("→ livekit-supervisor") for line in lines)
    assert all(len(line) <= 80 or "→" in line for line in lines)


def test_what_is_there_to_be_copied_is_whole(
    write: Write, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a pipe, on a terminal, and in the bundle; and every command of ours names the configuration."""
    secrets = tmp_path / ("a-long-name-" * 15)
    secrets.write_text("KEY=value\n")
    secrets.chmod(0o644)
    file = write(agent=f"env_file: {secrets}")
    findings = json.loads(run("diagnose", "--json").out)["findings"]
    # how busy the machine is may be another story by the next look
    fixes = [f["fix"] for f in findings if f["fix"] and "the machine is busy" not in f["message"]]
    assert f"chmod o= {secrets}" in fixes
    rows = [row for fix in fixes for row in fix.splitlines()]
    assert all(f" --config {file} " in row for row in rows if row.startswith("livekit-supervisor"))
    for variables in ({}, {"FORCE_COLOR": "1"}, {"COLUMNS": "40"}):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        shown = run("diagnose").out.splitlines()
        assert all(any(line.endswith(row) for line in shown) for row in rows), shown
    bundle = tmp_path / "report.tar.gz"
    run("diagnose", "--bundle", str(bundle))
    with tarfile.open(bundle) as archive:
        text = archive.extractfile("livekit-supervisor-diagnosis/diagnosis.txt")
        assert text is not None
        assert str(secrets) in text.read().decode()


def test_what_the_daemon_tells_is_told(write: Write, run: Run, daemon: Daemon) -> None:
    file = write()
    daemon.status["problems"] = [PROBLEM]
    outcome = run("diagnose", "--json")
    assert outcome.code == 1
    messages = {f["message"]: f for f in outcome.findings("daemon")}
    assert messages["crash loop: exit code 1"]["fix"] == f"livekit-supervisor --config {file} logs {SALES}"
    assert "the daemon answers" in messages
    [changed] = [f for m, f in messages.items() if m.startswith("the configuration has changed")]
    assert "not running: one" in changed["evidence"]


def test_a_silent_daemon_is_not_a_missing_one(
    write: Write, run: Run, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    write()
    monkeypatch.setattr("supervisor.cli.client.TIMEOUT", 0.2)
    daemon.silent.set()
    outcome = run("diagnose", "--json")
    assert outcome.code == 1
    assert outcome.findings("daemon", "error")[0]["message"] == "the daemon does not answer"


def test_another_version_is_told(write: Write, run: Run, daemon: Daemon) -> None:
    write()
    daemon.status["daemon"]["version"] = "0.0.1"
    fixes = [f["fix"] for f in run("diagnose", "--json").findings("daemon", "warning")]
    assert any("handoff" in (fix or "") for fix in fixes)


def test_a_bad_configuration_does_not_end_it(write: Write, run: Run) -> None:
    file = write(agent="max_room: 3")
    outcome = run("diagnose", "--json")
    assert outcome.code == 1
    [finding] = outcome.findings("configuration", "error")
    assert "did you mean max_rooms?" in finding["evidence"][0]
    assert finding["fix"] == f"livekit-supervisor --config {file} check"
    assert outcome.findings("livekit", "unknown")
    assert outcome.findings("host", "ok")


def test_no_configuration_at_all_does_not_end_it(run: Run) -> None:
    outcome = run("diagnose", "--json")
    assert outcome.code == 1
    assert outcome.findings("configuration", "error")
    assert outcome.findings("processes", "unknown")


def test_bad_usage(write: Write, run: Run) -> None:
    write()
    assert run("diagnose", "--no-such-option").code == 2


def test_a_file_of_secrets_that_everybody_can_read(write: Write, run: Run, tmp_path: Path) -> None:
    (tmp_path / "agent.env").write_text("KEY=value\n")
    (tmp_path / "agent.env").chmod(0o644)
    write(agent=f"env_file: {tmp_path}/agent.env")
    [finding] = run("diagnose", "--json").findings("configuration", "warning")
    assert finding["fix"] == f"chmod o= {tmp_path}/agent.env"


def test_our_own_address_is_asked_without_a_proxy(
    write: Write, run: Run, daemon: Daemon, letta: Letta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever answers there stands in for the daemon's HTTP."""
    file = write()
    file.write_text(re.sub(r"(http: .*:)\d+", rf"\g<1>{letta.server_address[1]}", file.read_text()))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    found = run("diagnose", "--json").findings("daemon", "ok")
    assert any("metrics and health answer" in f["message"] for f in found)


# --- files ----------------------------------------------------------------------------------------------


def test_a_pidfile_that_is_not_to_be_believed(write: Write, run: Run, tmp_path: Path) -> None:
    agents = tmp_path / "state" / "agents"
    agents.mkdir(parents=True, mode=0o700)
    (agents / "one.pid").write_text('{"pid": 1}')
    write()
    [finding] = run("diagnose", "--json").findings("processes", "warning")
    assert "is not believed" in finding["message"]


def test_a_state_directory_that_others_may_write_to(write: Write, run: Run, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    write()
    [finding] = run("diagnose", "--json").findings("processes", "error")
    assert finding["fix"] == f"chmod go-w {tmp_path}/state"


def test_a_lock_that_is_a_link_is_an_error_and_nothing_else(write: Write, run: Run, tmp_path: Path) -> None:
    agents = tmp_path / "state" / "agents"
    agents.mkdir(parents=True, mode=0o700)
    (agents / "one.lock").symlink_to("/etc/passwd")
    write()
    [finding] = run("diagnose", "--json").findings("processes", "error")
    assert "symbolic link" in finding["evidence"][0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as somebody else")
def test_root_looks_as_the_owner_of_the_files(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with as_owner_of(tmp_path):
        assert os.geteuid() == 65534
    assert os.geteuid() == 0
    os.chown(tmp_path, 0, 0)


# --- logs -----------------------------------------------------------------------------------------------


def test_the_guards_words_are_known() -> None:
    spoken = {v for v in vars(guard_log).values() if isinstance(v, str)}
    assert {*diagnose_logs.CONFLICTS, *diagnose_logs.TROUBLE} <= spoken


def test_conflicts_and_errors_in_a_log_are_shown(write: Write, run: Run, tmp_path: Path) -> None:
    lines = [
        {"message": guard_log.DUPLICATE_REJECTED, "level": "INFO", "room": "lobby", "holder": "agent-AJ_1"},
        {"message": "it broke\x1b[2J", "level": "ERROR", "name": "livekit.agents"},
    ]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/one.log").write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = write()
    outcome = run("diagnose", "--json")
    [refused] = outcome.findings("logs", "ok")
    assert "a second agent was refused before it joined, once" in refused["message"]
    assert "room=lobby" in refused["evidence"][0]
    [errors] = outcome.findings("logs", "warning")
    assert errors["fix"] == f"livekit-supervisor --config {file} logs one"
    assert "\x1b" not in run("diagnose").out


def test_claims_that_cannot_be_read_are_not_known(tmp_path: Path) -> None:
    database, notes = tmp_path / "supervisor.db", Notes(Area.ROOMS)
    assert diagnose_rooms.stored_claims(database, notes) == []
    assert notes.findings == []
    database.write_bytes(b"no database at all" * 100)
    assert diagnose_rooms.stored_claims(database, notes) == []
    [finding] = notes.findings
    assert (finding.severity, finding.evidence) == (
        Severity.UNKNOWN,
        (f"{database}: file is not a database",),
    )


def test_what_this_user_may_not_look_at_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.cli.diagnose_host.PROCESSOR_SECONDS", 0.01)
    folder = tmp_path / "of-another-user"
    folder.mkdir()
    agents = (Reference("one", "One"), Reference("two", "Two"))
    places = Installation(tmp_path / "config.yaml", folder / "state", folder, folder / "logs", agents)
    situation = Situation(places.file, {}, None, places, None, None, None, None, {})
    notes = Notes(Area.ROOMS)
    with closed(folder):
        logs, host = diagnose_logs.look(situation), diagnose_host.look(situation)
        assert diagnose_rooms.stored_claims(folder / "state/supervisor.db", notes) == []
    [finding] = logs
    assert (finding.severity, finding.message) == (Severity.UNKNOWN, "2 logs could not be read")
    assert finding.evidence[0] == f"{folder}/logs/one.log: Permission denied"
    unknown = [f.evidence[0] for f in (*host, *notes.findings) if f.severity is Severity.UNKNOWN]
    assert unknown == [
        f"{folder}/state: Permission denied",
        f"{folder}/logs: Permission denied",
        f"{folder}/state/supervisor.db: Permission denied",
    ]


# --- what livekit.yaml lacks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("http", "url"),
    [
        ("{listen: '127.0.0.1:9105'}", "http://127.0.0.1:9105/livekit/webhook"),
        ("{webhook_listen: '0.0.0.0:9106'}", "http://THIS_HOST:9106/livekit/webhook"),
        ("{listen: '[::1]:9105'}", "http://[::1]:9105/livekit/webhook"),
    ],
)
def test_the_lines_name_our_address(tmp_path: Path, http: str, url: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "livekit: {url: ws://127.0.0.1, api_key: k, api_secret: s}\n"
        f"agents: [{{id: one, command: ['true']}}]\nhttp: {http}\n"
    )
    lines = webhook_lines(load(file, os.environ))
    assert lines == f"# livekit.yaml\nwebhook:\n  api_key: k\n  urls:\n    - {url}"


@pytest.mark.parametrize(
    ("rooms", "age", "severity"),
    [
        (ROOMS, 3 * 86_400, Severity.WARNING),
        (ROOMS, 60, Severity.OK),
        ({"version": 1, "rooms": []}, 3 * 86_400, Severity.OK),
        (ROOMS, None, Severity.WARNING),
        (None, None, Severity.UNKNOWN),
    ],
)
def test_webhooks_that_have_ceased(write: Write, rooms: Any, age: float | None, severity: Severity) -> None:
    file = write()
    settings, notes = load(file, os.environ), Notes(Area.LIVEKIT)
    last = 0.0 if age is None else time.time() - age
    metrics = {"livekit_supervisor_webhook_last_received_timestamp_seconds": last}
    situation = Situation(file, {}, settings, None, None, None, rooms, None, metrics)
    tell_webhooks(situation, settings, metrics, notes)
    [finding] = notes.findings
    assert finding.severity is severity
    if severity is Severity.WARNING:
        assert finding.fix == webhook_lines(settings)


def test_a_livekit_elsewhere_does_not_reach_loopback(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    for http, expected in (
        ("{}", "0.0.0.0:9106"),
        ("{webhook_listen: '0.0.0.0:9107'}", ""),
        ("{listen: '192.0.2.1:9107'}", ""),
    ):
        file.write_text(
            "livekit: {url: 'wss://livekit.example.org', api_key: k, api_secret: s}\n"
            f"agents: [{{id: one, command: ['true']}}]\nhttp: {http}\n"
        )
        ours, _, theirs = webhook_lines(load(file, os.environ)).partition("# livekit.yaml\n")
        assert ((yaml.safe_load(ours) or {}).get("http", {}).get("webhook_listen", "")) == expected
        [url] = yaml.safe_load(theirs)["webhook"]["urls"]
        assert "127.0.0.1" not in url
        assert url.endswith(f":{(expected or ':9107').rpartition(':')[2]}/livekit/webhook")


def test_a_conflict_of_the_past_is_nothing_that_is_wrong_now() -> None:
    notes = Notes(Area.ROOMS)
    conflict: Any = {**CONFLICTS["conflicts"][0], "resolution": "failed"}
    diagnose_rooms.tell_conflicts({"version": 1, "conflicts": [conflict]}, notes)
    assert [f.severity for f in notes.findings] == [Severity.WARNING, Severity.OK]


# --- Letta ----------------------------------------------------------------------------------------------


class Letta(ThreadingHTTPServer):
    daemon_threads = True
    answer: tuple[int, bytes] = (200, b"[]")
    keys: list[str]


class _LettaHandler(BaseHTTPRequestHandler):
    server: Letta

    def do_GET(self) -> None:
        self.server.keys.append(f"{self.path} {self.headers['Authorization']}")
        code, body = self.server.answer
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def letta() -> Iterator[Letta]:
    server = Letta(("127.0.0.1", 0), _LettaHandler)
    server.keys = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def _letta_env(letta: Letta, id: str) -> str:
    base = f"http://127.0.0.1:{letta.server_address[1]}"
    return f"env: {{LETTA_BASE_URL: '{base}/', LETTA_AGENT_ID: {id}, LETTA_API_KEY: a-key-of-letta}}"


def test_an_agent_that_is_in_letta(write: Write, run: Run, letta: Letta) -> None:
    letta.answer = (200, b'[{"id": "agent-1", "name": "One"}, {"id": "agent-2", "name": "Two"}]')
    write(agent=_letta_env(letta, "agent-1"))
    found = run("diagnose", "--json").findings("letta", "ok")
    assert [f["message"] for f in found] == [
        "one is One in Letta",
        "1 more agents are in Letta, and not configured here",
    ]
    assert letta.keys == ["/v1/agents/?limit=1000 Bearer a-key-of-letta"]


def test_an_agent_that_is_not_in_letta_and_the_one_that_is_meant(
    write: Write, run: Run, letta: Letta
) -> None:
    letta.answer = (200, b'[{"id": "agent-1", "name": "One"}]')
    write(agent=_letta_env(letta, "agent-9"))
    [finding] = run("diagnose", "--json").findings("letta", "error")
    assert finding["fix"].endswith("LETTA_AGENT_ID=agent-1")
    assert "there is: One agent-1" in finding["evidence"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((401, b""), "refuses the key"),
        ((500, b""), "HTTP 500"),
        ((200, b"<html>"), "is not reached"),
        ((200, b"{}"), "is not reached"),
    ],
)
def test_a_letta_that_does_not_answer_well(
    write: Write, run: Run, letta: Letta, answer: tuple[int, bytes], told: str
) -> None:
    letta.answer = answer
    write(agent=_letta_env(letta, "agent-1"))
    [finding] = run("diagnose", "--json").findings("letta", "error")
    assert told in finding["message"]
    assert "a-key-of-letta" not in json.dumps(finding)


# --- bundle ---------------------------------------------------------------------------------------------


def test_the_bundle_holds_what_is_needed_and_no_secret(
    write: Write,
    run: Run,
    daemon: Daemon,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOMEBODYS_API_TOKEN", "token-from-the-environment")
    (tmp_path / "agent.env").write_text("FAL=of-the-file\n")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/one.log").write_text(
        f"whatever-it-is of-the-file\nconnecting with {SECRET}\npassword=hunter2hunter2\nkept line\n"
    )
    write(
        agent="env: {OPENAI_API_KEY: sk-of-a-model-0123456789, OTHER: 'postgres://me:pass-word@db/x', "
        "AZURE_SPEECH_KEY: 0azure0speech0, PIN: 'pi', SAID: whatever-it-is}, "
        f"env_file: {tmp_path}/agent.env",
        top="# once it was token-from-the-environment\n",
    )
    bundle = tmp_path / "report.tar.gz"
    outcome = run("diagnose", "--bundle", str(bundle))
    assert "look into it before you send it" in outcome.err
    assert bundle.stat().st_mode & 0o777 == 0o600
    with tarfile.open(bundle) as archive:
        content = {m.name.partition("/")[2]: archive.extractfile(m) for m in archive.getmembers()}
        texts = {name: file.read().decode() for name, file in content.items() if file is not None}
    assert {
        "diagnosis.json",
        "diagnosis.txt",
        "config.yaml",
        "status.json",
        "rooms.json",
        "versions.json",
    } <= set(texts)
    assert "kept line" in texts["logs/one.log"]
    jsonschema.validate(json.loads(texts["diagnosis.json"]), DIAGNOSIS)
    everything = "\n".join(texts.values())
    for secret in (
        SECRET,
        "token-from-the",
        "hunter2",
        "sk-of-a-model",
        "pass-word",
        "speech0",
        "whatever-it",
        "of-the-file",
        "'pi'",
    ):
        assert secret not in everything
    assert "devkey" not in texts["config.yaml"]
    assert "AZURE_SPEECH_KEY" in texts["config.yaml"]
    assert all(json.loads(text) for name, text in texts.items() if name.endswith(".json"))
    again = run("diagnose", "--bundle", str(bundle))
    assert again.code == 2
    assert "cannot be written" in again.err


def test_a_bundle_without_names(write: Write, run: Run, daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/one.log").write_text("a caller's name\n")
    write(top="log: {redact: true}\n")
    bundle = tmp_path / "report.tar.gz"
    run("diagnose", "--bundle", str(bundle))
    with tarfile.open(bundle) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert not names & {"rooms.json", "conflicts.json", "logs/one.log"}


def test_a_configuration_that_is_no_yaml_is_left_out(write: Write, run: Run, tmp_path: Path) -> None:
    write().write_text(f"livekit: {{api_secret: [{SECRET}\n")
    bundle = tmp_path / "report.tar.gz"
    run("diagnose", "--bundle", str(bundle))
    with tarfile.open(bundle) as archive:
        file = archive.extractfile("livekit-supervisor-diagnosis/config.yaml")
        assert file is not None
        assert file.read().startswith(b"# left out")


def test_notes_keep_their_area() -> None:
    notes = Notes(Area.HOST)
    notes.warning("a", "b", fix="c")
    assert notes.findings[0].document() == {
        "severity": "warning",
        "area": "host",
        "message": "a",
        "evidence": ["b"],
        "fix": "c",
    }
