"""``diagnose``: look at everything, say what is wrong, what shows it, and what mends it.

One rule: it works with and without the daemon, and touches nothing.
"""

from __future__ import annotations

import asyncio
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
from supervisor.cli.own_commands import about
from supervisor.cli.progress import Tell


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
    findings = [replace(f, fix=about(file, f.fix) if f.fix else None) for f in findings]
    return Report(tuple(sorted(findings, key=lambda f: list(Area).index(f.area)))), situation


async def _ask_livekit(situation: Situation, *, probe: bool, tell: Tell) -> list[Finding]:
    tell("asking LiveKit")
    findings = await diagnose_livekit.look(situation, probe=probe)
    reached = any(f.severity is Severity.OK for f in findings)
    tell("looking at the rooms")
    return findings + await diagnose_rooms.look(situation, reached=reached)
