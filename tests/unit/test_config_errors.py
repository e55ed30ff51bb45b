"""What a bad configuration is told: every problem at once, where it stands, and no secret."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from supervisor.config import ConfigError, Problem, load

GOOD = """\
livekit:
  url: ws://127.0.0.1:7880
  api_key: key
  api_secret: s3cr3t-s3cr3t
agents:
  - id: a
    script: agent.py
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    (folder / "agent.py").touch()
    (folder / "empty").touch()
    (folder / "binary").write_bytes(b"\xff\xfe")
    (folder / "dir").mkdir()
    (folder / "bad.env").write_text("A=1\nnothing s3cr3t\nB='s3cr3t\nLIVEKIT_SUPERVISOR_STATE=/\n1C=2\n")
    return folder


def problems(
    folder: Path, text: str | bytes, environ: Mapping[str, str] | None = None
) -> tuple[Problem, ...]:
    file = folder / "config.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load(file, {"HOME": "/", "PATH": os.environ["PATH"], **(environ or {})})
    for line in str(caught.value).split("\n"):
        assert re.match(r"\S+(:\d+)?: .", line), line
        assert "s3cr3t" not in line
    return caught.value.problems


def agent(lines: str) -> str:
    return GOOD + "".join(f"    {line}\n" for line in lines.split("\n"))


def livekit(lines: str) -> str:
    return GOOD.replace("agents:", "".join(f"  {line}\n" for line in lines.split("\n")) + "agents:")


def command(value: str) -> str:
    return GOOD.replace("script: agent.py", f"command: {value}")


def api_key(value: str) -> str:
    return GOOD.replace("key: key", f"key: {value}")


AT = "127.0.0.1:9105"

BAD: list[tuple[str, str, int, str, str]] = [
    # name, text, line, key, message
    ("unknown key", GOOD + "room: {}\n", 8, "room", "did you mean rooms?"),
    ("unknown key, nothing like it", GOOD + "zzz: 1\n", 8, "zzz", "known here: livekit, agents"),
    ("unknown key of an agent", agent("restart: {intial: 1s}"), 8, "agents[0].restart.intial", "initial?"),
    ("missing section", GOOD.split("agents:")[0], 1, "agents", "is required"),
    ("missing key", GOOD.replace("  api_key: key\n", ""), 1, "livekit.api_key", "is required"),
    ("missing id", GOOD.replace("id: a\n    ", ""), 6, "agents[0].id", "is required"),
    ("key twice", GOOD.replace("key: key", "key: key\n  url: ws://b"), 4, "livekit.url", "first on line 2"),
    ("no agent", GOOD.split("agents:")[0] + "agents: []\n", 5, "agents", "must not be empty"),
    ("text for a section", GOOD + "rooms: all\n", 8, "rooms", "must be a mapping"),
    ("mapping for a list", GOOD + "rooms: {ignore: {}}\n", 8, "rooms.ignore", "must be a list"),
    ("text for a list", agent("rooms: '*'"), 8, "agents[0].rooms", "must be a list"),
    ("number for text", agent("name: 66"), 8, "agents[0].name", "in quotes"),
    ("boolean for text", agent("args: [yes]"), 8, "agents[0].args[0]", "in quotes"),
    ("number in env", agent("env:\n  PORT: 1"), 9, "agents[0].env.PORT", "in quotes"),
    ("text for a boolean", agent("warm_spare: 'yes'"), 8, "agents[0].warm_spare", "true or false"),
    ("number for a boolean", GOOD + "rooms: {enforce: 1}\n", 8, "rooms.enforce", "true or false"),
    ("fraction for a count", agent("max_rooms: 1.5"), 8, "agents[0].max_rooms", "whole number"),
    ("boolean for a count", agent("max_rooms: true"), 8, "agents[0].max_rooms", "whole number"),
    ("negative count", agent("max_rooms: -1"), 8, "agents[0].max_rooms", "at least 0"),
    ("infinite factor", agent("restart: {factor: .inf}"), 8, "agents[0].restart.factor", "at most 100"),
    ("small factor", agent("restart: {factor: 0.5}"), 8, "agents[0].restart.factor", "at least 1"),
    ("duration without unit", livekit("timeout: 5"), 5, "livekit.timeout", "500ms, 2s"),
    ("duration in base 60", livekit("timeout: 1:30"), 5, "livekit.timeout", "500ms, 2s"),
    ("negative duration", livekit("timeout: -1s"), 5, "livekit.timeout", "500ms, 2s"),
    ("endless duration", livekit(f"timeout: {'9' * 400}s"), 5, "livekit.timeout", "500ms, 2s"),
    ("no duration", livekit("timeout: 0s"), 5, "livekit.timeout", "longer than 0"),
    ("size without unit", agent("memory_limit: 512"), 8, "agents[0].memory_limit", "512KiB"),
    ("size with a duration's unit", agent("memory_limit: 5m"), 8, "agents[0].memory_limit", "512KiB"),
    ("max below initial", agent("restart: {initial: 2s, max: 1s}"), 8, "agents[0].restart", "max must not"),
    ("timeout near interval", agent("heartbeat: {interval: 6s}"), 8, "agents[0].heartbeat", "at least twice"),
    ("word out of a list", agent("rogue: ignore"), 8, "agents[0].rogue", "must be terminate or report"),
    ("log level", GOOD + "log:\n  level: loud\n", 9, "log.level", "must be debug, info, warning or error"),
    ("log of no size", GOOD + "log: {max_size: 0}\n", 8, "log.max_size", "at least 4KiB"),
    ("log of a few bytes", GOOD + "log: {max_size: 4095B}\n", 8, "log.max_size", "at least 4KiB"),
    ("log of a bare number", GOOD + "log: {max_size: 4096}\n", 8, "log.max_size", "512KiB"),
    ("listen without host", GOOD + "http: {listen: 9105}\n", 8, "http.listen", "HOST:PORT"),
    ("listen on port 0", GOOD + "http: {listen: 'h:0'}\n", 8, "http.listen", "HOST:PORT"),
    ("listen beyond ports", GOOD + "http: {listen: 'h:65536'}\n", 8, "http.listen", "HOST:PORT"),
    (
        "listen twice",
        GOOD + f"http: {{listen: {AT}, webhook_listen: {AT}}}\n",
        8,
        "http.webhook_listen",
        "by listen",
    ),
    (
        "listen as by default",
        GOOD + f"http:\n  webhook_listen: {AT}\n",
        9,
        "http.webhook_listen",
        "by listen",
    ),
    ("store", GOOD + "store: postgres://x\n", 8, "store", "sqlite or redis://"),
    ("url scheme", GOOD.replace("ws:", "ftp:"), 2, "livekit.url", "LiveKit's address"),
    ("url port", GOOD.replace("7880", "788O"), 2, "livekit.url", "LiveKit's address"),
    ("url brackets", GOOD.replace("127.0.0.1", "'['"), 2, "livekit.url", "LiveKit's address"),
    ("empty secret", GOOD.replace("s3cr3t-s3cr3t", "''"), 4, "livekit.api_secret", "must not be empty"),
    ("number as secret", GOOD.replace("s3cr3t-s3cr3t", "123"), 4, "livekit.api_secret", "must be text"),
    ("no secret", GOOD.replace("  api_secret: s3cr3t-s3cr3t\n", ""), 1, "livekit.api_secret", "_file"),
    ("two secrets", livekit("api_secret_file: agent.py"), 5, "livekit.api_secret_file", "keep one"),
    ("half a webhook key", livekit("webhook_api_key: k"), 1, "livekit.webhook_api_secret", "beside webhook"),
    ("line break in a key", api_key('"a\\nb"'), 3, "livekit.api_key", "control characters"),
    ("script missing", GOOD.replace("agent.py", "gone.py"), 7, "agents[0].script", "no such file: /"),
    ("script a folder", GOOD.replace("agent.py", "dir"), 7, "agents[0].script", "is not a file"),
    ("script and command", agent("command: [sleep, '1']"), 8, "agents[0].command", "keep one"),
    ("neither", GOOD.replace("    script: agent.py\n", ""), 6, "agents[0].script", "or command"),
    ("command empty", command("[]"), 7, "agents[0].command", "not be empty"),
    ("command not there", command("[no-such-x]"), 7, "agents[0].command", "not on PATH"),
    ("command no program", command("[./agent.py]"), 7, "agents[0].command", "no executable file: /"),
    ("command with a number", command("[sleep, 1]"), 7, "agents[0].command[1]", "in quotes"),
    ("python no program", agent("python: dir/python"), 8, "agents[0].python", "is no executable file: /"),
    ("cwd", agent("cwd: nowhere"), 8, "agents[0].cwd", "no such directory: /"),
    ("name of a variable", agent("env: {A-B: x}"), 8, "agents[0].env.A-B", "letters, digits and _"),
    (
        "our variables",
        agent("env: {LIVEKIT_SUPERVISOR_: x}"),
        8,
        "agents[0].env.LIVEKIT_SUPERVISOR_",
        "set by",
    ),
    ("NUL in a variable", agent('env: {A: "\\0"}'), 8, "agents[0].env.A", "NUL"),
    ("env_file missing", agent("env_file: gone"), 8, "agents[0].env_file", "no such file: /"),
    ("same id", GOOD + "  - {id: a, script: agent.py}\n", 8, "agents[1].id", "id of agents[0] already"),
    ("id with a slash", GOOD.replace("id: a", "id: ../a"), 6, "agents[0].id", "names files"),
    ("id a dot", GOOD.replace("id: a", "id: ."), 6, "agents[0].id", "names files"),
    ("id too long", GOOD.replace("id: a", f"id: {'a' * 129}"), 6, "agents[0].id", "names files"),
    ("id not ASCII", GOOD.replace("id: a", "id: ä"), 6, "agents[0].id", "names files"),
    ("id of our own", GOOD.replace("id: a", "id: livekit-server"), 6, "agents[0].id", "supervisor's own"),
    ("agent a word", GOOD + "  - b\n", 8, "agents[1]", "must be a mapping"),
    ("unset variable", api_key("${NO_SUCH}"), 3, "livekit.api_key", "NO_SUCH is not set"),
    ("odd variable", api_key("${a b}"), 3, "livekit.api_key", "write a variable as ${NAME}"),
    ("open variable", api_key("'${A'"), 3, "livekit.api_key", "write a variable as ${NAME}"),
    ("tag", api_key("!!python/name:os.system x"), 3, "livekit.api_key", "tags"),
    ("merge of a word", GOOD.replace("id: a", "<<: b\n    id: a"), 6, "agents[0]", "<< takes a mapping"),
    ("runtime too long", GOOD + f"paths: {{runtime: /{'x' * 100}}}\n", 8, "paths", "too long"),
    ("path a number", GOOD + "paths: {state: 5}\n", 8, "paths.state", "must be a path"),
]


@pytest.mark.parametrize(
    ("text", "line", "key", "message"), [pytest.param(*row[1:], id=row[0]) for row in BAD]
)
def test_one_problem_with_its_place(folder: Path, text: str, line: int, key: str, message: str) -> None:
    found = problems(folder, text)
    assert [(p.line, p.key) for p in found] == [(line, key)]
    assert message in found[0].message


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", None, "is empty"),
        ("# nothing\n", None, "is empty"),
        ("- a\n", 1, "must be a mapping"),
        ("livekit: [\n", 2, "YAML"),
        ("a: b\n c: d: e\n", 2, "YAML"),
        ("a: 'open\n", 2, "YAML"),
        ("a:\tb\n", 1, "YAML"),
        ("a: *s3cr3t\n", 1, "undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, "single document"),
        ("a: 1\nb: \x07\n", 2, "#x0007"),
        ("livekit: {url: ${URL}}\n", 1, "put ${...} in quotes"),
        (b"a: 1\nb: \xff\n", 2, "not UTF-8"),
        (b"x" * 2_000_000, None, "larger than 1 MiB"),
        ("[" * 5_000, None, "nested too deeply"),
        ("a: &a [*a]\n", 1, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_configuration(
    folder: Path, text: str | bytes, line: int | None, message: str
) -> None:
    found = problems(folder, text)
    assert [(p.line, p.message.count(message)) for p in found] == [(line, 1)]


def test_aliases_cannot_grow_without_end(folder: Path) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
    )
    assert [p.message for p in problems(folder, bomb)] == ["holds too many values"]


@pytest.mark.parametrize("name", ["missing.yaml", "dir", "agent.py/config.yaml"])
def test_a_file_that_cannot_be_read(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder / name, {})
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (None, "")
    assert str(problem).startswith(f"{folder / name}: ")


def test_problems_of_an_env_file_have_its_lines(folder: Path) -> None:
    found = problems(folder, agent("env_file: bad.env"))
    assert {p.file for p in found} == {str(folder / "bad.env")}
    assert [p.line for p in found] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "message"), [("empty", "is empty"), ("binary", "not UTF-8"), ("s3cr3t", "no such file")]
)
def test_a_secret_file_is_not_quoted(folder: Path, name: str, message: str) -> None:
    text = GOOD.replace("api_secret: s3cr3t-s3cr3t", f"api_secret_file: {name}")
    (problem,) = problems(folder, text)
    assert problem.key == "livekit.api_secret_file"
    assert message in problem.message


def test_everything_is_told_at_once_in_the_order_of_the_file(folder: Path) -> None:
    found = problems(
        folder,
        """\
livekit: {url: x, api_key: 1, typo: 2}
agents:
  - {id: a b, script: gone, env_file: bad.env}
  - {id: c, script: agent.py, max_rooms: "${NO_SUCH}"}
  - {id: c, command: [no-such-x], args: []}
rooms: {resync: never}
""",
    )
    places = [(p.line, p.key) for p in found if p.file.endswith("config.yaml")]
    assert [line for line, _ in places] == sorted(line or 0 for line, _ in places)
    assert set(places) == {
        (1, "livekit.typo"),
        (1, "livekit.api_secret"),
        (1, "livekit.url"),
        (1, "livekit.api_key"),
        (3, "agents[0].id"),
        (3, "agents[0].script"),
        (4, "agents[1].max_rooms"),
        (5, "agents[2].args"),
        (5, "agents[2].id"),
        (5, "agents[2].command"),
        (6, "rooms.resync"),
    }
    assert len(found) == len(places) + 4


@pytest.mark.parametrize("key", ["url", "api_key", "timeout", "api_secret_file", "webhook_api_key"])
def test_what_was_filled_in_is_not_quoted(folder: Path, key: str) -> None:
    gone = (f"  {key}:", "api_secret")
    text = "\n".join(line for line in GOOD.split("\n") if not any(part in line for part in gone))
    text = text.replace("agents:", f"  {key}: ${{VALUE}}\nagents:")
    problems(folder, text, {"VALUE": "s3cr3t"})
    elsewhere = GOOD.replace("agent.py", "${VALUE}") + "store: ${VALUE}\nlog: {keep: '${VALUE}'}\n"
    problems(folder, elsewhere, {"VALUE": "s3cr3t"})


def test_the_file_is_named_as_it_was_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "config.yaml").write_text("a: 1\n")
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match=r"^config\.yaml:1: livekit: is required\nconfig"):
        load(Path("config.yaml"), {})


# --- anything -----------------------------------------------------------------------------------------

_words = st.sampled_from(["1s", "a", "${X}", "${Y:-2}", "*", "1MiB", "agent.py"])
_scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), _words)
_sections = ["livekit", "agents", "rooms", "http", "store", "history", "paths", "log"]
_keys = st.sampled_from(
    [*_sections, "id", "script", "command", "env", "restart", "url", "ignore", "state", "x"]
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=5),
    max_leaves=20,
)


def _load_or_be_told(file: Path) -> None:
    """Any other exception is a defect."""
    with contextlib.suppress(ConfigError):
        load(file, {"HOME": "/", "X": "1"})


@given(st.dictionaries(_keys, _values, max_size=6))
def test_any_data_is_settings_or_problems(folder: Path, data: dict[str, object]) -> None:
    file = folder / "any.yaml"
    file.write_text(yaml.safe_dump(data))
    _load_or_be_told(file)


@given(
    st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"%@` \n\t#?,0.$<~"), max_size=60) | st.text(max_size=40)
)
def test_any_text_is_settings_or_problems(folder: Path, text: str) -> None:
    file = folder / "any.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    _load_or_be_told(file)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 6), st.text(alphabet=":-[]{}&*!'\"$ \na1", max_size=3))
def test_any_slip_of_the_pen_is_settings_or_problems(
    folder: Path, start: int, length: int, slip: str
) -> None:
    file = folder / "any.yaml"
    file.write_text(GOOD[:start] + slip + GOOD[start + length :])
    _load_or_be_told(file)
