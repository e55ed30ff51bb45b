"""No history of grants, renewals, releases, expiries, crashes and restarts gives two holders of a room."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from supervisor.core.claims import PENDING_SECONDS, ClaimTable, JobArrival, JobRequest
from supervisor.core.model import Claim, ClaimOutcome, ClaimState
from tests.scale import times

TIMEOUT = 10.0


def request(job: str, room: str = "r", agent: str = "a") -> JobRequest:
    return JobRequest(room, agent, job, f"dispatch-{job}", f"agent-{job}")


def arrival(
    job: str,
    room: str = "r",
    *,
    epoch: int | None = None,
    joined: bool = False,
    agent: str = "a",
    pid: int = 1234,
) -> JobArrival:
    return JobArrival(room, agent, job, f"agent-{job}", f"dispatch-{job}", pid, epoch, joined)


def live(table: ClaimTable, job: str, now: float = 0.0) -> Claim:
    table.request(request(job), now)
    claim = table.arrive(arrival(job), now, TIMEOUT)
    assert claim is not None
    return claim


def test_one_job_gets_the_room_and_the_next_is_told_who_has_it() -> None:
    table = ClaimTable()
    first = table.request(request("j1"), 0.0)
    assert (first.outcome, first.claim and first.claim.state) == (ClaimOutcome.GRANTED, ClaimState.PENDING)
    second = table.request(request("j2"), 1.0)
    assert (second.outcome, second.claim and second.claim.job_id) == (ClaimOutcome.HELD, "j1")


def test_asking_again_gives_the_same_answer() -> None:
    table = ClaimTable()
    assert table.request(request("j1"), 0.0) == table.request(request("j1"), 1.0)


def test_a_promise_lapses_and_a_live_claim_does_not() -> None:
    table = ClaimTable()
    table.request(request("j1"), 0.0)
    assert table.request(request("j2"), PENDING_SECONDS).outcome is ClaimOutcome.GRANTED
    table.arrive(arrival("j2"), PENDING_SECONDS, TIMEOUT)
    overdue = PENDING_SECONDS + 100 * TIMEOUT
    assert [c.job_id for c in table.expired(overdue)] == ["j2"]
    assert table.request(request("j3"), overdue).outcome is ClaimOutcome.HELD


def test_heartbeats_keep_a_claim() -> None:
    table = ClaimTable()
    live(table, "j1")
    assert table.heartbeat("r", "j1", 9.0, TIMEOUT)
    assert table.expired(18.0) == ()
    assert not table.heartbeat("r", "j2", 9.0, TIMEOUT)


def test_full_and_draining_agents_take_nothing_and_do_not_hide_a_holder() -> None:
    table = ClaimTable()
    live(table, "j1")
    other = request("j2", room="s")
    assert table.request(other, 0.0, max_rooms=1).outcome is ClaimOutcome.FULL
    assert table.request(other, 0.0, draining=True).outcome is ClaimOutcome.DRAINING
    assert table.request(request("j2"), 0.0, max_rooms=1, draining=True).outcome is ClaimOutcome.HELD


def test_nothing_expires_and_nothing_is_granted_anew_while_frozen() -> None:
    table = ClaimTable()
    table.request(request("j1"), 0.0)
    live(table, "j1")
    table.freeze(until=100.0)
    assert table.expired(99.0) == ()
    assert table.request(request("j2"), 99.0).outcome is ClaimOutcome.HELD
    assert [c.job_id for c in table.expired(100.0)] == ["j1"]


def test_a_promise_does_not_lapse_while_frozen() -> None:
    table = ClaimTable()
    table.request(request("j1"), 0.0)
    table.freeze(until=100.0)
    assert table.request(request("j2"), 99.0).outcome is ClaimOutcome.HELD


def test_a_dead_holder_is_released_at_once_even_while_frozen() -> None:
    table = ClaimTable()
    live(table, "j1")
    table.freeze(until=100.0)
    assert table.release("r", "j1") is not None
    assert table.request(request("j2"), 1.0).outcome is ClaimOutcome.GRANTED


def test_a_revoked_job_never_comes_back_and_the_next_epoch_is_higher() -> None:
    table = ClaimTable()
    old = live(table, "j1")
    table.revoke("r")
    new = live(table, "j2")
    assert new.epoch > old.epoch
    assert table.arrive(arrival("j1", epoch=old.epoch, joined=True), 1.0, TIMEOUT) is None
    table.release("r", "j2")
    assert table.arrive(arrival("j1", epoch=old.epoch, joined=True), 1.0, TIMEOUT) is None
    assert table.request(request("j1"), 1.0).outcome is ClaimOutcome.ERROR


def test_a_job_that_was_told_no_leaves_and_is_not_given_the_room_while_it_does() -> None:
    table = ClaimTable()
    live(table, "j1")
    assert table.arrive(arrival("j2", joined=True), 1.0, TIMEOUT) is None
    table.release("r", "j1")
    assert table.arrive(arrival("j2", joined=True), 1.1, TIMEOUT) is None
    assert table.request(request("j3"), 1.2).outcome is ClaimOutcome.GRANTED


def test_nobody_else_is_the_holder_by_saying_its_name() -> None:
    table = ClaimTable()
    claim = live(table, "j1")
    assert table.arrive(arrival("j1", agent="b", joined=True), 1.0, TIMEOUT) is None
    assert table.arrive(arrival("j1", pid=99, joined=True), 1.0, TIMEOUT) is None
    assert table.request(request("j1", agent="b"), 1.0).outcome is ClaimOutcome.HELD
    assert table.get("r") == claim
    assert table.arrive(arrival("j1", epoch=claim.epoch, joined=True), 1.0, TIMEOUT) is not None


def test_a_job_that_one_worker_did_not_take_may_be_taken_by_the_next() -> None:
    """LiveKit offers it on before the first has said that nothing came of it."""
    table = ClaimTable()
    first = table.request(request("j1"), 0.0).claim
    second = table.request(request("j1", agent="b"), 1.0)
    assert (second.outcome, second.claim and second.claim.agent_id) == (ClaimOutcome.GRANTED, "b")
    assert first is not None
    assert second.claim is not None
    assert second.claim.epoch > first.epoch
    assert table.arrive(arrival("j1", agent="a"), 1.1, TIMEOUT) is None
    assert table.arrive(arrival("j1", agent="b"), 1.2, TIMEOUT) is not None


def test_an_epoch_never_falls() -> None:
    """The daemon came back without its store, and counts from the start."""
    table = ClaimTable()
    table.request(request("j1"), 0.0)
    claim = table.arrive(arrival("j1", epoch=7, joined=True), 0.1, TIMEOUT)
    assert claim is not None
    assert claim.epoch >= 7
    assert live(table, "j2", 0.2) if table.release("r", "j1") else None
    assert table.epoch > 7


def test_a_job_in_the_room_goes_before_one_that_was_promised_it() -> None:
    """The daemon came back without its store and granted the room before the older job spoke up."""
    table = ClaimTable()
    table.request(request("new"), 0.0)
    claim = table.arrive(arrival("old", epoch=7, joined=True), 0.1, TIMEOUT)
    assert claim is not None
    assert claim.job_id == "old"
    assert claim.epoch >= 7
    assert table.arrive(arrival("new", epoch=1), 0.2, TIMEOUT) is None


def test_a_job_that_never_asked_takes_only_a_free_room() -> None:
    table = ClaimTable()
    live(table, "j1")
    assert table.arrive(arrival("j2", joined=True), 1.0, TIMEOUT) is None
    assert table.arrive(arrival("j3", room="free", joined=True), 1.0, TIMEOUT) is not None


def test_claims_and_the_highest_epoch_survive_a_restart() -> None:
    before = ClaimTable()
    claim = live(before, "j1")
    after = ClaimTable()
    after.load([claim], expires_at=50.0, epoch=40)
    after.freeze(until=50.0)
    assert after.request(request("j2"), 1.0).outcome is ClaimOutcome.HELD
    back = after.arrive(arrival("j1", epoch=claim.epoch, joined=True), 2.0, TIMEOUT)
    assert back is not None
    assert back.epoch == claim.epoch
    assert after.request(request("j4", room="s"), 3.0).claim is not None
    assert after.epoch > 40


class Histories(RuleBasedStateMachine):
    """Daemons crash with and without their store; jobs live on, die, and come back late.

    After a crash without the store the rooms of those in them are refused, since a look shows that they are
    there (:class:`supervisor.reconcile.guards.GuardDesk`), until they have spoken.
    """

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.table = ClaimTable()
        self.now = 0.0
        self.count = 0
        self.granted: dict[str, int] = {}
        """Job to the epoch that it believes in."""
        self.told: dict[str, bool] = {}
        """Job to whether the daemon said last that it holds its room."""
        self.unheard: dict[str, str] = {}
        """Room to the job in it, which has not spoken since the store was lost."""
        self.refused: set[str] = set()
        self.highest = 0

    @rule(target=jobs, room=st.sampled_from("rs"), agent=st.sampled_from("ab"), draining=st.booleans())
    def ask(self, room: str, agent: str, draining: bool) -> tuple[str, str, str]:
        self.count += 1
        job = (f"j{self.count}", room, agent)
        self._request(job, draining)
        return job

    @rule(job=jobs, other=st.sampled_from("ab"))
    def offer_on(self, job: tuple[str, str, str], other: str) -> None:
        """To a worker of another agent, as LiveKit does with a job that came to nothing."""
        if not self.told.get(job[0]):
            self._request((job[0], job[1], other), draining=False)

    def _request(self, job: tuple[str, str, str], draining: bool) -> None:
        name, room, agent = job
        if room in self.unheard:
            return
        answer = self.table.request(request(name, room, agent), self.now, draining=draining)
        if answer.outcome is ClaimOutcome.GRANTED:
            assert answer.claim is not None
            assert name not in self.refused
            assert answer.claim.epoch > self.highest or answer.claim.epoch == self.granted[name]
            self.highest = max(self.highest, answer.claim.epoch)
            self.granted[name] = answer.claim.epoch

    @rule(job=jobs, joined=st.booleans())
    def arrive(self, job: tuple[str, str, str], joined: bool) -> None:
        name, room, agent = job
        if self.unheard.get(room, name) != name:
            return
        joined = joined or room in self.unheard
        claim = self.table.arrive(
            arrival(name, room, agent=agent, epoch=self.granted.get(name), joined=joined), self.now, TIMEOUT
        )
        self.unheard.pop(room, None)
        self.told[name] = claim is not None
        if claim is None and self.table.is_over(name):
            self.refused.add(name)
        elif claim is not None:
            assert name not in self.refused
            assert claim.epoch >= self.granted.get(name, 0)
            self.granted[name] = claim.epoch
            self.highest = max(self.highest, claim.epoch)

    @rule(job=jobs, pid=st.sampled_from([1234, 99]), joined=st.booleans())
    def impersonate(self, job: tuple[str, str, str], pid: int, joined: bool) -> None:
        """A process of another agent's, or another process, calls itself by a live job's name."""
        name, room, agent = job
        other = ("b" if agent == "a" else "a") if pid == 1234 else agent
        if self.told.get(name) and room not in self.unheard:
            before = self.table.all()
            liar = arrival(name, room, agent=other, pid=pid, epoch=self.highest, joined=joined)
            assert self.table.arrive(liar, self.now, TIMEOUT) is None
            assert self.table.all() == before

    @rule(job=jobs)
    def heartbeat(self, job: tuple[str, str, str]) -> None:
        self.table.heartbeat(job[1], job[0], self.now, TIMEOUT)

    @rule(job=consumes(jobs))
    def die(self, job: tuple[str, str, str]) -> None:
        self.told.pop(job[0], None)
        if self.unheard.get(job[1]) == job[0]:
            del self.unheard[job[1]]
        self.table.release(job[1], job[0])

    @rule(room=st.sampled_from("rs"))
    def revoke(self, room: str) -> None:
        claim = self.table.revoke(room)
        if claim is not None:
            self.told[claim.job_id] = False
            self.refused.add(claim.job_id)

    @rule(seconds=st.floats(0.1, 30.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def late(self) -> None:
        self.table.freeze(self.now + TIMEOUT)

    @rule()
    def drop_lapsed(self) -> None:
        for claim in self.table.expired(self.now):
            if claim.state is ClaimState.PENDING:
                self.table.release(claim.room, claim.job_id)

    @rule()
    def restart_with_store(self) -> None:
        """Who was told no is leaving, and what it was told is forgotten with the daemon."""
        claims, epoch = self.table.all(), self.table.epoch
        self.table = ClaimTable()
        self.table.load(claims, expires_at=self.now + TIMEOUT, epoch=epoch)
        self.table.freeze(self.now + TIMEOUT)
        self.refused.clear()

    @rule()
    def restart_without_store(self) -> None:
        for claim in self.table.all():
            if claim.state is ClaimState.LIVE:
                self.unheard[claim.room] = claim.job_id
        self.table = ClaimTable()
        self.table.freeze(self.now + TIMEOUT)
        self.highest = 0
        self.refused.clear()

    @invariant()
    def at_most_one_job_believes_that_it_holds_a_room(self) -> None:
        holders = [c.job_id for c in self.table.all() if c.state is ClaimState.LIVE]
        believers = [job for job, holds in self.told.items() if holds]
        assert sorted(believers) == sorted([*holders, *self.unheard.values()])
        rooms = [c.room for c in self.table.all() if c.state is ClaimState.LIVE]
        assert not set(rooms) & self.unheard.keys()

    @invariant()
    def no_epoch_is_above_the_highest(self) -> None:
        assert all(c.epoch <= self.table.epoch for c in self.table.all())


TestHistories = pytest.mark.soak(Histories.TestCase)
TestHistories.settings = settings(max_examples=times(test=100, soak=1_000), stateful_step_count=60)
