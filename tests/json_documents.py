"""The documents of ``--json``, as schemas: every key, no other, and only the values that are promised.

Written by hand after the description of the outside interface, and not made from the types of the code.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TIME: Schema = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"}
TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SECONDS: Schema = {"type": "number", "minimum": 0}
FLAG: Schema = {"type": "boolean"}

STATES = ("stopped", "starting", "ready", "draining", "stopping", "backoff", "crash_loop")
ROOM_STATES = ("healthy", "missing_agent", "conflict", "empty", "unknown")
RESOLUTIONS = ("rejected", "evicted", "terminated", "redispatched", "reported", "failed")
KINDS = (
    *("duplicate_process", "duplicate_request", "duplicate_dispatch", "duplicate_agent", "foreign_agent"),
    *("ghost_agent", "lost_dispatch", "missing_agent", "hung_job", "too_many_rooms"),
)


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def many(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def record(**fields: Schema) -> Schema:
    return {
        "type": "object",
        "required": list(fields),
        "additionalProperties": False,
        "properties": fields,
    }


def document(**fields: Schema) -> Schema:
    return record(version={"const": 1}, **fields)


STATUS = document(
    daemon=record(version=TEXT, pid=COUNT, since=TIME, mode=one_of("production", "development")),
    livekit=record(url=TEXT, up=FLAG, error=or_null(TEXT)),
    agents=many(
        record(
            id=TEXT,
            name=or_null(TEXT),
            want=one_of("running", "stopped"),
            state=one_of(*STATES),
            reason=or_null(TEXT),
            pid=or_null(COUNT),
            since=or_null(TIME),
            ready=FLAG,
            restarts=COUNT,
            jobs=COUNT,
            memory_bytes=COUNT,
        )
    ),
    rooms={"type": "object", "propertyNames": one_of(*ROOM_STATES), "additionalProperties": COUNT},
    problems=many(
        record(
            severity=one_of("error", "warning", "info"),
            agent_id=or_null(TEXT),
            room=or_null(TEXT),
            message=TEXT,
            fix=or_null(TEXT),
        )
    ),
)

ROOMS = document(
    rooms=many(
        record(
            name=TEXT,
            sid=TEXT,
            state=one_of(*ROOM_STATES),
            reason=or_null(TEXT),
            humans=COUNT,
            agents=many(record(identity=TEXT, agent_id=or_null(TEXT), holder=FLAG)),
            claim=or_null(record(agent_id=TEXT, job_id=TEXT, epoch=COUNT)),
        )
    )
)

CONFLICTS = document(
    conflicts=many(
        record(
            time=TIME,
            kind=one_of(*KINDS),
            resolution=one_of(*RESOLUTIONS),
            room=or_null(TEXT),
            agent_id=or_null(TEXT),
            seconds=SECONDS,
        )
    )
)

CHECK = document(
    ok=FLAG,
    problems=many(
        record(severity=one_of("error", "warning"), file=TEXT, line=or_null(COUNT), key=TEXT, message=TEXT)
    ),
)

DIAGNOSIS = document(
    wrong=FLAG,
    findings={
        "minItems": 1,
        **many(
            record(
                severity=one_of("error", "warning", "unknown", "ok"),
                area=one_of(
                    "configuration", "daemon", "processes", "livekit", "rooms", "logs", "host", "letta"
                ),
                message={"type": "string", "minLength": 1},
                evidence=many(TEXT),
                fix=or_null(TEXT),
            )
        ),
    },
)

SERVICE = document(
    written=FLAG,
    files=many(record(path=TEXT, mode=TEXT, content=TEXT)),
    notes=many(TEXT),
    commands=many(TEXT),
)

DEMO = document(
    agent_id=TEXT,
    room=TEXT,
    disturbances=many(
        record(
            disturbance=TEXT,
            most_agents_in_room=COUNT,
            most_agents_audible=COUNT,
            seconds_two_audible=SECONDS,
            seconds_until_audible=or_null(SECONDS),
            healed=FLAG,
        )
    ),
    one_audible_agent_at_the_end=FLAG,
)

LOG_LINE: Schema = {"type": "object", "required": ["message"]}
