"""An event loop whose clock jumps to the next timer as soon as nothing else is to be done.

One rule: time passes only in jumps, and nothing from outside (threads, sockets, the wall clock) is waited
for; so hours pass in milliseconds, and the same seed gives the same run.

What asyncio itself leaves open stays open: the order of a *set* of tasks (``asyncio.wait``) depends on
addresses, that of a set of strings on ``PYTHONHASHSEED``.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NoReturn, TypeVar

START = 1_000.0
"""The clock's first reading: not 0, which code may take for "never"."""

START_WALL = 1_767_225_600.0
"""Unix seconds at ``START``."""

PATIENCE = 100_000
"""Rounds of the loop at one instant after which it is said to run in circles."""

T = TypeVar("T")


class Deadlock(Exception):
    """Every task waits for something that nobody is going to do."""


class Circles(Exception):
    """Something is always to be done and time does not pass."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """``loop.time()`` is virtual; :func:`run` is the usual way to use it."""

    def __init__(self) -> None:
        self._now = START
        self._rounds = 0
        self.failures: list[BaseException] = []
        super().__init__(_Nothing(self._pass_time))
        self._clock_resolution = 1e-6  # finer than any timer, coarser than a float's steps after years
        self.set_exception_handler(self._note_failure)

    def time(self) -> float:
        return self._now

    def be_patient_again(self) -> None:
        self._rounds = 0

    def wall(self) -> float:
        """Unix seconds."""
        return START_WALL + self._now - START

    def run_in_executor(self, *args: object) -> NoReturn:
        raise RuntimeError("a thread takes real time, which does not pass here")

    def _pass_time(self, timeout: float | None) -> None:
        if timeout is None:
            raise Deadlock(f"at {self._now:.3f} every task waits, and no timer is set")
        if timeout > 0:
            self._now += timeout
            self._rounds = 0
            return
        self._rounds += 1
        if self._rounds > PATIENCE:
            raise Circles(f"{PATIENCE} rounds at {self._now:.3f}")

    def _note_failure(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        self.failures.append(context.get("exception") or RuntimeError(context["message"]))


class _Nothing(selectors.SelectSelector):
    """Selects nothing, ever, and tells how long it would have been waited for."""

    def __init__(self, wait: Callable[[float | None], None]) -> None:
        super().__init__()
        self._wait = wait

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._wait(timeout)
        return []


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` under virtual time, end what it left running, and raise what failed unnoticed."""
    loop = VirtualTimeLoop()
    try:
        try:
            result = loop.run_until_complete(main)
        finally:
            _cancel_all(loop)
        if loop.failures:
            raise ExceptionGroup("failed unnoticed", [_as_exception(f) for f in loop.failures])
        return result
    finally:
        loop.close()


def _cancel_all(loop: VirtualTimeLoop) -> None:
    loop.be_patient_again()
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        results = loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.failures.extend(r for r in results if isinstance(r, Exception))


def _as_exception(failure: BaseException) -> Exception:
    return failure if isinstance(failure, Exception) else RuntimeError(repr(failure))
