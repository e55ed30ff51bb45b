"""What is held against every target: it answers soon, and nothing is left open.

Time is the processor's, not the clock's: a busy machine makes nothing a hang.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from tests.leaks import leaked_tasks

SECONDS = float(os.environ.get("SUPERVISOR_FUZZ_SECONDS") or 2.0)
"""Instrumented code, which counts its own branches, is given more."""

GRACE_SECONDS = 2.0
"""For what is about to end."""

Target = Callable[[bytes], None]


class Defect(AssertionError):
    """What a target raises."""


@contextlib.contextmanager
def soon(seconds: float = SECONDS) -> Iterator[None]:
    started = time.thread_time()
    yield
    took = time.thread_time() - started
    if took > seconds:
        raise Defect(f"took {took:.1f} s of processor time, {seconds:g} s are allowed")


def hold(condition: bool, message: str, *about: object) -> None:
    if not condition:
        raise Defect(" ".join([message, *map(repr, about)]))


@functools.cache
def scratch() -> Path:
    """A folder of this process's own; its path is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="lks-fuzz-", dir=os.environ.get("SUPERVISOR_FUZZ_FOLDER", "/tmp")))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def played(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run ``scene`` on an event loop of its own, which must end without a task, file or error left over."""
    asyncio.run(_nothing())  # what the first loop of a process opens for good is open before
    files = _open_files()
    errors: list[str] = []
    with soon():
        asyncio.run(_watched(scene, errors))
    hold(not errors, "unhandled:", errors)
    left = {name: where for name, where in _open_files().items() if name not in files}
    hold(not left, "left open:", left)


async def _nothing() -> None:
    return None


async def _watched(scene: Callable[[], Coroutine[Any, Any, None]], errors: list[str]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(_spelled(context)))
    await scene()
    left = await leaked_tasks(GRACE_SECONDS)
    hold(not left, "tasks left:", left)


def _spelled(context: dict[str, Any]) -> str:
    return f"{context.get('message')} {context.get('exception')!r}"


def _open_files() -> dict[str, str]:
    """But for those of the scratch folder: they are ours, and kept for the next scene."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            where = os.readlink(f"/proc/self/fd/{entry}")
            if not where.startswith(str(scratch())):
                found[entry] = where
    return found
