"""Secrets taken out of text: known ones wherever they stand, named ones whatever they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.cli.redaction import REMOVED, Redactor, is_secret, secrets_in_yaml

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
        ("room: lobby, humans: 2", "room: lobby, humans: 2"),
        ("http://127.0.0.1:9105/metrics", "http://127.0.0.1:9105/metrics"),
    ],
)
def test_by_name_and_by_shape(text: str, cleaned: str) -> None:
    assert NOTHING_KNOWN.clean(text) == cleaned


def test_the_lines_of_a_block_in_yaml() -> None:
    text = "livekit:\n  api_secret: |\n    first line\n    second line\nother: [1]\n"
    cleaned = Redactor(secrets_in_yaml(text) or []).clean(text)
    assert "first line" not in cleaned
    assert "second line" not in cleaned
    assert "other: [1]" in cleaned


def test_the_default_of_a_variable() -> None:
    text = "api_secret: ${LIVEKIT_API_SECRET:-not so secret}\n"
    assert "not so secret" not in Redactor(secrets_in_yaml(text) or []).clean(text)


@pytest.mark.parametrize("text", ["a: [", "a: *nobody", "\x00"])
def test_what_is_no_yaml_is_told(text: str) -> None:
    assert secrets_in_yaml(text) is None


def test_a_nest_without_end() -> None:
    assert secrets_in_yaml("[" * 3000) is None


def test_names() -> None:
    assert all(map(is_secret, ("LIVEKIT_API_SECRET", "password", "AuthToken", "apiKey", "DB_DSN")))
    assert not any(map(is_secret, ("LIVEKIT_URL", "PATH", "LOG_LEVEL")))
