"""``check``: every problem at once, with its place; nothing started; LiveKit asked only on demand."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.cli.check import Report, check_file
from tests.ports import free_port

SCRIPT = "from livekit.agents import AgentServer\nserver = AgentServer()\n"

Write = Callable[..., Path]


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter that imports livekit.agents at once."""
    return interpreter(tmp_path / "python", "echo 1.8.9")


def interpreter(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def write(tmp_path: Path, python: Path) -> Write:
    def write(agent: str = "", *, url: str = "ws://127.0.0.1:7880") -> Path:
        (tmp_path / "worker.py").write_text(SCRIPT)
        file = tmp_path / "config.yaml"
        file.write_text(
            f"livekit: {{url: '{url}', api_key: devkey, api_secret: {'s' * 40}}}\n"
            "agents:\n"
            f"  - id: one\n"
            f"    {agent or 'script: worker.py'}\n"
            f"    {'' if 'command' in agent or 'python' in agent else f'python: {python}'}\n"
            f"paths: {{state: {tmp_path}/s, runtime: {tmp_path}/r, logs: {tmp_path}/l}}\n"
        )
        return file

    return write


def check(file: Path, *, online: bool = False) -> Report:
    return check_file(file, os.environ, online=online)


def messages(report: Report) -> str:
    return "\n".join(map(str, report.findings))


def test_a_good_configuration(write: Write, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = write()
    report = check(file)
    assert report.good
    report.print()
    captured = capsys.readouterr()
    assert captured.out == f"OK: {file}: 1 agent\n"
    assert captured.err == ""
    assert report.document() == {"version": 1, "ok": True, "problems": []}
    assert not (tmp_path / "s").exists()


def test_every_problem_of_the_file_at_once(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write()
    file.write_text(file.read_text().replace("worker.py", "nowhere.py") + "htpp: {}\nhttp: {listen: 1}\n")
    report = check(file)
    assert not report.good
    report.print()
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{file}:") for line in lines)
    assert f"{file}:4: agents[0].script: " in captured.err
    assert "did you mean http?" in captured.err


def test_no_value_of_the_file_steers_the_terminal(write: Write) -> None:
    shown = messages(check(write('script: "x\\e[31m.py"')))
    assert shown.count("\n") == 0
    assert "\x1b" not in shown
    assert "x\\x1b[31m.py" in shown


def test_a_missing_file(tmp_path: Path) -> None:
    report = check(tmp_path / "none.yaml")
    assert not report.good
    assert "no such file" in messages(report)


def test_an_environment_without_livekit_agents(write: Write, tmp_path: Path) -> None:
    bare = interpreter(tmp_path / "bare", "echo 'ModuleNotFoundError: No module named livekit' >&2; exit 1")
    report = check(write(f"script: worker.py\n    python: {bare}"))
    assert not report.good
    assert "agents[0].python" in messages(report)
    assert "cannot import livekit.agents: ModuleNotFoundError" in messages(report)


def test_an_environment_that_hangs(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.cli.check._IMPORT_TIMEOUT", 0.2)
    hanging = interpreter(tmp_path / "hanging", "exec sleep 60")
    report = check(write(f"script: worker.py\n    python: {hanging}"))
    assert "took longer than" in messages(report)


@pytest.mark.parametrize("given", ["env: {PYTHONPATH: '%s'}", "env_file: agent.env"])
def test_packages_are_looked_for_where_the_worker_finds_them(
    write: Write, tmp_path: Path, given: str
) -> None:
    """In a folder that the agent's own environment names."""
    packages = tmp_path / "packages"
    (packages / "livekit").mkdir(parents=True)
    (packages / "livekit/agents.py").write_text("__version__ = '1.8.9'\n")
    (tmp_path / "agent.env").write_text(f"PYTHONPATH={packages}\n")
    bare = interpreter(tmp_path / "bare", f'exec {sys.executable} -S "$@"')
    there = f"script: worker.py\n    python: {bare}"
    assert "No module named 'livekit'" in messages(check(write(there)))
    assert check(write(f"{there}\n    {given.replace('%s', str(packages))}")).good


def test_a_module_of_the_working_directory_is_not_pythons(write: Write, tmp_path: Path) -> None:
    (tmp_path / "livekit").mkdir()
    (tmp_path / "livekit/agents.py").write_text("raise SystemExit('of the working directory')\n")
    assert check(write(f"script: worker.py\n    python: {sys.executable}")).good


def test_an_environment_is_not_taken_for_a_worker(write: Write, tmp_path: Path) -> None:
    """By these variables the daemon finds workers that it did not start."""
    told = interpreter(tmp_path / "told", f"env > {tmp_path}/environment; pwd >> {tmp_path}/environment")
    assert check(write(f"script: worker.py\n    python: {told}\n    cwd: /\n    inherit_env: false")).good
    lines = (tmp_path / "environment").read_text().splitlines()
    assert "LIVEKIT_API_KEY=devkey" in lines
    assert lines[-1] == "/"
    assert not [line for line in lines if line.startswith(("LIVEKIT_SUPERVISOR_", "HOME="))]


def test_each_environment_is_asked_once(write: Write, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    counting = interpreter(tmp_path / "counting", f"echo call >> {calls}")
    file = write(f"script: worker.py\n    python: {counting}")
    other = f"  - id: two\n    script: worker.py\n    python: {counting}\n"
    file.write_text(file.read_text().replace("paths:", f"{other}paths:"))
    assert check(file).good
    assert calls.read_text() == "call\n"


def test_a_script_that_is_no_python(write: Write, tmp_path: Path) -> None:
    file = write()
    (tmp_path / "worker.py").write_text("def broken(:\n")
    report = check(file)
    assert not report.good
    assert "cannot be read as Python" in messages(report)


def test_the_thread_executor_is_a_warning(write: Write, tmp_path: Path) -> None:
    file = write()
    (tmp_path / "worker.py").write_text(
        f"{SCRIPT}from livekit import agents\nx = AgentServer(t=agents.JobExecutorType.THREAD)\n"
    )
    report = check(file)
    assert report.good
    assert "warning: uses the thread executor" in messages(report)


def test_what_run_refuses_is_an_error(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from supervisor.cli.app import main

    file = write()
    file.write_text(f"{file.read_text()}store: redis://127.0.0.1:6379/0\n")
    line = len(file.read_text().splitlines())
    assert messages(check(file)).startswith(f"{file}:{line}: store: this version supports sqlite only")
    for command in ("check", "run"):
        monkeypatch.setattr(sys, "argv", ["livekit-supervisor", command, "--config", str(file)])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        assert "supports sqlite only" in capsys.readouterr().err


def test_a_spare_that_is_not_kept_yet_is_a_warning(write: Write) -> None:
    file = write("script: worker.py\n    warm_spare: true")
    report = check(file)
    assert report.good
    assert messages(report).startswith(f"{file}:5: agents[0].warm_spare: warning: has no effect")


def test_each_problem_has_its_line(write: Write, tmp_path: Path) -> None:
    bare = interpreter(tmp_path / "bare", "exit 1")
    file = write(f"script: worker.py\n    python: {bare}", url=f"ws://127.0.0.1:{free_port()}")
    others = f"  - {{id: two, script: broken.py, python: {bare}}}\n  - {{id: three, script: threads.py}}\n"
    (tmp_path / "broken.py").write_text("def broken(:\n")
    (tmp_path / "threads.py").write_text("x = JobExecutorType.THREAD\n")
    file.write_text(file.read_text().replace("paths:", f"{others}paths:"))
    told = [(f.line, f.key) for f in check(file, online=True).findings if f.key != "agents[2].python"]
    assert told == [
        (7, "agents[1].script"),
        (8, "agents[2].script"),
        (5, "agents[0].python"),
        (7, "agents[1].python"),
        (1, "livekit"),
    ]


def test_a_command_that_is_not_there(write: Write) -> None:
    assert check(write("command: [sh, -c, 'true']")).good
    report = check(write("command: [no-such-program-anywhere]"))
    assert not report.good
    assert "agents[0].command: " in messages(report)


def test_livekit_is_asked_only_when_told_to(write: Write) -> None:
    file = write(url=f"ws://127.0.0.1:{free_port()}")
    assert check(file).good
    report = check(file, online=True)
    assert not report.good
    assert "livekit: ws://127.0.0.1" in messages(report)


def test_the_secret_is_never_told(write: Write) -> None:
    report = check(write(url=f"ws://127.0.0.1:{free_port()}"), online=True)
    assert "s" * 40 not in json.dumps(report.document())


def test_the_command_exits_with_2(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from supervisor.cli.app import main

    file = write()
    for text, code in ((file.read_text(), 0), ("", 2)):
        file.write_text(text)
        monkeypatch.setattr(sys, "argv", ["livekit-supervisor", "check", "--json", "--config", str(file)])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == code
        assert json.loads(capsys.readouterr().out)["ok"] is (code == 0)
