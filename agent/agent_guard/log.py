"""The lines that the guard leaves in the worker's log.

One rule: the message is constant and everything else is a key, so that each layer of protection can be
found by its words.
"""

from __future__ import annotations

import logging

logger = logging.getLogger("agent_guard")

REQUEST_RECEIVED = "job request received"
ROOM_ASSIGNED = "room assigned"
DUPLICATE_REJECTED = "duplicate rejected"
REQUEST_REJECTED = "job request rejected"
NEW_SESSION = "creating a new session"
REUSING_SESSION = "reusing the session"
RESETTING_STATE = "resetting state"
SINGLE_AGENT = "single agent validated"
MORE_AGENTS = "more than one agent in the room"
ROOM_RELEASED = "room released"
LEAVING = "leaving the room"
HUMAN_GONE = "last human left, waiting for a return"
GRACE_OVER = "no human came back, ending the job"
DAEMON_AWAY = "supervisor unreachable, looking at the room itself"
LOOK_FAILED = "could not look at the room"
CONNECTED = "connected to the supervisor"
DISCONNECTED = "connection to the supervisor lost"
NOT_SENT = "message not sent"
REFUSED = "refused by the supervisor"
HOOK_FAILED = "a reset hook failed"
SESSION_FAILED = "the session's models failed"
RESET_FAILED = "could not reset the session"
DID_NOT_LEAVE = "the room was not left in time"
