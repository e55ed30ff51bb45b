"""Rogues among the processes of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from supervisor.config import Settings, load
from supervisor.core.worker_state import WorkerState
from supervisor.daemon import specs
from supervisor.daemon.rogues import RogueHunt
from supervisor.events import EventBus, RogueFound
from supervisor.process.ending import Ended, end_tree
from supervisor.process.host import PosixProcessHost
from supervisor.process.instance import InstanceLock
from supervisor.process.procfs import Identity
from supervisor.process.scan import AgentFacts, Rogue, Supervisor, Verdict, find_rogues
from supervisor.process.snapshot import Scanner, live_states
from supervisor.process.variables import AGENT_ID, LIVEKIT_URL, STATE
from supervisor.reconcile.worker import Worker
from supervisor.reconcile.workers import WorkerReconciler
from tests.process.programs import AGENT, REPOSITORY, Bench, number_in, until

URL = "ws://127.0.0.1:7880"


class Scene:
    """A script, and processes that have to do with it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.folder = bench.folder / "project"
        self.folder.mkdir()
        self.script = self.folder / "agent.py"
        self.script.write_text("import time\ntime.sleep(300)\n")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scanner = Scanner()

    def run(
        self,
        *argv: str,
        cwd: Path | None = None,
        environ: dict[str, str] | None = None,
        user: int | None = None,
    ) -> int:
        clean = {k: v for k, v in os.environ.items() if k not in (AGENT_ID, STATE, LIVEKIT_URL)}
        process = subprocess.Popen(argv, cwd=cwd or self.folder, env={**clean, **(environ or {})}, user=user)
        self.processes.append(process)
        # A Python that shows its argument is a Python: before that it was a copy of ourselves.
        until(lambda: argv[-1].encode() in Path(f"/proc/{process.pid}/cmdline").read_bytes())
        return process.pid

    def rogues(self, *, worker: int | None = None, launch: str = "") -> list[Rogue]:
        processes = self.scanner.snapshot()
        supervisor = Supervisor(
            state=str(self.bench.state),
            livekit_url=URL,
            uid=os.getuid(),
            pid=os.getpid(),
            live_states=live_states(processes, str(self.bench.state)),
        )
        agent = AgentFacts(AGENT, str(self.script.resolve()), Verdict.TERMINATE, worker, launch)
        return list(find_rogues(processes, [agent], supervisor))

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def scene(bench: Bench) -> Iterator[Scene]:
    scene = Scene(bench)
    yield scene
    scene.close()


def test_workers_that_somebody_started_by_hand(scene: Scene) -> None:
    (scene.folder / "link.py").symlink_to(scene.script)
    pids = {
        scene.run(sys.executable, "agent.py", "start"),
        scene.run(sys.executable, str(scene.script), "dev"),
        scene.run(sys.executable, "project/agent.py", "connect", cwd=scene.bench.folder),
        scene.run(sys.executable, "link.py", "start"),
    }
    for _ in range(2):  # the second look takes what it knows
        rogues = scene.rogues()
        assert {rogue.pid for rogue in rogues} == pids
        assert {rogue.verdict for rogue in rogues} == {Verdict.TERMINATE}


def test_others_that_name_the_script(scene: Scene) -> None:
    shutil.copy(scene.script, scene.folder / "copy.py")
    scene.run(sys.executable, "agent.py", "console")
    scene.run(sys.executable, "copy.py", "start")
    scene.run(sys.executable, "-c", "import time; time.sleep(300)", "agent.py", "start")
    scene.run("tail", "-f", "agent.py")
    scene.run("sh", "-c", "while :; do sleep 0.1; done; python agent.py start")
    assert scene.rogues() == []


async def test_our_own_worker_and_what_came_from_it(scene: Scene, host: PosixProcessHost) -> None:
    bench = scene.bench
    orphan = bench.folder / "orphan"
    code = f"(setsid sh -c 'echo $$ > {orphan}; exec sleep 300' &); {sys.executable} {scene.script} start; :"
    handle = host.spawn(bench.shell(code))
    number_in(orphan)
    until(lambda: len(scene.scanner.snapshot()) > 0)
    assert scene.rogues(worker=handle.pid, launch=handle.launch) == []
    by_hand = scene.run("sleep", "300", environ=dict(bench.spec("x").marks))
    assert [rogue.pid for rogue in scene.rogues(worker=handle.pid, launch=handle.launch)] == [by_hand]


def test_two_daemons_on_one_host(scene: Scene) -> None:
    other = scene.bench.folder / "other"
    lock = InstanceLock(other)
    same = {AGENT_ID: AGENT, STATE: str(other), LIVEKIT_URL: URL}
    ours_too = scene.run(sys.executable, "agent.py", "start", environ=same)
    scene.run(sys.executable, "agent.py", "start", environ={**same, LIVEKIT_URL: "ws://elsewhere"})
    scene.run(sys.executable, "agent.py", "start", environ={**same, AGENT_ID: "agent-2"})
    (rogue,) = scene.rogues()
    assert (rogue.pid, rogue.verdict) == (ours_too, Verdict.REPORT)
    assert rogue.reason.endswith(f"for the supervisor of {other}")
    lock.release()
    (rogue,) = scene.rogues()
    assert rogue.verdict is Verdict.REPORT
    assert rogue.reason.endswith("which is not running")


def test_what_another_program_was_before(scene: Scene) -> None:
    """The same process, after it has executed another program."""
    pid = scene.run(
        "sh", "-c", f"while [ ! -e go ]; do sleep 0.01; done; exec {sys.executable} agent.py start"
    )
    assert scene.rogues() == []
    (scene.folder / "go").touch()
    until(lambda: [rogue.pid for rogue in scene.rogues()] == [pid])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
def test_another_user_s_process_is_reported(scene: Scene) -> None:
    marks = dict(scene.bench.spec("x").marks)
    pid = scene.run("sleep", "300", environ=marks, cwd=Path("/"), user=65534)
    (rogue,) = scene.rogues()
    assert (rogue.pid, rogue.verdict) == (pid, Verdict.REPORT)
    assert "belongs to user 65534" in rogue.reason


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
def test_a_process_that_may_not_be_looked_into_is_reported(scene: Scene) -> None:
    """As a daemon that is not root sees root's: a command line, and no environment."""
    pid = scene.run(sys.executable, str(scene.script), "start")
    code = f"""
import os
os.setgroups([]); os.setgid(65534); os.setuid(65534)
from supervisor.process.scan import AgentFacts, Supervisor, Verdict, find_rogues
from supervisor.process.snapshot import Scanner
agent = AgentFacts({AGENT!r}, {str(scene.script)!r}, Verdict.TERMINATE)
for rogue in find_rogues(Scanner().snapshot(), [agent], Supervisor("/s", "ws://x", 65534, os.getpid())):
    print(rogue.pid, rogue.verdict, rogue.reason)
"""
    told = subprocess.run(
        [sys.executable, "-c", f"import supervisor.process.snapshot\n{code}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.startswith(f"{pid} report ")
    assert told.stdout.endswith("for all that can be read of it; it belongs to user 0\n")


async def test_a_rogue_is_ended_and_no_other(scene: Scene) -> None:
    scene.run(sys.executable, "agent.py", "start")
    bystander = scene.run("sleep", "300")
    (rogue,) = scene.rogues()
    ended = await end_tree(Identity(rogue.pid, rogue.start_ticks))
    assert ended.killed == (rogue.pid,)
    assert scene.rogues() == []
    assert next(p for p in scene.processes if p.pid == bystander).poll() is None


class Stopped:
    """The one agent, as the reconciler knows it."""

    def __init__(self, settings: Settings) -> None:
        self.worker = Worker(specs.unconfigured_spec(AGENT, settings), wanted=False)

    def get(self, agent_id: str) -> Worker | None:
        return self.worker if agent_id == AGENT else None


def hunting(scene: Scene) -> tuple[RogueHunt, Stopped, list[tuple[int, str]]]:
    """A hunt, the agent that it is for, and what it tells."""
    config = scene.folder / "config.yaml"
    config.write_text(
        f"livekit: {{url: {URL!r}, api_key: key, api_secret: secret}}\n"
        f"agents: [{{id: {AGENT}, script: agent.py}}]\npaths: {{state: {scene.bench.state}}}\n"
    )
    settings = load(config, {"HOME": str(scene.folder), "PATH": os.defpath})
    told: list[tuple[int, str]] = []
    bus = EventBus()
    bus.subscribe(lambda e: told.append((e.pid, e.action)) if isinstance(e, RogueFound) else None)
    stopped = Stopped(settings)
    return RogueHunt(cast(WorkerReconciler, stopped), bus, lambda: settings), stopped, told


async def test_while_its_agent_is_stopped_it_is_only_reported(scene: Scene) -> None:
    """It is ended once the agent is wanted again; and while that still drains, there would be two."""
    hunt, stopped, told = hunting(scene)
    pid = scene.run(sys.executable, "agent.py", "start")
    for _ in range(2):
        await hunt.scan()
    assert told == [(pid, "reported")]
    assert [rogue.pid for rogue in hunt.standing] == [pid]
    assert scene.processes[0].poll() is None
    stopped.worker.wanted = True
    await hunt.scan()
    assert told[1:] == [(pid, "terminated")]
    assert hunt.standing == ()
    by_hand = scene.run(sys.executable, "agent.py", "start")
    stopped.worker.wanted, stopped.worker.state = False, WorkerState.DRAINING
    await hunt.scan()
    assert told[2:] == [(by_hand, "terminated")]


async def test_one_that_does_not_die_is_told_of_once_and_stands(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a system call that cannot be interrupted.  No test can make one: its end is made to fail instead."""
    hunt, stopped, told = hunting(scene)
    stopped.worker.wanted = True
    pid = scene.run(sys.executable, "agent.py", "start")

    async def in_vain(root: Identity) -> Ended:
        return Ended((), (root.pid,))

    with monkeypatch.context() as away:
        away.setattr("supervisor.daemon.rogues.end_tree", in_vain)
        for _ in range(3):
            await hunt.scan()
    assert told == [(pid, "failed")]
    assert [rogue.pid for rogue in hunt.standing] == [pid]
    await hunt.scan()
    assert told[1:] == [(pid, "terminated")]
    assert hunt.standing == ()
