"""What nobody is to read in a log line, the history or a status, also where a worker has printed it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from supervisor.config import Settings
from supervisor.config.secret_names import is_secret, told_openly
from supervisor.daemon.webhooks import webhook_keys

SHORTEST = 8
"""Characters of a variable's value: a shorter one may be a word of any text."""


def secrets_of(settings: Settings, environ: Mapping[str, str]) -> set[str]:
    """LiveKit's, and the values of variables named like secrets that agents are given or inherit."""
    given = [environ, *(agent.environment for agent in settings.agents)]
    named = {value for variables in given for name, value in variables.items() if is_secret(name)}
    variables = {line for value in named for line in _lines(value) if len(line) >= SHORTEST}
    told = told_openly(settings) | {settings.livekit.api_key}
    return {*filter(None, webhook_keys(settings).values()), *(variables - told)}


def _lines(value: str) -> Iterator[str]:
    """A private key is printed line by line."""
    yield value
    yield from (line.strip() for line in value.splitlines())
