"""No history of grants, renewals, releases, expiries, crashes and restarts gives two holders of a room."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from supervisor.core.claims import PENDING_SECONDS, ClaimTable, JobArrival, JobRequest
from supervisor.core.model import Claim, ClaimOutcome, ClaimState

TIMEOUT = 10.0


def request(job: str, room: str = "r", agent: str = "a") -> JobRequest:
    return JobRequest(room, agent, job, f"dispatch-{job}", f"agent-{job}")


def arrival(job: str, room: str = "r", *, epoch: int | None = None, joined: bool = False) -> JobArrival:
    return JobArrival(room, "a", job, f"agent-{job}", f"dispatch-{job}", 1234, epoch, joined)


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
    """Daemons crash with and without their store; jobs live on, die, and come back late."""

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
        self.highest = 0

    @rule(target=jobs, room=st.sampled_from("rs"), draining=st.booleans())
    def ask(self, room: str, draining: bool) -> tuple[str, str]:
        self.count += 1
        job = f"j{self.count}"
        answer = self.table.request(request(job, room), self.now, draining=draining)
        if answer.outcome is ClaimOutcome.GRANTED:
            assert answer.claim is not None
            assert answer.claim.epoch > self.highest
            self.highest = answer.claim.epoch
            self.granted[job] = answer.claim.epoch
        return job, room

    @rule(job=jobs, joined=st.booleans())
    def arrive(self, job: tuple[str, str], joined: bool) -> None:
        name, room = job
        claim = self.table.arrive(
            arrival(name, room, epoch=self.granted.get(name), joined=joined), self.now, TIMEOUT
        )
        self.told[name] = claim is not None
        if claim is not None:
            assert claim.epoch >= self.granted.get(name, 0)
            self.granted[name] = claim.epoch
            self.highest = max(self.highest, claim.epoch)

    @rule(job=jobs)
    def heartbeat(self, job: tuple[str, str]) -> None:
        self.table.heartbeat(job[1], job[0], self.now, TIMEOUT)

    @rule(job=consumes(jobs))
    def die(self, job: tuple[str, str]) -> None:
        self.told.pop(job[0], None)
        self.table.release(job[1], job[0])

    @rule(room=st.sampled_from("rs"))
    def revoke(self, room: str) -> None:
        claim = self.table.revoke(room)
        if claim is not None:
            self.told[claim.job_id] = False

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
        claims, epoch = self.table.all(), self.table.epoch
        self.table = ClaimTable()
        self.table.load(claims, expires_at=self.now + TIMEOUT, epoch=epoch)
        self.table.freeze(self.now + TIMEOUT)

    @invariant()
    def at_most_one_job_believes_that_it_holds_a_room(self) -> None:
        holders = [c.job_id for c in self.table.all() if c.state is ClaimState.LIVE]
        believers = [job for job, holds in self.told.items() if holds]
        assert sorted(believers) == sorted(holders)

    @invariant()
    def no_epoch_is_above_the_highest(self) -> None:
        assert all(c.epoch <= self.table.epoch for c in self.table.all())
        epochs = [c.epoch for c in self.table.all()]
        assert len(epochs) == len(set(epochs))


TestHistories = Histories.TestCase
