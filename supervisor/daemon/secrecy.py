"""What nobody is to read in a log line, the history or a status: secrets, also those that a worker printed.

One rule: what a worker said last is cleaned where it is made, before anybody is told of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from supervisor.config import Settings
from supervisor.config.secret_names import is_secret
from supervisor.core.ports import ProcessSpec
from supervisor.daemon.evidence import LONGEST, DeathEvidence
from supervisor.daemon.webhooks import webhook_keys
from supervisor.process.host import PosixProcessHost

SHORTEST = 8
"""Characters of a variable's value: a shorter one may be a word of any text."""


def secrets_of(settings: Settings, environ: Mapping[str, str]) -> set[str]:
    """LiveKit's, and the values of variables named like secrets that agents are given or inherit."""
    given = [environ, *(agent.environment for agent in settings.agents)]
    named = {value for variables in given for name, value in variables.items() if is_secret(name)}
    variables = {line for value in named for line in _lines(value) if len(line) >= SHORTEST}
    return {*filter(None, webhook_keys(settings).values()), *(variables - _told_openly(settings))}


def _lines(value: str) -> Iterator[str]:
    """A private key is printed line by line."""
    yield value
    yield from (line.strip() for line in value.splitlines())


def _told_openly(settings: Settings) -> set[str]:
    """Without these nothing could be told apart, whatever variable holds them, too."""
    names = {name for agent in settings.agents for name in (agent.id, agent.name or "")}
    return {settings.livekit.url, settings.livekit.api_key, *names}


class DiscreetEvidence(DeathEvidence):
    """Shows of a worker's output what ``clean`` leaves."""

    def __init__(self, host: PosixProcessHost, clean: Callable[[str], str]) -> None:
        super().__init__(host)
        self._clean = clean

    def last_output(self, spec: ProcessSpec) -> str:
        try:
            # Cleaned before it is cut: the end of a secret that was cut in two is known to nobody.
            return self._clean(self._host.last_output(spec))[-LONGEST:]
        except OSError:
            return ""
