"""Which agent is meant: by its ID, its name, or the beginning of either.

One rule: never a guess.  What fits several agents, or none, is an error that names the candidates.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from supervisor.cli.errors import CliError, ExitCode
from supervisor.cli.text import plain

_SHORTEST = 14
"""Characters of an ID shown at least: enough to tell ``agent-`` and half a UUID's first group."""

_NAMED_AT_MOST = 8


@dataclass(frozen=True, slots=True)
class Reference:
    id: str
    name: str = ""

    def __str__(self) -> str:
        return f"{plain(self.name)} ({plain(self.id)})" if self.name else plain(self.id)


def resolve(text: str, agents: Sequence[Reference]) -> Reference:
    """The one agent meant.  An ID wins over a name, and both whole over a beginning."""
    for fits in (
        [a for a in agents if a.id == text],
        [a for a in agents if a.name and a.name == text],
        [a for a in agents if text and (a.id.startswith(text) or a.name.startswith(text))],
    ):
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise CliError(f"{plain(text)!r} fits several agents: {_listed(fits)}", ExitCode.USAGE)
    raise CliError(_unknown(text, agents), ExitCode.USAGE)


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """For each ID a beginning that no other has, never shorter than needed to recognise it."""
    everyone = sorted(set(ids))
    return {id: _short(id, _neighbours(everyone, id)) for id in everyone}


def _neighbours(everyone: Sequence[str], id: str) -> list[str]:
    at = everyone.index(id)
    return [*everyone[max(0, at - 1) : at], *everyone[at + 1 : at + 2]]


def _short(id: str, others: Iterable[str]) -> str:
    length = _SHORTEST
    while length < len(id) and any(other.startswith(id[:length]) for other in others):
        length += 1
    return id if length >= len(id) - 1 else id[:length]


def _unknown(text: str, agents: Sequence[Reference]) -> str:
    if not agents:
        return f"no agent {plain(text)!r}: none is configured"
    known = {word: agent for agent in agents for word in (agent.id, agent.name) if word}
    lower = {word.lower(): word for word in known}
    close = [known[lower[w]] for w in difflib.get_close_matches(text.lower(), list(lower), n=3, cutoff=0.5)]
    if close:
        return f"no agent {plain(text)!r}; did you mean {_listed(list(dict.fromkeys(close)))}?"
    return f"no agent {plain(text)!r}; configured: {_listed(agents)}"


def _listed(agents: Sequence[Reference]) -> str:
    shown = ", ".join(str(a) for a in agents[:_NAMED_AT_MOST])
    more = len(agents) - _NAMED_AT_MOST
    return f"{shown} and {more} more" if more > 0 else shown
