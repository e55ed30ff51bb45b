"""Holds for every test: its folder is its tier, its randomness has a printed seed, it leaves nothing."""

from __future__ import annotations

import gc
import inspect
import os
import random
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import leaks

HERE = Path(__file__).parent
TIERS = ("unit", "simulation", "process", "livekit", "observability", "redis")

SEED = int(os.environ.get("SUPERVISOR_TEST_SEED") or random.SystemRandom().randrange(2**32))
os.environ["SUPERVISOR_TEST_SEED"] = str(SEED)  # for those that run tests beside us

hypothesis.settings.register_profile(
    "supervisor",
    deadline=None,  # two shared cores: a slow moment is no defect
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    print_blob=True,
)
hypothesis.settings.load_profile("supervisor")


# Jobs that a shell put into the background ignore Ctrl-C, and so would all programs that tests press it for.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(SEED)


def pytest_report_header() -> str:
    return f"seed: {SEED} (again with SUPERVISOR_TEST_SEED={SEED})"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        tier = _tier(item)
        if tier is not None:
            item.add_marker(tier)


def _tier(item: pytest.Item) -> str | None:
    folder = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
    return folder if folder in TIERS else None


@pytest.fixture(scope="session")
def run_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[leaks.Processes]:
    """The processes of this run; what is left of them at its end fails it."""
    processes = leaks.Processes()
    processes.mark(tmp_path_factory.getbasetemp())
    # Who is killed leaves temporary files behind: Chromium does, and every worker with job processes.
    temporary = Path(tempfile.mkdtemp(prefix=f"{leaks.RUN}-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        yield processes
    left = leaks.end(processes.all(), grace=5)
    assert not left, "processes left at the end of the run:\n" + "\n".join(left)
    shutil.rmtree(temporary, ignore_errors=True)
    files = [str(path) for path in Path("/tmp").glob(f"{leaks.RUN}-*")]
    assert not files, f"files left at the end of the run: {files}"


@pytest.fixture(autouse=True)
def _leaves_no_process(request: pytest.FixtureRequest, run_processes: leaks.Processes) -> Iterator[None]:
    """Those of fixtures with a wider scope are there before, and stay."""
    # Reading every environment, and the collector, take milliseconds that a thousand unit tests need not pay.
    thorough = _tier(request.node) not in ("unit", "simulation")
    look = run_processes.all if thorough else run_processes.descendants
    before = look()
    yield
    if thorough:
        gc.collect()  # a coroutine never awaited, a transport never closed: now, and blamed on this test
    left = leaks.end(look() - before, grace=5)
    assert not left, "processes left by this test:\n" + "\n".join(left)


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    random.seed(f"{SEED} {request.node.nodeid}")


@pytest.fixture(autouse=True)
def _leaves_no_task(request: pytest.FixtureRequest, _leaves_no_process: None) -> None:
    """Set up before, and so torn down after, the fixtures that the test asks for."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_loop_without_leaks")


@pytest.fixture
async def _loop_without_leaks() -> AsyncIterator[None]:
    yield
    left = await leaks.leaked_tasks(grace=2)
    assert not left, "tasks left by this test:\n" + "\n".join(left)


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """A directory with a short path: a Unix socket's must stay under 108 bytes."""
    path = Path(tempfile.mkdtemp(prefix=f"{leaks.RUN}-", dir="/tmp"))
    yield path
    shutil.rmtree(path)
