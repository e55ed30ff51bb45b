"""What the documents say, held against the program: commands and options, configurations, links and tests.

Commands that only look are run; those that act are tested elsewhere, and here that they exist as written.
"""

from __future__ import annotations

import configparser
import html
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import typer.main
import yaml
from typer.core import TyperCommand, TyperGroup

from supervisor.cli import schema
from supervisor.cli.app import app
from supervisor.config import ConfigError, load
from tests.bench import __main__ as bench
from tests.documents import (
    COMMAND,
    DOCUMENTS,
    DRAWN,
    NOT_RUN,
    OTHER_PROGRAMS,
    ROOT,
    RUN_ELSEWHERE,
    SHELL,
    SHOWN,
    YAML,
    Block,
    blocks,
    mentioned,
    typed,
)

SECTIONS = set(schema.document()["properties"])


# --- commands -------------------------------------------------------------------------------------------


def test_every_block_is_of_a_kind_that_is_looked_at() -> None:
    known = {*SHELL, *YAML, *DRAWN, *SHOWN}
    assert [
        f"{block}: {block.language or 'no language'}" for block in blocks() if block.language not in known
    ] == []


def test_every_line_is_run_or_says_why_not() -> None:
    """A new one of ours is run by tests/livekit/test_snippets.py without being named anywhere."""
    strange = [
        f"{place}: {line}"
        for place, line in (*typed(), *mentioned(*OTHER_PROGRAMS))
        if line.split()[0] != COMMAND and line not in RUN_ELSEWHERE and line not in NOT_RUN
    ]
    assert strange == [], "run it in a test and name that in tests/documents.py, or the reason why not"


def test_no_line_is_excused_that_nobody_wrote() -> None:
    written = {line for _, line in (*typed(), *mentioned(), *mentioned(*OTHER_PROGRAMS))}
    assert (RUN_ELSEWHERE.keys() | NOT_RUN.keys()) - written == set()
    assert RUN_ELSEWHERE.keys().isdisjoint(NOT_RUN)


def shell_lines() -> Iterator[tuple[str, str]]:
    """Where it stands, and each command of a line."""
    for place, line in typed():
        for part in re.split(r"&&|\|\||;|\|", line):
            yield place, part.strip()
    yield from mentioned()


def our_commands() -> list[tuple[str, tuple[str, ...]]]:
    found: dict[tuple[str, tuple[str, ...]], None] = {}
    for place, line in shell_lines():
        words = shlex.split(re.sub(r"\s\d?[<>]+\s*\S+", "", line))
        names = [Path(word).name for word in words]
        if COMMAND in names and (words[0] in ("sudo", "exec") or names[0] == COMMAND):
            found[(place, tuple(words[names.index(COMMAND) + 1 :]))] = None
    return list(found)


PLACEHOLDERS = {"AGENT": "one", "FILE": "config.yaml", "ID": "one"}


@pytest.mark.parametrize(
    ("place", "words"), our_commands(), ids=lambda v: v if isinstance(v, str) else " ".join(v)
)
def test_every_command_and_option_exists(place: str, words: tuple[str, ...]) -> None:
    """Parsed by the command line itself, up to the point of carrying it out."""
    arguments = [re.sub(r"^\[|\]$", "", word) for word in words if word not in ("...", "…")]
    arguments = [PLACEHOLDERS.get(word, word) for word in arguments]
    while arguments[:1] == ["--config"]:
        del arguments[:2]
    commands = _commands()
    name, *rest = arguments or ["--help"]
    if name.startswith("-"):
        return
    assert name in commands, f"{place}: there is no command {name}"
    with commands[name].make_context(name, rest):
        pass


def _commands() -> dict[str, TyperCommand]:
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    return {name: c for name, c in root.commands.items() if isinstance(c, TyperCommand)}


def test_every_command_is_in_the_readme() -> None:
    table = (ROOT / "README.md").read_text().partition("## Commands")[2]
    missing = [
        n for n, c in _commands().items() if not c.hidden and not re.search(rf"`[^`\n]*\b{n}\b", table)
    ]
    assert missing == []


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {match for d in DOCUMENTS for match in re.findall(r"`?\bmake ([a-z]+)`", d.read_text())}
    used |= {line.split()[1] for _, line in shell_lines() if line.startswith("make ")}
    assert used <= targets
    assert used


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("schema",),
        ("schema", "--reference"),
        ("run", "--help"),
        ("import", "--help"),
    ],
    ids=" ".join,
)
def test_what_only_looks_is_run(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_clean_up_by_hand_is_that_of_the_unit() -> None:
    """As its user, in its state directory, and by its program: root's own look elsewhere and end nobody."""
    [line] = {line for _, line in mentioned("sudo") if line.endswith("clean-up")}
    unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(ROOT / "deploy/systemd/livekit-supervisor.service")
    service = unit["Service"]
    state = f"STATE_DIRECTORY=/var/lib/{service['StateDirectory']}"
    program = service["ExecStopPost"].removesuffix(" --after-stop")
    assert line == f"sudo -u {service['User']} env {state} {program}"


@pytest.mark.parametrize(("target", "command"), [("run", "run --dev"), ("demo", "demo")])
def test_what_make_does(target: str, command: str) -> None:
    """The two targets that are tested as the command that they are."""
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == f"exec .venv/bin/{COMMAND} {command}"


def test_the_arguments_of_the_bench_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for _, line in typed() if "-m tests.bench" in line]
    assert len(lines) == 2
    for line in lines:
        monkeypatch.setattr(sys, "argv", shlex.split(line)[2:])
        arguments = bench._arguments()
        assert set(arguments.parts) <= bench.PARTS.keys()


# --- figures and pictures -------------------------------------------------------------------------------


def test_what_the_demo_is_shown_to_print_is_in_its_picture() -> None:
    """Both of one run: the README's table, word for word."""
    [block] = blocks(*SHOWN)
    drawn = drawn_text(ROOT / "docs/pictures/demo.svg")
    for line in block.text.splitlines():
        assert "".join(line.split()) in drawn, line


def drawn_text(picture: Path) -> str:
    """Of an SVG, without its spaces, in the order of the lines."""
    pieces = re.findall(
        r'<text class="[^"]+" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', picture.read_text()
    )
    pieces.sort(key=lambda piece: (float(piece[1]), float(piece[0])))
    return "".join(html.unescape(text) for _, _, text in pieces).replace("\xa0", "").replace(" ", "")


def test_pictures_are_small_and_ask_nobody_for_anything() -> None:
    pictures = [ROOT / "docs/pictures/demo.svg", ROOT / "docs/pictures/status-page.png"]
    assert sorted((ROOT / "docs/pictures").iterdir()) == pictures
    assert all(1_000 < picture.stat().st_size <= 150_000 for picture in pictures)
    assert pictures[1].read_bytes().startswith(b"\x89PNG")
    svg = pictures[0].read_text()
    assert not re.search(r"url\((?!#)|href=|<script|src=", svg)


def measured(heading: str, row: str, column: int) -> float:
    """A figure of the benchmarks."""
    section = (ROOT / "docs/benchmarks.md").read_text().partition(f"### {heading}\n")[2]
    [line] = re.findall(rf"^\| {re.escape(row)} +\|.*", section.partition("\n### ")[0], re.MULTILINE)[:1]
    return float(line.split("|")[column].replace(",", ""))


def test_the_figures_of_the_comparison_are_those_of_the_benchmarks() -> None:
    compared = (ROOT / "README.md").read_text().partition("## How it compares")[2].partition("\n## ")[0]
    death = "From a worker's death to its successor"
    for text in (
        f"after {measured(death, 'supervisord', 3) / 1000:.1f} s (supervisord)",
        f"{measured(death, 'circus, check_delay = 5 s', 3) / 1000:.1f} s (circus by default",
        f"{measured(death, 'circus, check_delay = 0.1 s', 3):.0f} ms when it looks ten times a second",
        f"after {measured(death, 'livekit-supervisor', 3):.0f} ms |",
        f"{measured('An idle daemon', 'supervisord', 4):.0f} and",
        f"and {measured('An idle daemon', 'circus, check_delay = 5 s', 4):.0f} MiB",
        f"| {measured('An idle daemon', 'livekit-supervisor', 4):.0f} MiB |",
    ):
        assert text in compared, f"not in the README: {text}"


def how_often() -> list[tuple[str, ...]]:
    table = (ROOT / "docs/testing.md").read_text().partition("## How often")[2].partition("\n## ")[0]
    return re.findall(r"^\| [^|]+ \| ([\d,]+) \| ([\d,]+) \| `([^`]+)` \|$", table, re.MULTILINE)


@pytest.mark.parametrize(("test", "soak", "file"), how_often())
def test_it_is_played_as_often_as_is_said(test: str, soak: str, file: str) -> None:
    text = (ROOT / file).read_text().replace("_", "")
    few, many = test.replace(",", ""), soak.replace(",", "")
    assert re.search(rf"times\((test=)?{few}, soak={many}\)", text), file


def test_what_is_played_is_told() -> None:
    assert len(how_often()) == 10


# --- diagrams -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks(*DRAWN), ids=str)
def test_a_diagram_is_of_a_kind_and_its_arrows_have_two_ends(block: Block) -> None:
    """Nothing here draws it; a name that was never introduced is what goes wrong most."""
    kind, _, rest = block.text.partition("\n")
    if kind.startswith("flowchart "):
        assert rest.count("subgraph ") == len(re.findall(r"^ *end$", rest, re.MULTILINE))
        return
    assert kind == "sequenceDiagram"
    known = set(re.findall(r"^ *participant (\w+)", rest, re.MULTILINE))
    arrows = re.findall(r"^ *(\w+)-{1,2}>>(\w+): \S", rest, re.MULTILINE)
    lines = [line for line in rest.splitlines() if not re.match(r" *participant |\s*$", line)]
    assert len(arrows) == len(lines), "a line that is no arrow"
    assert {name for arrow in arrows for name in arrow} == known


# --- configurations -------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks(*YAML), ids=str)
def test_yaml_is_what_it_says(block: Block, tmp_path: Path) -> None:
    """A whole configuration is loaded; a part of one fits the schema; LiveKit's own are named as such."""
    data = yaml.safe_load(block.text)
    if data is None or "livekit.yaml" in block.text:
        return
    if not isinstance(data, dict) or not data.keys() <= SECTIONS:
        assert not isinstance(data, dict) or data.keys() - SECTIONS, str(block)
        return
    if {"livekit", "agents"} <= data.keys():
        _load(block, data, tmp_path)
        return
    properties = schema.document()["properties"]
    for key, value in data.items():
        jsonschema.Draft7Validator(properties[key]).validate(value)


def _load(block: Block, data: dict[str, object], folder: Path) -> None:
    """With the files that it names."""
    agents = data["agents"]
    assert isinstance(agents, list)
    for agent in agents:
        for key in ("script", "python", "env_file"):
            if key in agent:
                file = folder / str(agent[key])
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("")
                file.chmod(0o755)
    (folder / "config.yaml").write_text(block.text)
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)", block.text), "value")
    try:
        load(folder / "config.yaml", {**variables, "PATH": os.defpath, "HOME": str(folder)})
    except ConfigError as error:
        raise AssertionError(f"{block}: {error}") from None


# --- links and tests ------------------------------------------------------------------------------------


def links() -> list[tuple[Path, str]]:
    found = []
    for document in DOCUMENTS:
        text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
        found += [(document, target) for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    return found


def headings(document: Path) -> set[str]:
    """As anchors."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(("document", "target"), links(), ids=lambda v: v.name if isinstance(v, Path) else v)
def test_every_link_leads_somewhere(document: Path, target: str) -> None:
    if re.match(r"(https?|mailto):", target):
        return
    name, _, anchor = target.partition("#")
    path = (document.parent / name) if name else document
    assert path.exists(), f"{document.name}: {target}"
    if anchor and path.suffix == ".md":
        assert anchor in headings(path), f"{document.name}: {target}"


def named_tests() -> list[tuple[str, str]]:
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    by_documents = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    return sorted({*by_documents, *(tuple(name.split("::")) for name in RUN_ELSEWHERE.values())})


@pytest.mark.parametrize(("file", "test"), named_tests())
def test_every_test_that_is_named_exists(file: str, test: str) -> None:
    assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{test}"


def test_every_row_of_the_bad_input_table_names_its_test() -> None:
    table = (ROOT / "docs/security.md").read_text().partition("## Bad input")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 25
    assert [row for row in rows if "::test_" not in row] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_paths_that_are_named_exist(document: Path) -> None:
    """Of files in this repository, as far as they are written with their folder."""
    named = re.findall(
        r"`((?:supervisor|agent|tests|docs|deploy|dev|grafana|requirements)/[\w./*-]+)`", document.read_text()
    )
    missing = [n for n in named if not (list(ROOT.glob(n.rstrip("/"))) if "*" in n else (ROOT / n).exists())]
    assert missing == []
