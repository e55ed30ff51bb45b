"""Secrets taken out of text: known ones wherever they stand, named ones whatever they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from supervisor.cli.known_secrets import redactor, without_secrets
from supervisor.cli.redaction import REMOVED, Redactor
from supervisor.config import load
from supervisor.config.secret_names import is_secret

NOTHING_KNOWN = Redactor([])


@given(secret=st.text(min_size=4, max_size=60), before=st.text(max_size=30), after=st.text(max_size=30))
def test_a_known_secret_is_nowhere(secret: str, before: str, after: str) -> None:
    if len(secret.strip()) < 4 or secret.strip() in REMOVED:
        return
    assert secret not in Redactor([secret]).clean(f"{before}{secret}{after}").replace(REMOVED, "")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("api_secret: abcdefgh", f"api_secret: {REMOVED}"),
        ("{api_secret: abcdefgh, url: x}", f"{{api_secret: {REMOVED}, url: x}}"),
        ("LETTA_API_KEY='a b c'", f"LETTA_API_KEY={REMOVED}"),
        ('{"password": "x\\"y"}', f'{{"password": {REMOVED}}}'),
        ("redis://:hunter2@db:6379/0", f"redis://:{REMOVED}@db:6379/0"),
        ("postgres://me:hunter2@db/x", f"postgres://me:{REMOVED}@db/x"),
        ("Authorization: Bearer abcdefghijkl", f"Authorization: {REMOVED}"),
        ("token eyJhbGciOi.eyJzdWIiOi.c2ln is it", f"token {REMOVED} is it"),
        ("key sk-abcdefghijklmnop", f"key {REMOVED}"),
        ("FAL_KEY=abc", f"FAL_KEY={REMOVED}"),
        ("DB_PWD=abc", f"DB_PWD={REMOVED}"),
        ("x-api-key: abc", f"x-api-key: {REMOVED}"),
        ("agent.py --api-key=abc start", f"agent.py --api-key={REMOVED} start"),
        ("agent.py --api-key abc start", f"agent.py --api-key {REMOVED} start"),
        ("agent.py --no-auth --verbose start", "agent.py --no-auth --verbose start"),
        ("args: [start, --token, 'abc', x]", f"args: [start, --token, '{REMOVED}', x]"),
        ("Authorization: Token KEY, and more\nnext", f"Authorization: {REMOVED}\nnext"),
        ("{'authorization': 'Token KEY'}", f"{{'authorization': {REMOVED}"),
        ('password="cut off', f"password={REMOVED}"),
        ("keyboard: us, monkey: no", "keyboard: us, monkey: no"),
        ("room: lobby, humans: 2", "room: lobby, humans: 2"),
        ("http://127.0.0.1:9105/metrics", "http://127.0.0.1:9105/metrics"),
    ],
)
def test_by_name_and_by_shape(text: str, cleaned: str) -> None:
    assert NOTHING_KNOWN.clean(text) == cleaned


def of(text: str, environ: dict[str, str] | None = None, file: Path = Path("config.yaml")) -> Redactor:
    """What is known from the file alone."""
    return redactor(file, text, None, environ or {})


def test_the_lines_of_a_block_in_yaml() -> None:
    text = "livekit:\n  api_secret: |\n    first line\n    second line\nother: [1]\n"
    assert without_secrets(text) == f"livekit:\n  api_secret: {REMOVED}\nother: [1]\n"
    cleaned = of(text).clean(f"a log: first line, then {text}")
    assert "first line" not in cleaned
    assert "second line" not in cleaned
    assert "other: [1]" in cleaned


def test_the_default_of_a_variable() -> None:
    text = "api_secret: ${LIVEKIT_API_SECRET:-not so secret}\n"
    for cleaned in (of(text).clean(text), without_secrets(text) or "", of(text).clean("it is not so secret")):
        assert "not so secret" not in cleaned


@pytest.mark.parametrize("text", ["a: [", "a: *nobody", "\x00"])
def test_what_is_no_yaml_is_told(text: str) -> None:
    assert without_secrets(text) is None
    assert of(text).clean("kept") == "kept"


def test_a_nest_without_end() -> None:
    assert without_secrets("[" * 3000) is None


def test_aliases_of_aliases_end() -> None:
    lines = ["a0: &a0 {env: {X: first}}"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 25)]
    assert "first" not in (without_secrets("\n".join(lines)) or "first")


VARIABLES = """\
agents:
  - id: one
    env: {AZURE_SPEECH_KEY: "0123456789abcdef", DEBUG_PIN: 471, GREETING: "Good day", SWITCH: on,
          COMMON: &common shared-by-two, FILLED: "${FROM_OUTSIDE}"}
    env_file: %s
  - id: two
    env:
      OTHER: *common
      BLOCK: >
        folded
        words
    cwd: /
"""


def test_the_variables_of_agents_keep_their_names_and_no_value(tmp_path: Path) -> None:
    text = VARIABLES % "agent.env"
    cleaned = without_secrets(text) or ""
    for value in ("0123456789", "471", "Good day", " on,", "shared-by", "FROM_OUTSIDE", "folded", "words"):
        assert value not in cleaned
    for name in ("AZURE_SPEECH_KEY", "DEBUG_PIN", "GREETING", "SWITCH", "FILLED", "OTHER", "BLOCK", "cwd: /"):
        assert name in cleaned
    agents = yaml.safe_load(cleaned.replace("*common", "x"))["agents"]
    assert agents[0]["env"]["DEBUG_PIN"] == agents[1]["env"]["BLOCK"] == ["removed"]


@pytest.mark.parametrize(
    "more", ["", "this line is no assignment\n"], ids=["an env_file", "one with a mistake"]
)
def test_the_values_of_variables_are_known_without_a_valid_configuration(tmp_path: Path, more: str) -> None:
    (tmp_path / "agent.env").write_text(f"TOKENLESS='in the file'\nexport PIN=99\n{more}")
    text = VARIABLES % "agent.env"
    redactor = of(text, {"FROM_OUTSIDE": "from-the-environment"}, tmp_path / "config.yaml")
    log = "0123456789abcdef, Good day, from-the-environment, in the file, shared-by-two"
    assert redactor.clean(log) == ", ".join([REMOVED] * 5)
    assert redactor.clean("PIN=99 DEBUG_PIN: 471, 471 rooms") == (
        f"PIN={REMOVED} DEBUG_PIN: {REMOVED}, 471 rooms"
    )


def test_what_names_an_agent_stays(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "livekit: {url: 'ws://127.0.0.1', api_key: k, api_secret: s}\n"
        "agents: [{id: agent-66, command: ['true'], env: {VOICE_ID: agent-66, B: other-66}}]\n"
    )
    file = tmp_path / "config.yaml"
    known = redactor(file, file.read_text(), load(file, {"PATH": "/bin:/usr/bin", "HOME": "/"}), {})
    assert known.clean("agent-66 is not other-66") == f"agent-66 is not {REMOVED}"


def test_a_document_stays_json() -> None:
    document = {"token": "abc", "tokens": 3, "said": ['password="a b', "Authorization: Token KEY"], "n": None}
    assert NOTHING_KNOWN.clean_document(document) == {
        "token": REMOVED,
        "tokens": 3,
        "said": [f"password={REMOVED}", f"Authorization: {REMOVED}"],
        "n": None,
    }


def test_a_secret_as_a_log_line_in_json_spells_it() -> None:
    assert "quo" not in Redactor(['quo"ted']).clean('{"message": "it is quo\\"ted"}')


def test_names() -> None:
    assert all(map(is_secret, ("LIVEKIT_API_SECRET", "password", "AuthToken", "apiKey", "DB_DSN")))
    assert all(map(is_secret, ("FAL_KEY", "DB_PWD", "x-api-key", "SMTP_PASS")))
    assert not any(map(is_secret, ("LIVEKIT_URL", "PATH", "LOG_LEVEL", "PWD", "KEYBOARD", "PASSING")))
