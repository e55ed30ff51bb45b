"""The daemon: the only layer that knows every other.  :func:`run` is what the command line calls."""

from __future__ import annotations

import asyncio
import importlib.metadata
import sys
from pathlib import Path

from supervisor.config import Settings


def run(settings: Settings, *, dev: bool, config_path: Path) -> int:
    """Run a daemon until it is told to stop; its exit code.

    0: stopped or handed over in good order; 1: an internal error ended it, its workers go on;
    2: its own file, port or directory; 4: another daemon holds the state directory.
    """
    from supervisor.daemon.app import Daemon
    from supervisor.daemon.development import Development
    from supervisor.endpoints.listen import ListenError
    from supervisor.livekit.dev_server import DevServerError
    from supervisor.process.files import StateDirectoryError, private_directory
    from supervisor.process.instance import AlreadyRunning, InstanceLock

    unfit = _unfit(settings)
    if unfit:
        return _fail(unfit, 2)
    try:
        lock = InstanceLock(settings.paths.state)
    except AlreadyRunning as error:
        return _fail(error, 4)
    except StateDirectoryError as error:
        return _fail(error, 2)
    try:
        private_directory(settings.paths.runtime)
        private_directory(settings.paths.logs)
        development = Development.prepare(settings) if dev else None
        return asyncio.run(_run(Daemon, settings, config_path, development))
    except (StateDirectoryError, DevServerError, ListenError) as error:
        return _fail(error, 2)
    finally:
        lock.release()


async def _run(daemon_class: type, settings: Settings, config_path: Path, development: object) -> int:
    from supervisor.process.files import StateDirectoryError

    try:
        daemon = daemon_class(settings, config_path, development)
    except OSError as error:  # what it puts into the state directory: a full disk, for one
        raise StateDirectoryError(f"{settings.paths.state}: {error.strerror}") from error
    await daemon.run()
    if daemon.failure is not None:
        return _fail(daemon.failure, 1)
    return 0


def _unfit(settings: Settings) -> str:
    """What keeps this installation, or this version, from running these settings; "" when nothing does."""
    if is_installed("supervisor"):
        return (
            "PyPI's 'supervisor' (supervisord) is installed in this environment, under the same import "
            "name: install livekit-supervisor into an environment of its own"
        )
    if settings.store != "sqlite":
        return "store: this version supports sqlite only; leave it out, or write 'store: sqlite'"
    return ""


def is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _fail(error: BaseException | str, code: int) -> int:
    print(f"livekit-supervisor: {error}", file=sys.stderr)
    return code
