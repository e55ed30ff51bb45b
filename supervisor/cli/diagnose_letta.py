"""Agents in Letta against those in the configuration.

One rule: it is read what exists there, as each agent's own environment says where; nothing is sent.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.cli.diagnose_findings import Area, Finding, Notes, Situation
from supervisor.cli.text import plain
from supervisor.config import AgentSettings

BASE, AGENT, KEY = "LETTA_BASE_URL", "LETTA_AGENT_ID", "LETTA_API_KEY"
SECONDS = 5.0
LARGEST = 16 * 1_048_576
MOST_LISTED = 10


@dataclass(frozen=True, slots=True)
class Server:
    base: str
    key: str


class NotLettaError(Exception):
    """Something else answers under that address."""


def look(situation: Situation) -> list[Finding]:
    notes = Notes(Area.LETTA)
    if situation.settings is None:
        return notes.findings
    by_server: dict[Server, list[tuple[AgentSettings, str]]] = {}
    for agent in situation.settings.agents:
        variables = _environment(agent)
        base, letta_id = variables.get(BASE, ""), variables.get(AGENT, "")
        if base:
            server = Server(base.rstrip("/"), variables.get(KEY, ""))
            by_server.setdefault(server, []).append((agent, letta_id))
    for server, agents in by_server.items():
        _tell_server(server, agents, notes)
    return notes.findings


def _environment(agent: AgentSettings) -> Mapping[str, str]:
    inherited = os.environ if agent.inherit_env else {}
    return {**inherited, **agent.environment}


def _tell_server(server: Server, agents: list[tuple[AgentSettings, str]], notes: Notes) -> None:
    try:
        there = _agents(server)
    except urllib.error.HTTPError as error:
        error.close()
        what = "refuses the key" if error.code in (401, 403) else f"answers with HTTP {error.code}"
        fix = f"# the agent's environment\n{KEY}=..." if error.code in (401, 403) else None
        notes.error(f"Letta at {plain(server.base)} {what}", fix=fix)
        return
    except (OSError, ValueError, http.client.HTTPException, NotLettaError) as error:
        notes.error(
            f"Letta at {plain(server.base)} is not reached",
            plain(getattr(error, "reason", error)),
            fix=f"curl -sS {server.base}/v1/health/",
        )
        return
    for agent, letta_id in agents:
        _tell_agent(agent, letta_id, there, notes)
    configured = {letta_id for _, letta_id in agents} | {agent.id for agent, _ in agents}
    others = [f"{plain(name)} {plain(id)}" for id, name in there.items() if id not in configured]
    if others:
        notes.ok(f"{len(others)} more agents are in Letta, and not configured here", *others[:MOST_LISTED])


def _agents(server: Server) -> dict[str, str]:
    """Names by ID."""
    headers = {"Accept": "application/json"}
    if server.key:
        headers["Authorization"] = f"Bearer {server.key}"
    request = urllib.request.Request(f"{server.base}/v1/agents/?limit=1000", headers=headers)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        listed: Any = json.loads(answer.read(LARGEST))
    if not isinstance(listed, list):
        raise NotLettaError("its answer is no list of agents")
    return {str(a["id"]): str(a.get("name", "")) for a in listed if isinstance(a, dict) and a.get("id")}


def _tell_agent(agent: AgentSettings, letta_id: str, there: Mapping[str, str], notes: Notes) -> None:
    if not letta_id:
        notes.warning(
            f"{agent.id} names a Letta server, and no agent there",
            fix=f"# the agent's environment\n{AGENT}={_guess(agent, there) or 'agent-...'}",
        )
    elif letta_id not in there:
        guess = _guess(agent, there)
        notes.error(
            f"the Letta agent of {agent.id} does not exist there",
            f"{AGENT}={plain(letta_id)}",
            *[f"there is: {plain(name)} {plain(id)}" for id, name in list(there.items())[:MOST_LISTED]],
            fix=f"# the agent's environment\n{AGENT}={guess}" if guess else None,
        )
    else:
        notes.ok(f"{agent.id} is {plain(there[letta_id])} in Letta", letta_id)


def _guess(agent: AgentSettings, there: Mapping[str, str]) -> str | None:
    """The one of the same ID, else of the same name."""
    if agent.id in there:
        return agent.id
    same = [id for id, name in there.items() if agent.name and name == agent.name]
    return plain(same[0]) if len(same) == 1 else None
