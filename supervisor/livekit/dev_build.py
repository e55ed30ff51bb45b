"""Builds a Go program from a pinned module into a cache: whole or not at all, by one builder at a time."""

from __future__ import annotations

import contextlib
import fcntl
import selectors
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

PACKAGE = "github.com/livekit/livekit-server/cmd/server"

_TELL_EVERY = 10.0
_PACKAGES = 800
"""Of the pinned version, Go's own included; fewer where Go's cache has some."""


class BuildError(Exception):
    """The build failed; the message is Go's own last word."""


def build(
    go: Path,
    module: Path,
    target: Path,
    environ: Mapping[str, str],
    progress: Callable[[str], None],
    is_built: Callable[[], bool],
) -> None:
    """Build ``target``, unless somebody else has built it by the time that it is our turn."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _turn(target.with_name(f".{target.name}.lock"), progress):
            if not is_built():
                _build(go, module, target, environ, progress)
    except OSError as error:
        raise BuildError(str(error)) from error


@contextlib.contextmanager
def _turn(lock: Path, progress: Callable[[str], None]) -> Iterator[None]:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"livekit-server: another build is under way, waiting for it ({lock})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(
    go: Path, module: Path, target: Path, environ: Mapping[str, str], progress: Callable[[str], None]
) -> None:
    progress(f"livekit-server: building {target.name} once, which takes two to five minutes")
    draft = target.with_name(f".{target.name}.draft")
    # Without cgo no C compiler is needed.
    command = [str(go), "build", "-v", "-trimpath", "-mod=readonly", "-o", str(draft), PACKAGE]
    started = time.monotonic()
    with subprocess.Popen(
        command,
        cwd=module,
        env={**environ, "CGO_ENABLED": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            last_lines = _follow(process.stderr, progress)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        draft.unlink(missing_ok=True)
        raise BuildError("\n".join(last_lines) or f"go ended with {process.returncode}")
    draft.replace(target)
    progress(f"livekit-server: built in {time.monotonic() - started:.0f} s: {target}")


def _follow(output: IO[str], progress: Callable[[str], None]) -> deque[str]:
    """Read Go's output to its end, telling now and then how far it is; the last lines of it."""
    last_lines: deque[str] = deque(maxlen=5)
    downloaded = compiled = 0
    started = told = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while True:
            if selector.select(timeout=_TELL_EVERY):
                line = output.readline()
                if not line:
                    return last_lines
                last_lines.append(line.rstrip())
                downloaded += line.startswith("go: downloading")
                compiled += not line.startswith("go: ")
            now = time.monotonic()
            if now - told >= _TELL_EVERY:
                told = now
                progress(
                    f"livekit-server: {now - started:.0f} s, "
                    f"{downloaded} modules downloaded, {compiled} of about {_PACKAGES} packages compiled"
                )
