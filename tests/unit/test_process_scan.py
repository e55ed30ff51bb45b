"""Who is a rogue: a table of facts and verdicts."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from supervisor.process.command_line import worker_script
from supervisor.process.scan import AgentFacts, ProcessFacts, Rogue, Supervisor, Verdict, find_rogues
from supervisor.process.variables import AGENT_ID, LAUNCH, LIVEKIT_URL, STATE

STATE_DIR = "/var/lib/supervisor"
URL = "ws://127.0.0.1:7880"
SCRIPT = "/srv/voice/agent.py"
US, OTHER_USER = 1000, 1001
DAEMON, WORKER, JOB = 100, 200, 201
LAUNCHED = "5.aa.h"

OUR_MARKS = {AGENT_ID: "a", STATE: STATE_DIR, LIVEKIT_URL: URL}
SUPERVISOR = Supervisor(state=STATE_DIR, livekit_url=URL, uid=US, pid=DAEMON)
AGENT = AgentFacts("a", SCRIPT, Verdict.TERMINATE, worker_pid=WORKER, launch=LAUNCHED)
TWIN = AgentFacts("b", SCRIPT, Verdict.TERMINATE)
COMMAND = AgentFacts("c", None, Verdict.TERMINATE)


def _process(
    pid: int, line: str, environ: dict[str, str] | None, ppid: int = 1, uid: int = US
) -> ProcessFacts:
    argv = tuple(shlex.split(line))
    exe = f"/usr/bin/{argv[0]}"
    return ProcessFacts(
        pid=pid,
        ppid=ppid,
        uid=uid,
        start_ticks=pid,
        create_time=float(pid),
        exe=exe,
        cmdline=argv,
        environ=environ,
        cwd="/srv/voice",
        script=worker_script(exe, argv, "/srv/voice"),
    )


WORLD = (
    _process(1, "init", {}, ppid=0, uid=0),
    _process(50, "bash", {}),
    _process(DAEMON, "python -m supervisor run", {}, ppid=50),
    _process(WORKER, "python -m agent_guard /srv/voice/agent.py", {**OUR_MARKS, LAUNCH: LAUNCHED}, DAEMON),
    _process(JOB, "python -c spawn_main", {**OUR_MARKS, LAUNCH: LAUNCHED}, WORKER),
)


def _judge(
    *processes: ProcessFacts,
    agents: tuple[AgentFacts, ...] = (AGENT, COMMAND),
    supervisor: Supervisor = SUPERVISOR,
) -> tuple[Rogue, ...]:
    return find_rogues((*WORLD, *processes), agents, supervisor)


def _verdict(process: ProcessFacts, **others: object) -> tuple[str, Verdict] | None:
    found = _judge(process, **others)  # type: ignore[arg-type]
    assert len(found) <= 1
    assert all(rogue.pid == process.pid for rogue in found)
    return (found[0].agent_id, found[0].verdict) if found else None


def test_all_is_well() -> None:
    assert _judge() == ()


TERMINATED = ("a", Verdict.TERMINATE)
REPORTED = ("a", Verdict.REPORT)

BY_MARKS = {
    "started by hand with our variables": ("python x.py", OUR_MARKS, TERMINATED),
    "whatever program": ("sleep 60", OUR_MARKS, TERMINATED),
    "left over from an earlier worker": ("python -c job", {**OUR_MARKS, LAUNCH: "4.bb.h"}, TERMINATED),
    "a job of ours whose parent died": ("python -c job", {**OUR_MARKS, LAUNCH: LAUNCHED}, None),
    "the state directory, written otherwise": ("x", {**OUR_MARKS, STATE: f"{STATE_DIR}/"}, TERMINATED),
    "of an agent that is not configured": ("x", {**OUR_MARKS, AGENT_ID: "z"}, None),
    "of a command agent": ("x", {**OUR_MARKS, AGENT_ID: "c"}, ("c", Verdict.TERMINATE)),
    "only the ID": ("x", {AGENT_ID: "a"}, None),
    "only the state": ("x", {STATE: STATE_DIR}, None),
    "only the ID, though it runs the script": ("python agent.py start", {AGENT_ID: "a"}, None),
    "other state, same ID and LiveKit": ("x", {**OUR_MARKS, STATE: "/other"}, REPORTED),
    "other state, other LiveKit": ("x", {**OUR_MARKS, STATE: "/other", LIVEKIT_URL: "ws://x"}, None),
    "other state, LiveKit unknown": ("x", {AGENT_ID: "a", STATE: "/other"}, None),
    "other state, other ID": ("x", {**OUR_MARKS, STATE: "/other", AGENT_ID: "z"}, None),
    "other state, and our script": (
        "python agent.py start",
        {**OUR_MARKS, STATE: "/other", LIVEKIT_URL: "ws://x"},
        None,
    ),
}


@pytest.mark.parametrize("case", BY_MARKS)
def test_by_what_it_carries(case: str) -> None:
    line, environ, expected = BY_MARKS[case]
    assert _verdict(_process(300, line, environ)) == expected


BY_SCRIPT = {
    "python agent.py start": TERMINATED,
    "python agent.py dev": TERMINATED,
    "python agent.py connect --room x": TERMINATED,
    "python -m livekit.agents start agent.py": TERMINATED,
    "python -m agent_guard agent.py": TERMINATED,
    "python agent.py console": None,
    "python other.py start": None,
    "vim agent.py": None,
    "less agent.py": None,
    "python -m pytest agent.py": None,
    "bash -c 'python agent.py start'": None,
}


@pytest.mark.parametrize("line", BY_SCRIPT)
def test_by_what_it_runs(line: str) -> None:
    process = _process(300, line, {"HOME": "/", LIVEKIT_URL: "ws://elsewhere"})
    assert _verdict(process) == BY_SCRIPT[line]


def test_as_configured() -> None:
    lenient = (replace(AGENT, rogue=Verdict.REPORT),)
    assert _verdict(_process(300, "x", OUR_MARKS), agents=lenient) == REPORTED
    assert _verdict(_process(300, "python agent.py start", {}), agents=lenient) == REPORTED


def test_one_script_serves_several_agents() -> None:
    theirs = {**OUR_MARKS, AGENT_ID: "b", LAUNCH: "6.cc.h"}
    other = _process(300, "python -m agent_guard /srv/voice/agent.py", theirs, DAEMON)
    twin = replace(TWIN, worker_pid=300, launch="6.cc.h")
    assert _judge(other, agents=(AGENT, twin)) == ()
    bare = _process(301, "python agent.py start", {})
    assert _verdict(bare, agents=(AGENT, TWIN)) == TERMINATED
    assert _verdict(bare, agents=(AGENT, replace(TWIN, rogue=Verdict.REPORT))) == REPORTED


def test_what_is_started_by_hand_while_its_agent_is_stopped_is_reported() -> None:
    """How an operator tries something out, or goes back to the old programs; what is ours is still ended."""
    stopped = replace(AGENT, worker_pid=None, launch="", stopped=True)
    bare = _process(300, "python agent.py start", {})
    (rogue,) = find_rogues((*WORLD[:3], bare), (stopped,), SUPERVISOR)
    assert (rogue.agent_id, rogue.verdict) == REPORTED
    assert rogue.reason.endswith("outside the supervisor, while the agent is stopped")
    for marks in (OUR_MARKS, {**OUR_MARKS, LAUNCH: "4.bb.h"}):
        left = _process(300, "python -m agent_guard /srv/voice/agent.py", marks)
        (rogue,) = find_rogues((*WORLD[:3], left), (stopped,), SUPERVISOR)
        assert (rogue.agent_id, rogue.verdict) == TERMINATED
    (rogue,) = _judge(bare, agents=(AGENT, replace(TWIN, stopped=True)))
    assert (rogue.agent_id, rogue.verdict) == ("b", Verdict.REPORT)


def test_of_a_tree_only_the_root_and_nothing_of_ours() -> None:
    tree = (
        _process(300, "python agent.py dev", {}),
        _process(301, "python agent.py dev", {}, ppid=300),
        _process(302, "python -c job", OUR_MARKS, ppid=301),
        _process(310, "python agent.py start", {}, ppid=JOB),
    )
    assert [rogue.pid for rogue in _judge(*tree)] == [300]


def test_neither_the_daemon_nor_those_above_it() -> None:
    shell, daemon = (replace(p, environ=OUR_MARKS) for p in WORLD[1:3])
    assert find_rogues((shell, daemon), (AGENT,), SUPERVISOR) == ()


def test_another_user_s_is_reported() -> None:
    for process in (
        _process(300, "x", OUR_MARKS, uid=OTHER_USER),
        _process(300, "python agent.py start", {}, uid=OTHER_USER),
        _process(300, "python agent.py start", None, uid=OTHER_USER),
    ):
        (rogue,) = _judge(process)
        assert rogue.verdict is Verdict.REPORT
        assert "belongs to user 1001" in rogue.reason


def test_what_cannot_be_read_is_no_evidence() -> None:
    assert _verdict(_process(300, "x", None)) is None
    assert _verdict(_process(300, "python agent.py start", None)) == REPORTED
    assert _verdict(replace(_process(300, "python agent.py start", {}), script=None)) is None


def test_while_the_worker_is_not_there() -> None:
    stopped = (replace(AGENT, worker_pid=None, launch=""),)
    job = _process(300, "x", {**OUR_MARKS, LAUNCH: "4.bb.h"})
    found = find_rogues((*WORLD[:3], job), stopped, SUPERVISOR)
    assert [(rogue.pid, rogue.verdict) for rogue in found] == [(300, Verdict.TERMINATE)]
    # A worker whose launch is not known: nobody can tell its jobs from others', so none is touched.
    assert _verdict(job, agents=(replace(AGENT, launch=""),)) is None


def test_the_reason_says_whether_the_other_daemon_is_alive() -> None:
    process = _process(300, "x", {**OUR_MARKS, STATE: "/other"})
    (dead,) = _judge(process)
    (alive,) = _judge(process, supervisor=replace(SUPERVISOR, live_states=frozenset({"/other"})))
    assert dead.reason == f"{alive.reason}, which is not running"
    assert alive.verdict is dead.verdict is Verdict.REPORT


def test_a_loop_of_parents_ends() -> None:
    assert _judge(_process(300, "x", {}, ppid=301), _process(301, "x", {}, ppid=300)) == ()
