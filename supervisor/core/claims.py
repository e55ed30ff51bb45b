"""Who holds a room: at most one job, fenced by an epoch that only grows.

The table is in memory and knows no clock: every method is told the time.  Two rules protect live calls
from our own absence: while the table is *frozen* (after a start of the daemon, and after its event loop
was late) no claim expires, and a room that is held is never granted anew.  A claim whose process is
known to be dead is released at once, frozen or not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from supervisor.core.by_agent import ByAgent
from supervisor.core.model import Claim, ClaimOutcome, ClaimState

PENDING_SECONDS = 15.0
"""How long a granted job may take from its grant to its first connection."""

OVER_REMEMBERED = 10_000
"""How many jobs are remembered that are over or were told no, so that a late one cannot come back."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job that a worker would like to take."""

    room: str
    agent_id: str
    job_id: str
    dispatch_id: str
    identity: str


@dataclass(frozen=True, slots=True)
class Answer:
    outcome: ClaimOutcome
    claim: Claim | None
    """Granted: the claim; held: the one that is in the way."""


@dataclass(frozen=True, slots=True)
class JobArrival:
    """A job's own connection, made or made again."""

    room: str
    agent_id: str
    job_id: str
    identity: str
    dispatch_id: str
    pid: int
    epoch: int | None
    """The epoch it was granted, or None when it never spoke to a daemon."""
    joined: bool


class ClaimTable:
    """All claims of one supervisor."""

    def __init__(self, epoch: int = 0) -> None:
        self._claims: ByAgent[Claim] = ByAgent()
        self._epoch = epoch
        self._frozen_until = 0.0
        self._over: OrderedDict[str, None] = OrderedDict()

    # --- reading ---

    def get(self, room: str) -> Claim | None:
        return self._claims.get(room)

    def all(self) -> tuple[Claim, ...]:
        return tuple(self._claims)

    def of_agent(self, agent_id: str) -> tuple[Claim, ...]:
        return tuple(self._claims.of_agent(agent_id))

    def count(self, agent_id: str) -> int:
        return len(self._claims.of_agent(agent_id))

    @property
    def epoch(self) -> int:
        """The highest epoch ever given."""
        return self._epoch

    def frozen(self, now: float) -> bool:
        return now < self._frozen_until

    # --- time that does not count ---

    def freeze(self, until: float) -> None:
        """Nothing expires before ``until``: deadlines count only while the daemon was running."""
        self._frozen_until = max(self._frozen_until, until)
        for room, claim in self._claims.items():
            if claim.expires_at < until:
                self._claims.put(room, replace(claim, expires_at=until))

    # --- changes ---

    def load(self, claims: Iterable[Claim], *, expires_at: float, epoch: int) -> None:
        """Take over what the store remembers; each claim waits for its job to connect again."""
        self._epoch = max(self._epoch, epoch)
        for claim in claims:
            self._epoch = max(self._epoch, claim.epoch)
            self._claims.put(claim.room, replace(claim, expires_at=expires_at))

    def request(
        self,
        request: JobRequest,
        now: float,
        *,
        max_rooms: int = 0,
        draining: bool = False,
    ) -> Answer:
        """May this job have the room?  Asking again for the same job gives the same answer."""
        held = self._holder(request.room, now)
        if held is not None and not _passed_on(held, request):
            own = (held.job_id, held.agent_id) == (request.job_id, request.agent_id)
            return Answer(ClaimOutcome.GRANTED if own else ClaimOutcome.HELD, held)
        if draining:
            return Answer(ClaimOutcome.DRAINING, None)
        if max_rooms and self.count(request.agent_id) >= max_rooms:
            return Answer(ClaimOutcome.FULL, None)
        if self.is_over(request.job_id):
            return Answer(ClaimOutcome.ERROR, None)
        claim = Claim(
            room=request.room,
            agent_id=request.agent_id,
            job_id=request.job_id,
            epoch=self._next_epoch(),
            state=ClaimState.PENDING,
            expires_at=max(now + PENDING_SECONDS, self._frozen_until),
            identity=request.identity,
            dispatch_id=request.dispatch_id,
            since=now,
        )
        self._claims.put(request.room, claim)
        return Answer(ClaimOutcome.GRANTED, claim)

    def arrive(self, job: JobArrival, now: float, timeout: float) -> Claim | None:
        """A job has connected: its claim, live from now on, or None when the room is another's.

        A job that is in the room already goes before one that was only promised it: that happens when
        the daemon came back without its store and granted the room before the older job spoke up.

        No is for good: a job that was told so leaves, and must not be given the room while it does.
        """
        if self.is_over(job.job_id):
            return None
        held = self._holder(job.room, now)
        if held is not None and not _is_of(held, job):
            if held.job_id == job.job_id:
                return None  # somebody who calls itself by the holder's name
            if held.state is ClaimState.LIVE or not job.joined:
                self.end(job.job_id)
                return None
            self.revoke(job.room)
            held = None
        claim = Claim(
            room=job.room,
            agent_id=job.agent_id,
            job_id=job.job_id,
            epoch=self._epoch_for(job.epoch, held),
            state=ClaimState.LIVE,
            expires_at=max(now + timeout, self._frozen_until),
            identity=job.identity,
            dispatch_id=job.dispatch_id,
            job_pid=job.pid,
            joined=job.joined or (held.joined if held else False),
            since=held.since if held else now,
        )
        self._claims.put(job.room, claim)
        return claim

    def heartbeat(self, room: str, job_id: str, now: float, timeout: float) -> bool:
        """The job is alive; False when the claim is not its own any more."""
        return self._update(room, job_id, expires_at=max(now + timeout, self._frozen_until))

    def joined(self, room: str, job_id: str, identity: str) -> bool:
        """The job has reached the room, under this identity."""
        return self._update(room, job_id, joined=True, identity=identity)

    def release(self, room: str, job_id: str) -> Claim | None:
        """The job does not need the room any more, or is dead; None when it did not hold it."""
        claim = self._claims.get(room)
        if claim is None or claim.job_id != job_id:
            return None
        return self._claims.pop(room)

    def revoke(self, room: str) -> Claim | None:
        """Take the room away from its holder for good: that job can never hold it again."""
        claim = self._claims.pop(room)
        if claim is not None:
            self.end(claim.job_id)
        return claim

    def end(self, job_id: str) -> None:
        """This job holds no room any more, whatever is said in its name."""
        self._over[job_id] = None
        while len(self._over) > OVER_REMEMBERED:
            self._over.popitem(last=False)

    def is_over(self, job_id: str) -> bool:
        return job_id in self._over

    def expired(self, now: float) -> tuple[Claim, ...]:
        """Claims past their deadline.  They stay in the table until released or revoked."""
        if self.frozen(now):
            return ()
        return tuple(c for c in self._claims if now >= c.expires_at)

    def next_expiry(self) -> float | None:
        return min((c.expires_at for c in self._claims), default=None)

    # --- inside ---

    def _holder(self, room: str, now: float) -> Claim | None:
        """The claim that stands.  A live one stands until its job is known to be gone (release or
        revoke): that a heartbeat is overdue proves nothing about who can be heard in the room.
        """
        claim = self._claims.get(room)
        if claim is None:
            return None
        lapsed = claim.state is ClaimState.PENDING and now >= claim.expires_at and not self.frozen(now)
        return None if lapsed else claim

    def _update(self, room: str, job_id: str, **changes: object) -> bool:
        claim = self._claims.get(room)
        if claim is None or claim.job_id != job_id:
            return False
        self._claims.put(room, replace(claim, **changes))  # type: ignore[arg-type]
        return True

    def _next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch

    def _epoch_for(self, asserted: int | None, held: Claim | None) -> int:
        """It never falls: a job that asserts the highest epoch ever given keeps it, one that goes on with
        its claim keeps that one's, and any other gets a new one.
        """
        if held is not None and (asserted is None or asserted <= held.epoch):
            return held.epoch
        self._epoch = max(self._epoch, asserted or 0)
        return asserted if asserted is not None and asserted == self._epoch else self._next_epoch()


def _passed_on(held: Claim, request: JobRequest) -> bool:
    """A job that came to nothing at one worker, which has not told us yet, is offered to the next."""
    same_job = held.job_id == request.job_id and held.state is ClaimState.PENDING
    return same_job and held.agent_id != request.agent_id


def _is_of(held: Claim, job: JobArrival) -> bool:
    """Whether it is the holder itself that speaks: its job, its agent, and once it has come, its process."""
    same_job = (held.job_id, held.agent_id) == (job.job_id, job.agent_id)
    return same_job and (held.state is ClaimState.PENDING or held.job_pid == job.pid)
