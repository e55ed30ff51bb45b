"""What to do about a room: facts in, actions out, one rule of the design per test."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from supervisor.core.conflicts import Conflict, ConflictKind, winner
from supervisor.core.model import (
    AgentView,
    Claim,
    ClaimState,
    DeadJob,
    Dispatch,
    JobDeath,
    Participant,
    ParticipantKind,
    RecoveryCause,
    RoomState,
    Unknown,
)
from supervisor.core.room import (
    Action,
    CreateDispatch,
    Decision,
    DeleteDispatch,
    RemoveParticipant,
    RevokeClaim,
    RoomFacts,
    RoomMemory,
    RoomPolicy,
    Target,
    after_dispatch,
    after_failure,
)
from supervisor.core.room_look import HAND_OVER, LISTED_AFTER
from supervisor.core.room_plan import STAYED, plan
from supervisor.core.room_silence import SETTLE
from supervisor.core.room_surplus import FRESH, JOBS_LISTED, SECOND_LOOK, TRY_AGAIN

K = ConflictKind
NOW = 1000.0
POLICY = RoomPolicy(instance="us")
ALICE = AgentView("alice", "Alice", ("*",), ready=True, ready_since=0.0)
BOB = AgentView("bob", "Bob", (), ready=True, ready_since=0.0)
HUMAN = Participant("human", "PA_h", ParticipantKind.STANDARD, 5)


def agent(
    job: str, *, name: str = "Alice", joined: int = 10, track: bool = True, also: dict[str, str] | None = None
) -> Participant:
    return Participant(
        f"agent-{job}",
        f"PA_{job}",
        ParticipantKind.AGENT,
        joined,
        track,
        {"lk.agent_name": name, **(also or {})},
    )


def dispatch(number: int, *jobs: str, name: str = "Alice", metadata: str = "") -> Dispatch:
    return Dispatch(f"D{number}", name, "room", jobs, metadata, created_at_ms=number)


def claim(job: str, *, state: ClaimState = ClaimState.LIVE, number: int = 1, joined: bool = True) -> Claim:
    return Claim("room", "alice", job, 1, state, NOW + 10, f"agent-{job}", f"D{number}", 77, joined)


def dead(
    job: str, *, cause: JobDeath | None = JobDeath.WORKER_DEATH, at: float = NOW - 1, left: bool = False
) -> DeadJob:
    return DeadJob(job, f"agent-{job}", "alice", "room", cause, at, left=left)


def facts(
    *participants: Participant,
    dispatches: tuple[Dispatch, ...] = (),
    held: Claim | None = None,
    agents: tuple[AgentView, ...] = (ALICE, BOB),
    livekit_since: float = 0.0,
) -> RoomFacts:
    return RoomFacts("room", participants, dispatches, held, agents, livekit_since)


def decide(
    given: RoomFacts, memory: RoomMemory | None = None, *, now: float = NOW, policy: RoomPolicy = POLICY
) -> Decision:
    return plan(given, policy, memory or RoomMemory(), now)


SILENT = RoomMemory(silent_since=NOW - 60)
"""A human has been waiting for long enough for anything."""


class TestUnknown:
    @pytest.mark.parametrize(
        "given",
        [
            replace(facts(HUMAN), participants=Unknown("timed out")),
            replace(facts(HUMAN), dispatches=Unknown("timed out")),
        ],
        ids=["participants", "dispatches"],
    )
    def test_a_failed_read_leads_to_no_action_and_forgets_nothing(self, given: RoomFacts) -> None:
        decision = decide(given, SILENT)
        assert decision.state is RoomState.UNKNOWN
        assert decision.actions == ()
        assert decision.reason == "timed out"
        assert decision.memory.silent_since == SILENT.silent_since

    def test_time_in_which_nothing_was_known_is_no_time_that_the_holder_stayed_away(self) -> None:
        held = facts(HUMAN, held=claim("J1"))
        missed = decide(held).memory
        blind = decide(replace(held, participants=Unknown("away")), missed, now=NOW + 4)
        assert decide(held, blind.memory, now=NOW + 9).actions == ()
        assert decide(held, missed, now=NOW + 9).actions == (RevokeClaim("J1"),)


class TestWhoseRoom:
    def test_a_room_that_asks_only_for_others_is_not_ours(self) -> None:
        decision = decide(facts(HUMAN, dispatches=(dispatch(1, name="Stranger"),)), SILENT)
        assert not decision.ours
        assert decision.actions == ()

    def test_a_room_that_no_pattern_matches_is_not_ours(self) -> None:
        assert not decide(facts(HUMAN, agents=(BOB,)), SILENT).ours

    def test_livekits_own_dispatch_for_nobody_asks_for_nobody(self) -> None:
        """Every room that is created without agents has it (LIVEKIT: default dispatch, empty name)."""
        decision = decide(facts(HUMAN, dispatches=(dispatch(1, name=""),)), SILENT)
        assert decision.actions == (CreateDispatch(Target("Alice", "alice")),)

    def test_but_one_that_an_unnamed_stranger_has_taken_is_theirs(self) -> None:
        assert not decide(facts(HUMAN, dispatches=(dispatch(1, "J1", name=""),)), SILENT).ours

    def test_the_applications_dispatch_chooses_the_agent(self) -> None:
        given = facts(HUMAN, dispatches=(dispatch(1, name="Bob", metadata="order 7"),))
        memory = replace(SILENT, seen={"D1": NOW - 60})
        first = decide(given, memory)
        assert first.actions == (DeleteDispatch("D1", K.LOST_DISPATCH, "bob"),)
        then = decide(facts(HUMAN), first.memory)
        assert then.actions == (CreateDispatch(Target("Bob", "bob", "order 7")),)

    def test_a_dispatch_never_displaces_a_live_holder(self) -> None:
        given = facts(
            HUMAN,
            agent("J1"),
            dispatches=(dispatch(1, "J1"), dispatch(2, name="Bob")),
            held=claim("J1"),
        )
        decision = decide(given)
        assert decision.actions == ()
        assert decision.memory.target == Target("Alice", "alice")

    def test_of_two_agents_with_one_name_the_one_that_is_ready_is_asked(self) -> None:
        twins = (replace(ALICE, ready=False), replace(ALICE, id="alice2"))
        decision = decide(facts(HUMAN, agents=twins), SILENT)
        assert decision.actions == (CreateDispatch(Target("Alice", "alice2")),)


class TestMissing:
    def test_a_young_silence_is_waited_for(self) -> None:
        decision = decide(facts(HUMAN))
        assert decision.state is RoomState.MISSING_AGENT
        assert decision.actions == ()
        assert decision.look_at == NOW + POLICY.missing_grace
        assert decision.conflicts == ()

    def test_an_old_one_is_put_right_by_one_dispatch(self) -> None:
        decision = decide(facts(HUMAN), SILENT)
        assert decision.actions == (CreateDispatch(Target("Alice", "alice")),)
        assert decision.conflicts == (Conflict(K.MISSING_AGENT, "", "alice"),)

    def test_dispatches_are_never_stacked(self) -> None:
        memory = after_dispatch(SILENT, "D1", NOW - 1)
        decision = decide(facts(HUMAN, dispatches=(dispatch(1, "J1"),)), memory)
        assert decision.actions == ()
        assert decision.look_at == NOW - 1 + POLICY.join_timeout

    def test_not_even_when_the_list_does_not_show_it_yet(self) -> None:
        memory = after_dispatch(SILENT, "D1", NOW)
        assert decide(facts(HUMAN), memory).actions == ()

    def test_one_that_brought_nobody_is_deleted_and_then_made_again_later_and_later(self) -> None:
        memory = after_dispatch(SILENT, "D1", NOW - 15)
        lost = decide(facts(HUMAN, dispatches=(dispatch(1, "J1"),)), memory)
        assert lost.actions == (DeleteDispatch("D1", K.LOST_DISPATCH, "alice"),)
        again = decide(facts(HUMAN), lost.memory)
        assert again.actions == (CreateDispatch(Target("Alice", "alice")),)
        waits = []
        memory = again.memory
        for number in range(4):
            memory = after_dispatch(memory, f"D{number + 2}", NOW)
            waits.append(memory.next_attempt_at - NOW)
        assert waits == pytest.approx([2, 4, 8, 16])

    def test_a_dispatch_from_before_the_worker_was_ready_is_lost_at_once(self) -> None:
        late = replace(ALICE, ready_since=NOW - SETTLE)
        given = facts(HUMAN, dispatches=(dispatch(1),), agents=(late,))
        memory = RoomMemory(silent_since=NOW - 2, seen={"D1": NOW - 2})
        assert decide(given, memory).actions == (DeleteDispatch("D1", K.LOST_DISPATCH, "alice"),)

    def test_but_not_one_that_a_job_was_made_of(self) -> None:
        late = replace(ALICE, ready_since=NOW - SETTLE)
        given = facts(HUMAN, dispatches=(dispatch(1, "J1"),), agents=(late,))
        memory = RoomMemory(silent_since=NOW - 2, seen={"D1": NOW - 2})
        assert decide(given, memory).actions == ()

    @pytest.mark.parametrize(
        ("view", "says"),
        [
            (replace(ALICE, ready=False, reason="crash loop"), "crash loop"),
            (replace(ALICE, full=True), "as many"),
        ],
    )
    def test_an_agent_that_cannot_come_is_a_visible_reason(self, view: AgentView, says: str) -> None:
        decision = decide(facts(HUMAN, agents=(view,)), SILENT)
        assert decision.actions == ()
        assert decision.state is RoomState.MISSING_AGENT
        assert says in decision.reason

    def test_a_pending_claim_is_waited_for(self) -> None:
        decision = decide(facts(HUMAN, held=claim("J1", state=ClaimState.PENDING)), SILENT)
        assert decision.actions == ()
        assert decision.look_at == NOW + 10

    def test_a_job_that_reconnects_is_waited_for_and_then_loses_the_room(self) -> None:
        given = facts(HUMAN, held=claim("J1"))
        first = decide(given, RoomMemory(had_agent=True))
        assert first.actions == ()
        assert first.look_at is not None
        assert first.look_at <= NOW + POLICY.reconnect_grace
        later = decide(given, first.memory, now=NOW + POLICY.reconnect_grace)
        assert later.actions == (RevokeClaim("J1"),)

    def test_one_that_has_never_joined_may_take_longer(self) -> None:
        given = facts(HUMAN, held=claim("J1", joined=False))
        memory = RoomMemory(absent_since=NOW - POLICY.reconnect_grace)
        assert decide(given, memory).actions == ()
        memory = RoomMemory(absent_since=NOW - POLICY.join_timeout)
        assert decide(given, memory).actions == (RevokeClaim("J1"),)

    def test_the_grace_begins_when_the_human_is_back(self) -> None:
        alone = decide(facts(held=claim("J1")), RoomMemory(absent_since=NOW - 60))
        assert alone.actions == ()
        assert decide(facts(HUMAN, held=claim("J1")), alone.memory).actions == ()

    def test_a_claim_that_is_due_is_not_looked_at_without_pause(self) -> None:
        pending = replace(claim("J1", state=ClaimState.PENDING), expires_at=NOW - 1)
        look_at = decide(facts(HUMAN, held=pending), SILENT).look_at
        assert look_at is not None
        assert look_at > NOW

    def test_a_dispatch_that_has_brought_its_agent_may_bring_it_back(self) -> None:
        """One list without an agent that nobody claims for, minutes after its dispatch was made."""
        given = facts(HUMAN, dispatches=(dispatch(1, "J1"),))
        there = RoomMemory(seen={"D1": NOW - 300}, had_agent=True, agent_at=NOW - 0.1, agent_since=NOW - 299)
        gone = decide(given, there)
        assert (gone.actions, gone.look_at) == ((), NOW + POLICY.missing_grace)
        again = decide(given, gone.memory, now=NOW + POLICY.missing_grace)
        assert again.actions == (DeleteDispatch("D1", K.LOST_DISPATCH, "alice"),)

    def test_a_dispatch_that_another_worker_of_the_name_may_have_taken_is_not_lost(self) -> None:
        old, young = replace(ALICE, ready_since=0.0), replace(ALICE, id="alice2", ready_since=NOW - 5)
        given = facts(HUMAN, dispatches=(dispatch(1),), agents=(young, old))
        memory = RoomMemory(seen={"D1": NOW - 6}, silent_since=NOW - 6)
        waits = decide(given, memory)
        assert (waits.actions, waits.look_at) == ((), NOW - 6 + POLICY.join_timeout)
        both_young = replace(given, agents=(young, replace(young, id="alice")))
        assert decide(both_young, memory).actions == (DeleteDispatch("D1", K.LOST_DISPATCH, "alice2"),)

    def test_agents_that_die_as_soon_as_they_come_are_asked_for_later_and_later(self) -> None:
        memory, now, pauses = SILENT, NOW, []
        for number in range(5):
            while not (made := decide(facts(HUMAN), memory, now=now)).actions:
                assert made.look_at is not None
                memory, now = made.memory, made.look_at
            memory = after_dispatch(made.memory, f"D{number}", now)
            pauses.append(now)
            now += 0.5
            came = facts(HUMAN, agent(f"J{number}"), dispatches=(dispatch(number, f"J{number}"),))
            memory = replace(decide(came, memory, now=now).memory, dead=(dead(f"J{number}", at=now),))
        gaps = [round(b - a, 3) for a, b in itertools.pairwise(pauses)]
        assert gaps[0] <= 1.0
        assert gaps == sorted(gaps)
        assert gaps[-1] >= 4.0

    def test_the_end_of_one_that_has_stayed_is_made_good_at_once(self) -> None:
        memory = replace(SILENT, attempts=4, next_attempt_at=NOW + 20)
        came = decide(facts(HUMAN, agent("J1")), memory, now=NOW).memory
        ended = replace(came, dead=(dead("J1", at=NOW + STAYED),))
        assert decide(facts(HUMAN), ended, now=NOW + STAYED).actions == (
            CreateDispatch(Target("Alice", "alice")),
        )

    def test_the_end_of_one_whose_models_have_failed_is_not(self) -> None:
        memory = replace(SILENT, attempts=4, next_attempt_at=NOW + 20)
        came = decide(facts(HUMAN, agent("J1")), memory, now=NOW).memory
        over = replace(dead("J1", cause=None, left=True, at=NOW + STAYED), failed=True)
        ended = decide(facts(HUMAN), replace(came, dead=(over,)), now=NOW + STAYED)
        assert (ended.actions, ended.memory.attempts) == ((), 4)
        assert decide(facts(HUMAN), ended.memory, now=NOW + 19).actions == ()
        then = decide(facts(HUMAN), ended.memory, now=NOW + 20)
        assert then.actions == (CreateDispatch(Target("Alice", "alice")),)

    def test_an_agent_beside_no_human_needs_nothing(self) -> None:
        decision = decide(facts(agent("J1"), dispatches=(dispatch(1, "J1"),), held=claim("J1")))
        assert (decision.state, decision.actions) == (RoomState.EMPTY, ())

    @pytest.mark.parametrize("kind", list(ParticipantKind))
    def test_only_people_wait_for_an_agent(self, kind: ParticipantKind) -> None:
        people = {ParticipantKind.STANDARD, ParticipantKind.SIP, ParticipantKind.CONNECTOR}
        decision = decide(facts(replace(HUMAN, kind=kind)), SILENT)
        assert bool(decision.actions) == (kind in people)


class TestGhosts:
    GIVEN = facts(HUMAN, agent("J1"), dispatches=(dispatch(1, "J1", metadata="m"),))
    MEMORY = RoomMemory(had_agent=True, dead=(dead("J1"),))

    def test_a_ghost_goes_then_its_dispatch_and_then_an_agent_is_asked_for(self) -> None:
        first = decide(self.GIVEN, self.MEMORY)
        assert first.actions == (
            RemoveParticipant("agent-J1", K.GHOST_AGENT, "alice"),
            DeleteDispatch("D1", K.GHOST_AGENT, "alice"),
        )
        assert Conflict(K.GHOST_AGENT, "agent-J1", "alice") in first.conflicts
        third = decide(facts(HUMAN), first.memory)
        assert third.actions == (CreateDispatch(Target("Alice", "alice", "m")),)

    def test_the_dispatch_of_the_dead_is_not_called_lost(self) -> None:
        memory = replace(self.MEMORY, seen={"D1": NOW - 600})
        kinds = {conflict.kind for conflict in decide(self.GIVEN, memory).conflicts}
        assert kinds == {K.GHOST_AGENT, K.MISSING_AGENT}

    def test_nothing_is_waited_for_after_a_death(self) -> None:
        assert decide(facts(HUMAN), self.MEMORY).actions == (CreateDispatch(Target("Alice", "alice")),)

    def test_it_is_counted_from_the_death_to_the_agent(self) -> None:
        silent = decide(facts(HUMAN), self.MEMORY)
        back = decide(facts(HUMAN, agent("J2"), held=claim("J2", number=2)), silent.memory, now=NOW + 1.5)
        assert back.recovery is not None
        assert back.recovery.cause is RecoveryCause.WORKER_DEATH
        assert back.recovery.seconds == pytest.approx(2.5)
        assert back.memory.silent_since is None

    def test_where_a_ghost_cannot_be_removed_nobody_waits_for_that(self) -> None:
        """LiveKit answers 503 for good where a node has died and its Redis lists the dead still."""
        given = facts(HUMAN, agent("J1"))
        memory = replace(SILENT, dead=(dead("J1"),))
        (removal,) = decide(given, memory).actions
        failed = after_failure(decide(given, memory).memory, removal, NOW)
        then = decide(given, failed, now=NOW + 0.2)
        assert then.actions == (CreateDispatch(Target("Alice", "alice")),)
        assert [c.kind for c in then.conflicts] == [K.GHOST_AGENT, K.MISSING_AGENT]
        dispatched = after_dispatch(then.memory, "D2", NOW + 0.2)
        waiting = facts(HUMAN, agent("J1"), dispatches=(dispatch(2),))
        assert decide(waiting, dispatched, now=NOW + 0.3).actions == ()
        assert decide(waiting, dispatched, now=NOW + TRY_AGAIN).actions == (removal,)

    def test_a_job_that_holds_the_room_is_no_ghost(self) -> None:
        given = facts(HUMAN, agent("J1"), held=claim("J1"))
        assert decide(given, self.MEMORY).actions == ()

    def test_a_ghost_beside_the_new_agent_goes(self) -> None:
        given = facts(HUMAN, agent("J1"), agent("J2", joined=20), held=claim("J2"))
        assert decide(given, self.MEMORY).actions == (RemoveParticipant("agent-J1", K.GHOST_AGENT, "alice"),)

    def test_the_dead_are_forgotten_after_a_while(self) -> None:
        memory = RoomMemory(dead=(dead("J1", at=NOW - 61), dead("J2", at=NOW - 59)))
        assert [d.job_id for d in decide(facts(HUMAN), memory).memory.dead] == ["J2"]

    def test_but_not_while_they_are_listed(self) -> None:
        memory = RoomMemory(dead=(dead("J1", at=NOW - 600),))
        assert decide(self.GIVEN, memory).memory.dead == memory.dead


class TestAnEndInGoodOrder:
    ENDED = RoomMemory(
        dead=(dead("J1", cause=None, left=True),), had_agent=True, target=Target("Alice", "alice")
    )

    def test_its_dispatch_is_spent_whether_or_not_a_human_is_there(self) -> None:
        spent = (DeleteDispatch("D1", K.GHOST_AGENT, "alice"),)
        for given in (
            facts(dispatches=(dispatch(1, "J1"),)),
            facts(HUMAN, dispatches=(dispatch(1, "J1"),)),
        ):
            decision = decide(given, self.ENDED)
            assert decision.actions == spent
            assert decision.conflicts == ()

    def test_a_human_whom_the_agent_has_left_gets_another_after_the_grace(self) -> None:
        first = decide(facts(HUMAN), self.ENDED)
        assert first.actions == ()
        later = decide(facts(HUMAN), first.memory, now=NOW + 2)
        assert later.actions == (CreateDispatch(Target("Alice", "alice")),)

    def test_a_human_who_comes_when_it_has_ended_waits_for_nothing(self) -> None:
        empty = decide(facts(), self.ENDED)
        assert decide(facts(HUMAN), empty.memory).actions == (CreateDispatch(Target("Alice", "alice")),)

    def test_the_silence_of_a_newcomer_begins_with_their_coming(self) -> None:
        died = replace(self.ENDED, dead=(dead("J1", at=NOW - 20),))
        empty = decide(facts(), died)
        assert decide(facts(HUMAN), empty.memory).memory.silent_since == NOW

    def test_a_stale_list_that_shows_it_for_a_moment_makes_it_no_ghost(self) -> None:
        given = facts(HUMAN, agent("J1"))
        assert decide(given, self.ENDED).conflicts == ()
        late = decide(given, self.ENDED, now=NOW + 2)
        assert late.actions == (RemoveParticipant("agent-J1", K.GHOST_AGENT, "alice"),)

    def test_one_that_holds_the_room_has_not_ended(self) -> None:
        given = facts(HUMAN, agent("J1"), held=claim("J1"))
        assert decide(given, self.ENDED).state is RoomState.HEALTHY


class TestSeveralAgents:
    def test_the_holder_stays_and_the_other_goes_at_once(self) -> None:
        given = facts(
            HUMAN,
            agent("J2", joined=1),
            agent("J1"),
            dispatches=(dispatch(1, "J1"), dispatch(2, "J2")),
            held=claim("J1"),
        )
        decision = decide(given)
        assert decision.actions[:2] == (
            RemoveParticipant("agent-J2", K.DUPLICATE_AGENT, "alice"),
            DeleteDispatch("D2", K.DUPLICATE_AGENT, "alice"),
        )
        assert decision.state is RoomState.CONFLICT

    def test_without_a_claim_it_is_looked_at_twice(self) -> None:
        given = facts(HUMAN, agent("J1", joined=1), agent("J2", joined=2))
        first = decide(given)
        assert first.actions == ()
        assert first.look_at == pytest.approx(NOW + SECOND_LOOK)
        second = decide(given, first.memory, now=NOW + SECOND_LOOK)
        assert second.actions == (RemoveParticipant("agent-J2", K.DUPLICATE_AGENT, "alice"),)

    def test_a_suspect_that_was_innocent_meanwhile_is_suspected_anew(self) -> None:
        two = facts(HUMAN, agent("J1", joined=1), agent("J2", joined=2))
        first = decide(two)
        alone = decide(facts(HUMAN, agent("J2", joined=2)), first.memory, now=NOW + 0.1)
        assert decide(two, alone.memory, now=NOW + SECOND_LOOK).actions == ()

    def test_an_answer_that_was_long_in_coming_removes_nobody_without_a_claim(self) -> None:
        two = (HUMAN, agent("J1", joined=1), agent("J2", joined=2))
        late = NOW + SECOND_LOOK
        given = replace(facts(*two), age=FRESH + 0.1)
        first = decide(given)
        second = decide(given, first.memory, now=late)
        assert second.actions == ()
        assert second.look_at == pytest.approx(late + SECOND_LOOK)
        third = decide(facts(*two), second.memory, now=late)
        assert third.actions == (RemoveParticipant("agent-J2", K.DUPLICATE_AGENT, "alice"),)
        held = replace(facts(*two, held=claim("J1")), age=FRESH + 0.1)
        assert decide(held).actions == third.actions, "whose job speaks to us is there"

    def test_one_that_was_gone_already_is_no_reason_to_remove_who_is_there(self) -> None:
        old, new = agent("J1", joined=1), agent("J2", joined=2)
        memory = decide(facts(HUMAN, old), now=NOW - 60).memory
        memory = decide(facts(HUMAN, new), memory, now=NOW).memory
        for late in (0.1, SECOND_LOOK + 0.1):  # lists from before J1 left
            stale = decide(facts(HUMAN, old, new), memory, now=NOW + late)
            assert (stale.actions, stale.conflicts) == ((), ())
            assert stale.look_at == pytest.approx(NOW + LISTED_AFTER)
            memory = stale.memory
        again = decide(facts(HUMAN, old, new), memory, now=NOW + LISTED_AFTER)
        assert K.DUPLICATE_AGENT in {c.kind for c in again.conflicts}, "no list is so old: it is there"

    def test_one_that_has_only_just_come_may_be_missing_from_an_old_list(self) -> None:
        old, new = agent("J1", joined=1), agent("J2", joined=2)
        memory = decide(facts(HUMAN, old), now=NOW - 60).memory
        memory = decide(facts(HUMAN, old, new), memory, now=NOW).memory
        memory = decide(facts(HUMAN, old), memory, now=NOW + 0.1).memory
        found = decide(facts(HUMAN, old, new), memory, now=NOW + 0.2)
        assert [c.subject for c in found.conflicts] == ["agent-J2"]

    def test_a_holder_whose_job_speaks_is_never_doubted(self) -> None:
        holder, other = agent("J1", joined=1), agent("J2", joined=2)
        memory = decide(facts(HUMAN, holder, held=claim("J1")), now=NOW - 60).memory
        memory = decide(facts(HUMAN, other, held=claim("J1")), memory, now=NOW).memory
        found = decide(facts(HUMAN, holder, other, held=claim("J1")), memory, now=NOW + 0.1)
        assert found.actions[0] == RemoveParticipant("agent-J2", K.DUPLICATE_AGENT, "alice")

    def test_a_holder_that_is_not_in_the_room_removes_nobody_at_once(self) -> None:
        given = facts(HUMAN, agent("J2"), held=claim("J1"))
        assert decide(given).actions == ()

    def test_the_last_agent_is_never_removed(self) -> None:
        stranger = agent("J9", name="Stranger")
        decision = decide(facts(HUMAN, stranger, dispatches=(dispatch(1),)), RoomMemory(had_agent=True))
        assert decision.actions == ()
        assert decision.conflicts == (Conflict(K.FOREIGN_AGENT, "agent-J9"),)

    def test_a_stranger_beside_ours_goes(self) -> None:
        given = facts(HUMAN, agent("J1"), agent("J9", name="Stranger"), held=claim("J1"))
        assert decide(given).actions == (RemoveParticipant("agent-J9", K.FOREIGN_AGENT, ""),)

    def test_one_to_be_ignored_does_not_and_is_not_counted(self) -> None:
        policy = replace(POLICY, ignore_agents=("Transcri*",))
        given = facts(HUMAN, agent("J1"), agent("J9", name="Transcriber"), held=claim("J1"))
        decision = decide(given, policy=policy)
        assert (decision.state, decision.actions, decision.conflicts) == (RoomState.HEALTHY, (), ())
        alone = facts(HUMAN, agent("J9", name="Transcriber"))
        assert decide(alone, SILENT, policy=policy).actions == (CreateDispatch(Target("Alice", "alice")),)

    @pytest.mark.parametrize("held", [claim("J1"), None], ids=["holder", "dispatched"])
    def test_one_of_ours_that_is_to_be_ignored_is_left_alone(self, held: Claim | None) -> None:
        policy = replace(POLICY, ignore_agents=("Ali*",))
        memory = replace(SILENT, absent_since=NOW - 60)
        dispatches = (dispatch(1, "J1"), dispatch(2), dispatch(3))
        given = facts(HUMAN, agent("J1"), held=held, dispatches=dispatches)
        decision = decide(given, memory, policy=policy)
        assert (decision.actions, decision.conflicts) == ((), ())
        assert decision.state is RoomState.HEALTHY

    def test_one_of_ours_that_is_to_be_ignored_keeps_nobody_else_away(self) -> None:
        """A transcriber of ours was dispatched, and came, before the voice."""
        policy = replace(POLICY, ignore_agents=("Bob",))
        scribe = agent("J9", name="Bob")
        by_pattern = facts(HUMAN, scribe, dispatches=(dispatch(1, "J9", name="Bob"),))
        assert decide(by_pattern, SILENT, policy=policy).actions == (
            CreateDispatch(Target("Alice", "alice")),
        )
        asked = facts(HUMAN, scribe, dispatches=(dispatch(1, "J9", name="Bob"), dispatch(2, metadata="m")))
        waits = decide(asked, RoomMemory(silent_since=NOW), policy=policy)
        assert (waits.actions, waits.memory.target) == ((), Target("Alice", "alice", "m"))
        nobody = replace(by_pattern, agents=(replace(ALICE, rooms=()), BOB))
        assert not decide(nobody, SILENT, policy=policy).ours

    def test_an_avatar_is_never_counted_nor_removed(self) -> None:
        avatar = agent("J1-avatar", also={"lk.publish_on_behalf": "agent-J1"})
        decision = decide(facts(HUMAN, agent("J1"), avatar, held=claim("J1")))
        assert (decision.state, decision.actions) == (RoomState.HEALTHY, ())

    def test_an_agent_of_another_supervisor_is_reported_and_left(self) -> None:
        other = agent("J9", also={"supervisor.instance": "them", "supervisor.agent_id": "alice"})
        decision = decide(facts(HUMAN, agent("J1"), other, held=claim("J1")))
        assert decision.actions == ()
        assert decision.conflicts == (Conflict(K.FOREIGN_AGENT, "agent-J9"),)

    def test_humans_are_never_removed(self) -> None:
        crowd = tuple(replace(HUMAN, identity=f"agent-{n}", joined_at_ms=n) for n in range(5))
        given = facts(*crowd, agent("J1"), held=claim("J1"))
        assert decide(given, RoomMemory(dead=tuple(dead(str(n)) for n in range(5)))).actions == ()

    @pytest.mark.parametrize(
        ("first", "second", "held", "stays"),
        [
            (agent("A", joined=1), agent("B", joined=2), claim("B"), "agent-B"),
            (agent("A", joined=1, name="X"), agent("B", joined=2, track=False), None, "agent-B"),
            (agent("A", joined=1, track=False), agent("B", joined=2), None, "agent-B"),
            (agent("A", joined=2), agent("B", joined=1), None, "agent-B"),
            (agent("A", joined=1), agent("B", joined=1), None, "agent-A"),
        ],
        ids=["claim", "configured", "track", "joined first", "identity"],
    )
    def test_winner(self, first: Participant, second: Participant, held: Claim | None, stays: str) -> None:
        configured = frozenset(p.identity for p in (first, second) if p.agent_name == "Alice")
        assert winner((first, second), held, configured).identity == stays
        assert winner((second, first), held, configured).identity == stays


class TestDispatches:
    def test_the_holders_own_dispatch_is_not_deleted_for_another_job_of_it(self) -> None:
        """LiveKit makes a job for each publisher, of one dispatch, for workers that want it so."""
        memory = RoomMemory(refused=frozenset({"D1"}), had_agent=True)
        for held in (claim("J1"), replace(claim("J1"), dispatch_id="")):
            given = facts(HUMAN, agent("J1"), dispatches=(dispatch(1, "J1", "J2"),), held=held)
            assert decide(given, memory).actions == ()

    def test_a_refused_dispatch_is_deleted_and_is_no_lost_one(self) -> None:
        given = facts(
            HUMAN,
            agent("J1"),
            dispatches=(dispatch(1, "J1"), dispatch(2, "J2")),
            held=claim("J1"),
        )
        decision = decide(given, RoomMemory(refused=frozenset({"D2"})))
        assert decision.actions == (DeleteDispatch("D2", K.DUPLICATE_REQUEST, "alice"),)
        assert decision.state is RoomState.HEALTHY

    @pytest.mark.parametrize("ahead", [0.0, 0.9 * HAND_OVER, -0.1])
    @pytest.mark.parametrize("pause", [0.01, 0.8])
    def test_a_hand_over_that_came_before_the_end_of_the_first_is_meant_all_the_same(
        self, ahead: float, pause: float
    ) -> None:
        """It was refused, as the room was held a moment ago; LiveKit lists the first one's dispatch still."""
        old, new = dispatch(1, "J1"), dispatch(2, name="Bob", metadata="for you")
        held = facts(HUMAN, agent("J1"), dispatches=(old, new), held=claim("J1"))
        refused = decide(held, RoomMemory(refused=frozenset({"D2"}), had_agent=True))
        assert refused.actions == (DeleteDispatch("D2", K.DUPLICATE_REQUEST, "bob"),)
        end = dead("J1", cause=None, left=True, at=NOW + ahead)
        memory, now = replace(refused.memory, dead=(end,)), NOW + ahead + pause
        deleted = decide(facts(HUMAN, dispatches=(old,)), memory, now=now)
        assert deleted.actions == (DeleteDispatch("D1", K.GHOST_AGENT, "alice"),)
        assert deleted.memory.target == Target("Bob", "bob", "for you")
        silent = decide(facts(HUMAN), deleted.memory, now=now + pause)
        assert (silent.actions, silent.conflicts) == ((), ())
        assert silent.look_at is not None
        then = decide(facts(HUMAN), silent.memory, now=silent.look_at)
        assert then.actions == (CreateDispatch(Target("Bob", "bob", "for you")),)

    @pytest.mark.parametrize(
        "end",
        [
            dead("J1", cause=None, left=True, at=NOW + HAND_OVER),
            dead("J1", left=True, at=NOW),
            replace(dead("J1", cause=None, left=True, at=NOW), agent_id="bob"),
        ],
        ids=["later", "crashed", "the same agent"],
    )
    def test_any_other_refusal_is_one(self, end: DeadJob) -> None:
        second = dispatch(2, name="Bob", metadata="for you")
        held = facts(HUMAN, agent("J1"), dispatches=(dispatch(1, "J1"), second), held=claim("J1"))
        memory = decide(held, RoomMemory(refused=frozenset({"D2"}), had_agent=True)).memory
        decision = decide(facts(HUMAN), replace(memory, dead=(end,)), now=end.died_at + 0.1)
        assert decision.memory.target == Target("Alice", "alice")

    def test_whom_the_application_asks_for_at_last_comes_before_who_was_refused(self) -> None:
        refused = (Target("Bob", "bob"), NOW)
        memory = RoomMemory(turned_away=refused, dead=(dead("J1", cause=None, left=True, at=NOW),))
        asked = facts(HUMAN, dispatches=(dispatch(3, name="Alice", metadata="anew"),))
        assert decide(asked, memory).memory.target == Target("Alice", "alice", "anew")

    def test_of_two_for_one_agent_the_holders_stays_after_a_second_look(self) -> None:
        given = facts(
            HUMAN,
            agent("J2"),
            dispatches=(dispatch(1), dispatch(2, "J2")),
            held=claim("J2", number=2),
        )
        first = decide(given)
        assert first.actions == ()
        assert Conflict(K.DUPLICATE_DISPATCH, "D1", "alice") in first.conflicts
        second = decide(given, first.memory, now=NOW + SECOND_LOOK)
        assert second.actions == (DeleteDispatch("D1", K.DUPLICATE_DISPATCH, "alice"),)

    def test_one_that_did_not_bring_the_holder_goes_also_when_it_is_the_only_one(self) -> None:
        given = facts(HUMAN, agent("J1"), dispatches=(dispatch(2, "J2"),), held=claim("J1"))
        first = decide(given)
        assert first.actions == ()
        second = decide(given, first.memory, now=NOW + SECOND_LOOK)
        assert second.actions == (DeleteDispatch("D2", K.DUPLICATE_DISPATCH, "alice"),)

    def test_without_a_claim_it_waits_until_their_jobs_are_listed(self) -> None:
        """The second has brought the agent, and does not say so for 5 s."""
        there = facts(HUMAN, agent("J2"), dispatches=(dispatch(1), dispatch(2)))
        first = decide(there)
        assert decide(there, first.memory, now=NOW + SECOND_LOOK).actions == ()
        listed = facts(HUMAN, agent("J2"), dispatches=(dispatch(1), dispatch(2, "J2")))
        known = decide(listed, first.memory, now=NOW + JOBS_LISTED)
        assert known.actions == ()
        later = decide(listed, known.memory, now=NOW + JOBS_LISTED + SECOND_LOOK)
        assert later.actions == (DeleteDispatch("D1", K.DUPLICATE_DISPATCH, "alice"),)

    def test_but_not_one_that_asks_for_another_agent(self) -> None:
        given = facts(HUMAN, agent("J1"), dispatches=(dispatch(2, name="Bob"),), held=claim("J1"))
        assert decide(given).conflicts == ()

    def test_nor_while_the_holder_has_only_been_promised_the_room(self) -> None:
        held = claim("J1", state=ClaimState.PENDING, joined=False)
        assert decide(facts(HUMAN, dispatches=(dispatch(2),), held=held)).conflicts == ()

    def test_our_own_dispatch_is_followed_until_its_agent_is_there(self) -> None:
        memory = after_dispatch(SILENT, "D1", NOW)
        given = facts(HUMAN, agent("J1"), dispatches=(dispatch(1, "J1"),), held=claim("J1"))
        decision = decide(given, memory, now=NOW + 1)
        assert decision.arrived == "D1"
        assert decide(given, decision.memory, now=NOW + 2).arrived == ""

    def test_a_conflict_stays_the_same_whichever_agent_may_help(self) -> None:
        assert Conflict(K.MISSING_AGENT, "", "alice") == Conflict(K.MISSING_AGENT, "", "bob")


class TestBlame:
    def recovery(self, memory: RoomMemory, livekit_since: float = 0.0) -> RecoveryCause | None:
        given = facts(HUMAN, agent("J1"), held=claim("J1"), livekit_since=livekit_since)
        recovery = decide(given, memory).recovery
        return recovery.cause if recovery is not None else None

    def test_a_first_join_in_good_time_is_no_recovery(self) -> None:
        assert self.recovery(RoomMemory(silent_since=NOW - 0.4)) is None

    def test_a_death_that_was_made_good_is_not_blamed_again(self) -> None:
        memory = RoomMemory(had_agent=True, dead=(dead("J1", at=NOW - 20),))
        good = decide(facts(HUMAN, agent("J2"), held=claim("J2", number=2)), memory)
        silent = decide(facts(HUMAN, held=claim("J2", number=2)), good.memory, now=NOW + 1)
        assert (silent.memory.cause, silent.memory.silent_since) == (None, NOW + 1)

    def test_silence_after_livekit_came_back_is_blamed_on_that(self) -> None:
        memory = RoomMemory(silent_since=NOW - 3, had_agent=True)
        assert self.recovery(memory, livekit_since=NOW - 4) is RecoveryCause.LIVEKIT_RESTART
        assert self.recovery(memory) is RecoveryCause.OTHER


@pytest.mark.parametrize(
    "action",
    [RemoveParticipant("x", K.GHOST_AGENT), RevokeClaim("j"), CreateDispatch(Target("", "a"))],
)
def test_actions_are_values(action: Action) -> None:
    assert action == replace(action)
    assert hash(action) == hash(replace(action))
