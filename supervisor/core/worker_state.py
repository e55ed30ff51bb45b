"""The states of a worker and every transition between them, in one table.

A pair that is not in the table cannot happen; :func:`transition` raises on it, so that a defect is
seen where it happens and not as a wrong label on a dashboard.
"""

from __future__ import annotations

from enum import StrEnum


class WorkerState(StrEnum):
    STOPPED = "stopped"
    """No process, and none wanted."""
    STARTING = "starting"
    """A process that is not (or no longer) registered with LiveKit."""
    READY = "ready"
    DRAINING = "draining"
    """Takes no new rooms; rooms with a human go on."""
    STOPPING = "stopping"
    """Told to end; killed when it does not."""
    BACKOFF = "backoff"
    """No process; waits before the next start."""
    CRASH_LOOP = "crash_loop"
    """As backoff, after several failures in a row."""


class WorkerEvent(StrEnum):
    SPAWNED = "spawned"
    REGISTERED = "registered"
    UNREGISTERED = "unregistered"
    DRAIN = "drain"
    RESUME = "resume"
    """The drain is taken back."""
    STOP = "stop"
    EXITED = "exited"
    """The process is gone, and another is wanted."""
    ENDED = "ended"
    """The process is gone, and none is wanted; or none is wanted any more."""
    LOOPING = "looping"
    """So many failures in a row that the operator should look."""


_S, _E = WorkerState, WorkerEvent

TRANSITIONS: dict[tuple[WorkerState, WorkerEvent], WorkerState] = {
    (_S.STOPPED, _E.SPAWNED): _S.STARTING,
    (_S.STOPPED, _E.STOP): _S.STOPPED,
    (_S.STOPPED, _E.ENDED): _S.STOPPED,
    (_S.STOPPED, _E.EXITED): _S.BACKOFF,  # the first start failed
    (_S.STARTING, _E.REGISTERED): _S.READY,
    (_S.STARTING, _E.UNREGISTERED): _S.STARTING,
    (_S.STARTING, _E.DRAIN): _S.DRAINING,
    (_S.STARTING, _E.STOP): _S.STOPPING,
    (_S.STARTING, _E.EXITED): _S.BACKOFF,
    (_S.STARTING, _E.ENDED): _S.STOPPED,
    (_S.READY, _E.REGISTERED): _S.READY,
    (_S.READY, _E.UNREGISTERED): _S.STARTING,
    (_S.READY, _E.DRAIN): _S.DRAINING,
    (_S.READY, _E.STOP): _S.STOPPING,
    (_S.READY, _E.EXITED): _S.BACKOFF,
    (_S.READY, _E.ENDED): _S.STOPPED,
    (_S.DRAINING, _E.REGISTERED): _S.DRAINING,
    (_S.DRAINING, _E.UNREGISTERED): _S.DRAINING,
    (_S.DRAINING, _E.DRAIN): _S.DRAINING,
    (_S.DRAINING, _E.RESUME): _S.STARTING,
    (_S.DRAINING, _E.STOP): _S.STOPPING,
    (_S.DRAINING, _E.EXITED): _S.BACKOFF,
    (_S.DRAINING, _E.ENDED): _S.STOPPED,
    (_S.STOPPING, _E.REGISTERED): _S.STOPPING,
    (_S.STOPPING, _E.UNREGISTERED): _S.STOPPING,
    (_S.STOPPING, _E.DRAIN): _S.STOPPING,
    (_S.STOPPING, _E.STOP): _S.STOPPING,
    (_S.STOPPING, _E.EXITED): _S.BACKOFF,
    (_S.STOPPING, _E.ENDED): _S.STOPPED,
    (_S.BACKOFF, _E.SPAWNED): _S.STARTING,
    (_S.BACKOFF, _E.STOP): _S.STOPPED,
    (_S.BACKOFF, _E.EXITED): _S.BACKOFF,  # the next start failed, too
    (_S.BACKOFF, _E.ENDED): _S.STOPPED,
    (_S.BACKOFF, _E.LOOPING): _S.CRASH_LOOP,
    (_S.CRASH_LOOP, _E.SPAWNED): _S.STARTING,
    (_S.CRASH_LOOP, _E.STOP): _S.STOPPED,
    (_S.CRASH_LOOP, _E.EXITED): _S.CRASH_LOOP,
    (_S.CRASH_LOOP, _E.ENDED): _S.STOPPED,
    (_S.CRASH_LOOP, _E.LOOPING): _S.CRASH_LOOP,
}

HAS_PROCESS = frozenset({_S.STARTING, _S.READY, _S.DRAINING, _S.STOPPING})


class IllegalTransition(Exception):
    """An event in a state where it cannot happen: a defect of this program."""


def transition(state: WorkerState, event: WorkerEvent) -> WorkerState:
    """The state after ``event``.  Raises :class:`IllegalTransition` for a pair not in the table."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"{event} cannot happen to a worker that is {state}") from None
