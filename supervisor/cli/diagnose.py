"""``diagnose``: look at everything, say what is wrong, what shows it, and what mends it.

One rule: it works with and without the daemon, and touches nothing.
"""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from supervisor.cli import (
    diagnose_daemon,
    diagnose_host,
    diagnose_letta,
    diagnose_livekit,
    diagnose_logs,
    diagnose_processes,
    diagnose_rooms,
)
from supervisor.cli.diagnose_findings import Area, Finding, Report, Severity, Situation
from supervisor.cli.diagnose_situation import gather
from supervisor.cli.progress import Tell

_OUR_COMMAND = re.compile(r"^((?:sudo )?)livekit-supervisor (?=[a-z])", re.MULTILINE)


def diagnose(file: Path, environ: Mapping[str, str], *, probe: bool, tell: Tell) -> tuple[Report, Situation]:
    tell("reading the configuration, asking each agent's Python and the daemon")
    situation, findings = gather(file, environ)
    findings += diagnose_daemon.look(situation)
    tell("looking at processes, locks and pidfiles")
    findings += diagnose_processes.look(situation)
    findings += asyncio.run(_ask_livekit(situation, probe=probe, tell=tell))
    findings += diagnose_logs.look(situation)
    findings += diagnose_host.look(situation)
    tell("asking Letta, where an agent names it")
    findings += diagnose_letta.look(situation)
    findings = [replace(f, fix=_about(file, f.fix)) for f in findings]
    return Report(tuple(sorted(findings, key=lambda f: list(Area).index(f.area)))), situation


def _about(file: Path, fix: str | None) -> str | None:
    """Our own commands name the configuration that was looked at, wherever they are typed."""
    if fix is None:
        return None
    command = f"livekit-supervisor --config {shlex.quote(str(file))} "
    return _OUR_COMMAND.sub(lambda match: match[1] + command, fix)


async def _ask_livekit(situation: Situation, *, probe: bool, tell: Tell) -> list[Finding]:
    tell("asking LiveKit")
    findings = await diagnose_livekit.look(situation, probe=probe)
    reached = any(f.severity is Severity.OK for f in findings)
    tell("looking at the rooms")
    return findings + await diagnose_rooms.look(situation, reached=reached)
