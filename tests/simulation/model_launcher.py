"""How the server finds a worker for a dispatch: it asks those of the name once, within 3 s, and never again.

One rule: what is pending here dies with the server.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from tests.simulation import model_facts as facts
from tests.simulation.model_ports import DispatchState, ModelDispatch, Offer, Verdict, WorkerEnd

PutOut = Callable[[str, str], None]
"""Ends the session of a job: room and job ID."""


class Launcher:
    """The registered workers, and the jobs on their way to them."""

    def __init__(self, rng: random.Random) -> None:
        self.workers: list[WorkerEnd] = []
        self._loop = asyncio.get_running_loop()
        self._agents_known_since: float | None = None
        self._rng = rng
        self._pending: set[asyncio.TimerHandle] = set()

    def register(self, worker: WorkerEnd) -> None:
        self.workers.append(worker)
        self._agents_known_since = None

    def unregister(self, worker: WorkerEnd) -> None:
        if worker in self.workers:
            self.workers.remove(worker)

    def launch(self, dispatch: ModelDispatch, offer: Offer, put_out: PutOut) -> None:
        now = self._loop.time()
        if self._agents_known_since is None or now > self._agents_known_since + facts.AGENTS_KNOWN_FOR:
            self._agents_known_since = now
        dispatch.listed_from = self._agents_known_since + facts.JOBS_LISTED_AFTER
        launch = _Launch(self, dispatch, offer, put_out, now + facts.JOB_REQUEST_TIMEOUT)
        self.later(self._rng.uniform(*facts.LAUNCH_SECONDS), launch.ask)

    def choose(self, name: str, asked: list[WorkerEnd]) -> WorkerEnd | None:
        candidates = [w for w in self.workers if w.name == name and w.available and w not in asked]
        return self._rng.choice(candidates) if candidates else None

    def terminate(self, dispatch: ModelDispatch, put_out: PutOut) -> None:
        """End its jobs, slowly; where the worker is gone nothing happens, and the participant stays."""
        worker = dispatch.worker
        if worker is None or worker not in self.workers:
            return

        def end() -> None:
            for job_id in dispatch.job_ids:
                put_out(dispatch.room, job_id)
                worker.terminate(job_id)

        unlisted = max(0.0, dispatch.listed_from - self._loop.time())
        self.later(unlisted + self._rng.uniform(*facts.DELETE_DISPATCH_SECONDS), end)

    def crash(self) -> None:
        for timer in self._pending:
            timer.cancel()
        self._pending.clear()
        self._agents_known_since = None
        workers, self.workers = self.workers, []
        for worker in workers:
            worker.server_gone()

    def later(self, seconds: float, do: Callable[[], None]) -> asyncio.TimerHandle:
        def run() -> None:
            self._pending.discard(handle)
            do()

        handle = self._loop.call_later(seconds, run)
        self._pending.add(handle)
        return handle

    def is_pending(self, handle: asyncio.TimerHandle) -> bool:
        return handle in self._pending

    def cancel(self, handle: asyncio.TimerHandle) -> None:
        self._pending.discard(handle)
        handle.cancel()


class _Launch:
    """One job of one dispatch, until a worker has it or all have been asked."""

    def __init__(
        self, launcher: Launcher, dispatch: ModelDispatch, offer: Offer, put_out: PutOut, deadline: float
    ) -> None:
        self._launcher = launcher
        self._dispatch = dispatch
        self._offer = offer
        self._put_out = put_out
        self._deadline = deadline
        self._asked: list[WorkerEnd] = []

    def ask(self) -> None:
        worker = self._launcher.choose(self._offer.agent_name, self._asked)
        left = self._deadline - asyncio.get_running_loop().time()
        if worker is None or left <= 0:
            self._lose()
            return
        self._asked.append(worker)
        waiting = self._launcher.later(left, self._lose)

        def answer(verdict: Verdict) -> None:
            if not self._launcher.is_pending(waiting):
                return  # too late, or asked in another life of the server
            self._launcher.cancel(waiting)
            self._conclude(worker, verdict)

        worker.offer(self._offer, answer)

    def _conclude(self, worker: WorkerEnd, verdict: Verdict) -> None:
        if verdict is Verdict.PASS:
            self.ask()
            return
        dispatch = self._dispatch
        deleted = dispatch.state is DispatchState.DELETED
        dispatch.job_ids.append(self._offer.job_id)
        if verdict is Verdict.REJECT:
            dispatch.state = DispatchState.DELETED if deleted else DispatchState.REJECTED
            return
        dispatch.state = DispatchState.DELETED if deleted else DispatchState.ASSIGNED
        dispatch.worker = worker
        worker.assign(self._offer)
        if deleted:
            self._launcher.terminate(dispatch, self._put_out)

    def _lose(self) -> None:
        if self._dispatch.state is DispatchState.LAUNCHING:
            self._dispatch.state = DispatchState.LOST
