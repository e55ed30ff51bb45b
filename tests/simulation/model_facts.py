"""How long LiveKit and its clients take: seconds, as measured on the real server or read in its source.

Pairs are the bounds between which the model draws.
"""

from __future__ import annotations

import random

Bounds = tuple[float, float]

# --- the server's API ---
CALL_SECONDS: Bounds = (0.001, 0.005)
NO_RESPONSE_SECONDS = 3.0
"""Then it says 503: no node serves this room."""
MISSING_ROOM_SECONDS = 0.5
"""What our own client takes to find out that there is no such room."""
STALE_SECONDS = 1.0
"""How far ``ListParticipants`` may lag behind, where it reads the store."""
NUM_PARTICIPANTS_LAG = 5.0

# --- rooms ---
EMPTY_TIMEOUT = 300.0
DEPARTURE_TIMEOUT = 20.0
ROOM_PURGE_INTERVAL = 1.0
"""How often it looks for rooms to close."""
GHOST_SECONDS = 21.0
"""A participant whose process is dead stays listed, with its track."""
TRACK_SECONDS: Bounds = (0.01, 0.05)

# --- webhooks ---
WEBHOOK_SECONDS: Bounds = (0.002, 0.006)
WEBHOOK_MAX_AGE = 30.0

# --- dispatches and jobs ---
LAUNCH_SECONDS: Bounds = (0.2, 0.22)
"""From a dispatch until a worker is asked."""
JOBS_LISTED_AFTER = 5.0
"""The server asks its nodes which agents there are, for 5 s; a dispatch lists its jobs only after that."""
AGENTS_KNOWN_FOR = 60.0
"""Then it asks again; and whenever a worker has registered."""
JOB_REQUEST_TIMEOUT = 3.0
"""For all workers of the name together; then the dispatch is lost."""
ANSWER_SECONDS: Bounds = (0.005, 0.05)
JOB_START_SECONDS: Bounds = (0.02, 0.1)
JOIN_SECONDS: Bounds = (0.3, 0.45)
JOB_END_SECONDS: Bounds = (0.05, 0.5)
DELETE_DISPATCH_SECONDS: Bounds = (4.0, 5.0)
"""From ``DeleteDispatch`` until its agent has left."""

# --- coming back ---
RECONNECT_TRIES = 10
RECONNECT_LONGEST = 7.0
"""Between two tries of the SDK: anything from 0 to 0.4, 0.8, 1.6 … 7 s."""
WORKER_START_SECONDS: Bounds = (3.0, 5.0)
WORKER_TRIES = 16
WORKER_LONGEST = 10.0
"""Between two tries of a worker: 0, 2, 4 … 10 s."""


def reconnect_delay(number: int, rng: random.Random) -> float:
    return rng.uniform(0.0, min(RECONNECT_LONGEST, 0.4 * 2**number))


def worker_delay(number: int) -> float:
    return min(WORKER_LONGEST, 2.0 * number)
