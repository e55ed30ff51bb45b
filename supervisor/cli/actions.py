"""``start``, ``stop``, ``restart``, ``drain``, ``reload``, ``handoff``: ask, then watch until it is so.

One rule: the daemon answers at once and does the work by itself; breaking off the watching undoes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from supervisor.cli.client import WAITING, Client, NotAnswering, NotRunning
from supervisor.cli.documents import Agent, Status
from supervisor.cli.errors import CliError, ExitCode
from supervisor.cli.own_commands import about
from supervisor.cli.progress import while_waiting
from supervisor.cli.references import Reference, resolve
from supervisor.cli.screen import console
from supervisor.cli.text import count, plain
from supervisor.process.instance import is_running

_LOOK_AGAIN = 0.2
_SETTLING = 2.0
"""A state from before the command may still be shown for that long."""

_PATIENCE = 120.0
_FAILED = frozenset({"backoff", "crash_loop"})


@dataclass(frozen=True, slots=True)
class Action:
    """A command for one agent, and how to tell that it is done."""

    command: str
    doing: str
    done: str
    arguments: Mapping[str, object]
    wanted: str
    """The state it ends in."""
    patient: bool = False
    """Waits for humans to leave: for as long as it takes."""


def start() -> Action:
    return Action("start", "starting", "ready", {}, wanted="ready")


def stop(*, drain: bool) -> Action:
    arguments = {"drain": drain}
    return Action("stop", "draining" if drain else "stopping", "stopped", arguments, "stopped", patient=drain)


def drain() -> Action:
    return Action("drain", "draining", "drained and stopped", {}, wanted="stopped", patient=True)


def restart(*, now: bool) -> Action:
    return Action("restart", "restarting", "ready again", {"now": now}, wanted="ready", patient=not now)


def carry_out(client: Client, action: Action, text: str, *, wait: bool) -> str:
    """What to tell the operator.  Raises when it did not come to the wanted state."""
    with while_waiting(WAITING):
        before = client.status()
        agent = resolve(text, references(before))
        old_pid = _find(before, agent)["pid"]
        client.command(action.command, {"agent": agent.id, **action.arguments})
    if not wait:
        return f"{agent}: {action.doing}"
    with _progress(f"{agent}: {action.doing} ...  (Ctrl-C stops waiting, not the {action.command})") as tell:
        found = _watch(client, action, agent, old_pid, tell)
    pid = f", pid {found['pid']}" if found["pid"] else ""
    return f"{agent}: {action.done}{pid}"


def references(status: Status) -> list[Reference]:
    return [Reference(a["id"], a["name"] or "") for a in status["agents"]]


def reload(client: Client) -> str:
    with _progress("the daemon reads its configuration ..."):
        answer = client.command("reload")
    told = [
        f"{what} {', '.join(plain(id) for id in ids)}"
        for what in ("added", "changed", "removed")
        if isinstance(ids := answer.get(what), list) and ids
    ]
    return "configuration reloaded: " + ("; ".join(told) or "nothing changed")


def handoff(client: Client, state: Path, patience: float = 15.0) -> str:
    """Ends the daemon and nothing else; the next one takes the workers over.

    It has gone when it gives back its state directory: its doors close a moment before that.
    """
    with while_waiting(WAITING):
        status = client.status()
        workers = sum(a["pid"] is not None for a in status["agents"])
        client.command("handoff")
    with _progress("the daemon is leaving ..."):
        deadline = time.monotonic() + patience
        while is_running(state) or _answers(client):
            if time.monotonic() > deadline:
                raise CliError(f"the daemon is still there after {patience:g} s", ExitCode.WRONG)
            time.sleep(_LOOK_AGAIN)
    goes_on = "goes on" if workers == 1 else "go on"
    return f"the daemon has gone; {count(workers, 'worker')} {goes_on}; next: {client.start}"


# --- watching -----------------------------------------------------------------------------------------


def _watch(
    client: Client, action: Action, agent: Reference, old_pid: int | None, tell: Callable[[str], None]
) -> Agent:
    started = time.monotonic()
    while True:
        found = _find(client.status(), agent)
        passed = time.monotonic() - started
        if found["state"] == action.wanted and not _is_old(action, found, old_pid):
            return found
        if action.wanted == "ready" and found["state"] in _FAILED and passed > _SETTLING:
            reason = plain(found["reason"] or "no reason told")
            look = about(client.config, f"livekit-supervisor logs {plain(agent.id)}")
            raise CliError(f"{agent}: {found['state']}: {reason}\n  {look}", ExitCode.WRONG)
        if passed > _PATIENCE and not action.patient:
            reason = f" ({plain(found['reason'])})" if found["reason"] else ""
            raise CliError(
                f"{agent}: still {plain(found['state'])} after {_PATIENCE:g} s{reason}", ExitCode.WRONG
            )
        rooms = f", {count(found['jobs'], 'room')}" if found["jobs"] else ""
        tell(f"{agent}: {plain(found['state'])}{rooms} ...  (Ctrl-C stops waiting, not the {action.command})")
        time.sleep(_LOOK_AGAIN)


def _is_old(action: Action, found: Agent, old_pid: int | None) -> bool:
    """A restart is done only by another process."""
    return action.command == "restart" and old_pid is not None and found["pid"] == old_pid


def _find(status: Status, agent: Reference) -> Agent:
    for found in status["agents"]:
        if found["id"] == agent.id:
            return found
    raise CliError(f"{agent} is no longer configured", ExitCode.WRONG)


def _answers(client: Client) -> bool:
    try:
        client.status()
    except NotAnswering:
        return True
    except NotRunning:
        return False
    return True


def _progress(first: str) -> AbstractContextManager[Callable[[str], None]]:
    """A live line on a terminal; nothing elsewhere."""
    target = console(stderr=True)
    return _Spinner(first) if target.is_terminal else nullcontext(_ignore)


def _ignore(text: str) -> None:
    """Nobody is watching."""


class _Spinner(AbstractContextManager[Callable[[str], None]]):
    def __init__(self, first: str) -> None:
        from rich.text import Text

        self._status = console(stderr=True).status(Text(first))

    def __enter__(self) -> Callable[[str], None]:
        self._status.start()
        return self._tell

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def _tell(self, text: str) -> None:
        from rich.text import Text

        self._status.update(Text(text))
