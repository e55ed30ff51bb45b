"""Which command lines are LiveKit workers, and which merely name the same script."""

from __future__ import annotations

import shlex

import pytest

from supervisor.process.command_line import worker_script

SCRIPT = "/srv/voice/agent.py"

WORKERS = [
    "python agent.py start",
    "python3 /srv/voice/agent.py start",
    "python3.11 ./agent.py dev",
    "python ../voice/agent.py connect --room r",
    "python agent.py --log-level start",
    "python agent.py start --log-level debug",
    "python -u -X dev agent.py start",
    "python -uB -Xfrozen_modules=off -W error -Wignore agent.py start",
    "python --check-hash-based-pycs never agent.py start",
    "python -m livekit.agents start agent.py",
    "python -mlivekit.agents start agent.py",
    "python -um livekit.agents start --log-level DEBUG --dev agent.py",
    "python -m livekit.agents start --log-level=debug /srv/voice/agent.py",
    "python -m livekit.agents start --url ws://x --api-key k agent.py --simulation",
    "python -m agent_guard agent.py",
    "python -m agent_guard -- agent.py start",
    "python -I -m agent_guard /srv/voice/agent.py dev",
    "pypy3.10 agent.py start",
]

OTHERS = [
    "python agent.py",
    "python agent.py console",
    "python agent.py download-files",
    "python agent.py --help",
    "python agent.py tests start",
    "python -m livekit.agents console --connect-addr x agent.py",
    "python -m livekit.agents download-files",
    "python -m livekit.agents start",
    "python -m agent_guard",
    "python -m pytest agent.py start",
    "python -m pdb agent.py start",
    "python -m livekit.agents.other start agent.py",
    "python -m black agent.py",
    "python /usr/bin/pytest agent.py start",
    "python -c 'import agent' agent.py start",
    "python -uc 'x' agent.py start",
    "python - agent.py start",
    "python -",
    "python",
    "python -m",
    "python -W",
    "vim agent.py start",
    "less +F agent.py",
    "emacs agent.py",
    "bash -c 'python agent.py start'",
    "sh agent.py start",
    "tail -f agent.py start",
    "grep -r start agent.py",
    "pytest agent.py",
    "uv run agent.py start",
    "watchexec python agent.py start",
    "python-config agent.py start",
    "pythonista agent.py start",
    "ipython agent.py start",
    "",
]


@pytest.mark.parametrize("line", WORKERS)
def test_a_worker(line: str) -> None:
    argv = shlex.split(line)
    assert worker_script(f"/usr/bin/{argv[0]}", argv, "/srv/voice") == SCRIPT
    assert worker_script("", argv, "/srv/voice") == SCRIPT


@pytest.mark.parametrize("line", OTHERS)
def test_no_worker(line: str) -> None:
    argv = shlex.split(line)
    assert worker_script(f"/usr/bin/{argv[0]}" if argv else "", argv, "/srv/voice") is None
    assert worker_script("", argv, "/srv/voice") is None


def test_the_program_counts_and_not_the_name_that_it_was_given() -> None:
    assert worker_script("/usr/bin/vim", ["python", SCRIPT, "start"], "/") is None
    assert worker_script("/usr/bin/python3.11", ["agent", SCRIPT, "start"], "/") == SCRIPT
    assert worker_script("/usr/bin/python3.11 (deleted)", ["python", SCRIPT, "start"], "/") == SCRIPT


def test_a_relative_script_is_found_from_where_the_process_is() -> None:
    argv = ["python", "agent.py", "start"]
    assert worker_script("", argv, "/srv/other") == "/srv/other/agent.py"
    assert worker_script("", argv, None) is None
    assert worker_script("", ["python", SCRIPT, "start"], None) == SCRIPT
