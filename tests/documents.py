"""What the documents tell a reader to type, and who types it before them.

One rule: a line of a shell in a document is run by a test, or stands here with the reason why it is not.
Commands of ours are run by ``tests/livekit/test_snippets.py``, unless they are named here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "grafana").glob("*.md")])
COMMAND = "livekit-supervisor"

SHELL = ("sh",)
YAML = ("yaml",)
DRAWN = ("mermaid",)
SHOWN = ("text",)

_WHEEL = "tests/livekit/test_wheel.py"
_MIGRATION = "tests/livekit/test_migration.py::test_observing_beside_the_old_worker_touches_nothing"
_BOOT = "tests/process/test_systemd_boot.py"

RUN_ELSEWHERE = {
    "make run": "tests/livekit/test_daemon.py::test_ctrl_c_in_development_ends_all_of_it_within_10_seconds",
    "livekit-supervisor --install-completion": (
        "tests/unit/test_cli_terminal.py::test_the_shell_completes_commands_and_agents"
    ),
    "make demo": "tests/livekit/test_demo.py::test_the_room_ends_with_exactly_one_audible_agent",
    "livekit-supervisor run": f"{_WHEEL}::test_check_run_status_diagnose_a_conflict_and_stop",
    "python3 -m venv /opt/livekit-supervisor": f"{_WHEEL}::test_the_documents_way_to_install",
    "pip install .": f"{_WHEEL}::test_the_documents_way_to_install",
    "/opt/livekit-supervisor/bin/pip install .": f"{_WHEEL}::test_the_documents_way_to_install",
    "SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) python -m hatchling build": (
        "tests/unit/test_packaging.py::test_the_documents_way_to_build"
    ),
    **dict.fromkeys(
        (
            "livekit-supervisor import --observe .env start_voice_agent_safe.sh --output observe.yaml",
            "livekit-supervisor --config observe.yaml run",
            "livekit-supervisor --config observe.yaml diagnose",
            "livekit-supervisor --config observe.yaml rooms",
            "livekit-supervisor --config observe.yaml conflicts --since 1d",
            "livekit-supervisor import .env /etc/systemd/system/voice-agent.service "
            "start_voice_agent_safe.sh --output config.yaml",
            "livekit-supervisor --config config.yaml check --online",
        ),
        _MIGRATION,
    ),
    "curl -s http://127.0.0.1:9105/healthz": (
        "tests/livekit/test_daemon.py::test_livekit_unreachable_is_said_everywhere_and_recovers_by_itself"
    ),
    "systemctl start livekit-supervisor": f"{_BOOT}::test_it_boots_without_livekit_and_tells_what_it_does",
    "systemctl stop": f"{_BOOT}::test_stop_leaves_no_process_and_keeps_state_and_logs",
    "systemd-analyze security --offline=true": "tests/process/test_systemd_units.py::test_exposure",
    "promtool test rules prometheus/tests/*.yml": (
        "tests/observability/test_rules.py::test_promtool_runs_the_unit_tests"
    ),
    "promtool check config /etc/prometheus/prometheus.yml": (
        "tests/observability/test_rules.py::test_promtool_checks_the_configuration"
    ),
    "amtool check-config": (
        "tests/observability/test_rules.py::test_amtool_checks_the_example_for_alertmanager"
    ),
}
"""By whom: with folders, addresses and package index of the test's own, and else as written."""

NOT_RUN = {
    "make test": "it is what runs this",
    "make bench": "takes half an hour; what it printed is docs/benchmarks.md",
    ".venv/bin/python -m tests.bench claims --quick": "takes minutes; its arguments are parsed",
    ".venv/bin/python -m tests.bench --json FILE": "takes half an hour; its arguments are parsed",
    "make grafana DOCS=https://git.example.org/livekit-supervisor/blob/main/docs": (
        "writes into the checkout; tests/observability compares what it would write, for other addresses, too"
    ),
    "docker compose up -d": "its images are not to be had here; the file is checked for its structure",
    "python -m tests.pictures": "takes the pictures anew; tests/unit/test_documents.py looks at them",
    "python agent.py console": "livekit-agents' own, with a microphone",
    "systemctl kill -s KILL --kill-who=main livekit-supervisor": (
        f"{_BOOT}::test_a_killed_daemon_comes_back_and_has_the_same_workers sends the signal itself"
    ),
    "sudo -u livekit-supervisor env STATE_DIRECTORY=/var/lib/livekit-supervisor "
    "/opt/livekit-supervisor/bin/livekit-supervisor --config /etc/livekit-supervisor/config.yaml clean-up": (
        "for the service's user and folders, which tests/unit/test_documents.py compares with the unit's"
    ),
    **dict.fromkeys(("df -h", "df -i", "free -m", "journalctl -k"), "looks at the reader's machine"),
    **dict.fromkeys(
        ("systemctl disable --now", "pm2 delete"), "the reader's own service, which we cannot know"
    ),
    **dict.fromkeys(
        ("systemctl reload prometheus", "systemctl restart grafana-server"), "a service of others"
    ),
}


OTHER_PROGRAMS = (
    *("amtool", "apt-get", "curl", "df", "docker", "free", "git", "journalctl", "kill", "pip", "pipx", "pm2"),
    *("promtool", "python", "python3", "sudo", "systemctl", "systemd-analyze", "timedatectl", "uv"),
)
"""Whose commands stand between backquotes, too."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """Those in these languages; all, if none is named."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        for match in re.finditer(r"^ *```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
            if not languages or match[1] in languages:
                found.append(Block(document, text.count("\n", 0, match.start()) + 1, match[1], match[2]))
    return found


def typed() -> Iterator[tuple[str, str]]:
    """Where it stands, and each line for a shell in a block, without its remark."""
    for block in blocks(*SHELL):
        for line in block.text.replace("\\\n", " ").splitlines():
            plain = re.sub(r"(^|\s)#.*", "", line).strip()
            if plain:
                yield str(block), plain


def mentioned(*programs: str) -> Iterator[tuple[str, str]]:
    """Where it stands, and each command of these between backquotes; of ours, if none is named."""
    names = "|".join(map(re.escape, programs or (COMMAND,)))
    for document in DOCUMENTS:
        for match in re.finditer(rf"`((?:{names})\s[^`]+)`", document.read_text()):
            yield document.name, re.sub(r"\s+", " ", match[1])


def to_run() -> list[str]:
    """Every line that nobody else runs, each once."""
    lines = dict.fromkeys(line for _, line in (*typed(), *mentioned()))
    return [line for line in lines if line not in RUN_ELSEWHERE and line not in NOT_RUN]


def as_written(line: str) -> str:
    """The line, for a test that runs it: it must still stand in a document."""
    assert line in {typed_line for _, typed_line in typed()}, f"no document says: {line}"
    return line
