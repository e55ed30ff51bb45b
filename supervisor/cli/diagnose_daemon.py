"""Is the daemon there, what does it say of itself, and does it run what the configuration says?"""

from __future__ import annotations

import time
from collections.abc import Mapping

from supervisor import __version__
from supervisor.cli.client import NotAnswering
from supervisor.cli.diagnose_findings import Area, Finding, Notes, Situation
from supervisor.cli.diagnose_situation import healthy, http_url
from supervisor.cli.documents import Problem, Status
from supervisor.cli.text import count, plain, span
from supervisor.config import Settings
from supervisor.process.instance import is_running, running_daemon

PREFIX = "livekit_supervisor_"

_SCAN_AGE = 60.0
"""Seconds; a scan comes every few seconds.  The other loops may well have nothing to do."""


def look(situation: Situation) -> list[Finding]:
    notes = Notes(Area.DAEMON)
    if situation.status is None:
        _tell_absence(situation, notes)
    else:
        _tell_status(situation.status, notes)
        if situation.settings is not None:
            _tell_configured(situation.status, situation.settings, notes)
            _tell_http(situation.settings, notes)
        _tell_metrics(situation.metrics, notes)
    return notes.findings


def _tell_absence(situation: Situation, notes: Notes) -> None:
    if situation.absence is None or situation.installation is None:
        notes.unknown("where the daemon would be is not known while the configuration cannot be read")
        return
    state, why = situation.installation.state, plain(situation.absence.message)
    if isinstance(situation.absence, NotAnswering):
        pid = running_daemon(state)
        fix = f"kill -CONT {pid}; if that does not help: kill -KILL {pid} (workers go on)" if pid else None
        notes.error("the daemon does not answer", why, *_who(pid), fix=fix)
    elif is_running(state):
        pid = running_daemon(state)
        notes.error("a daemon holds the state directory, but cannot be asked", why, *_who(pid))
    else:
        notes.error(
            "the daemon is not running",
            why,
            f"nobody holds {state / 'daemon.lock'}",
            fix="livekit-supervisor run",
        )


def _who(pid: int | None) -> list[str]:
    return [f"process {pid} holds the state directory"] if pid else []


def _tell_status(status: Status, notes: Notes) -> None:
    daemon = status["daemon"]
    about = f"version {plain(daemon['version'])}, pid {daemon['pid']}, {plain(daemon['mode'])}"
    notes.ok("the daemon answers", f"{about}, since {plain(daemon['since'])}")
    if daemon["version"] != __version__:
        notes.warning(
            f"the daemon is version {plain(daemon['version'])}, this command version {__version__}",
            fix="livekit-supervisor handoff   # then start the daemon again; workers and calls go on",
        )
    for problem in status["problems"]:
        _tell_problem(problem, notes)


def _tell_problem(problem: Problem, notes: Notes) -> None:
    about = [f"room {plain(problem['room'])}"] if problem["room"] else []
    about += [f"agent {plain(problem['agent_id'])}"] if problem["agent_id"] else []
    tell = notes.error if problem["severity"] in ("error", "critical") else notes.warning
    tell(plain(problem["message"]), *about, fix=problem["fix"])


def _tell_configured(status: Status, settings: Settings, notes: Notes) -> None:
    runs, wanted = {a["id"] for a in status["agents"]}, {a.id for a in settings.agents}
    different = [f"not running: {id}" for id in sorted(wanted - runs)]
    different += [f"not in the file: {plain(id)}" for id in sorted(runs - wanted)]
    if different:
        notes.warning(
            "the configuration has changed since the daemon read it",
            *different,
            fix="livekit-supervisor reload",
        )
    if status["livekit"]["url"] != settings.livekit.url:
        notes.warning(
            "the daemon uses another LiveKit than the configuration names",
            f"daemon: {plain(status['livekit']['url'])}; configuration: {settings.livekit.url}",
            fix="livekit-supervisor handoff   # then start the daemon again",
        )


def _tell_http(settings: Settings, notes: Notes) -> None:
    problem = healthy(settings)
    if problem is None:
        notes.ok(f"metrics and health answer on {http_url(settings)}")
    else:
        notes.error(
            f"nothing answers on {http_url(settings)}, so nobody can see metrics and no webhook arrives",
            problem,
            fix="livekit-supervisor handoff   # then start the daemon again: http cannot change under it",
        )


def _tell_metrics(metrics: Mapping[str, float], notes: Notes) -> None:
    if not metrics:
        return
    if metrics.get(f"{PREFIX}config_last_reload_success", 1.0) == 0.0:
        notes.warning(
            "the last reload failed; the daemon goes on with the configuration from before",
            fix="livekit-supervisor check",
        )
    errors = metrics.get(f"{PREFIX}store_errors_total", 0.0)
    if errors:
        notes.warning(
            f"{count(int(errors), 'write')} to the store failed; claims would be rebuilt, history has gaps",
            fix="df -h; journalctl -u livekit-supervisor | grep 'the state could not be kept'",
        )
    scanned = metrics.get(f'{PREFIX}reconcile_last_success_timestamp_seconds{{loop="scan"}}', 0.0)
    if scanned and time.time() - scanned > _SCAN_AGE:
        notes.warning(f"processes were not scanned for {span(time.time() - scanned)}: the daemon is busy")
    failed = _total(metrics, "reconcile_total", 'outcome="failed"')
    if failed:
        notes.warning(
            f"{count(int(failed), 'look')} ended in an unexpected error; each was tried again",
            fix="journalctl -u livekit-supervisor | grep 'unexpected error'",
        )


def _total(metrics: Mapping[str, float], name: str, label: str = "") -> float:
    return sum(
        value
        for series, value in metrics.items()
        if series.partition("{")[0] == PREFIX + name and label in series
    )
