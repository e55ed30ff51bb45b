"""LiveKit's messages, read into the facts that decisions are made from."""

from __future__ import annotations

from livekit.protocol import agent_dispatch, models

from supervisor.core.model import Dispatch, Participant, ParticipantKind, Room

DEFAULT_DEPARTURE_TIMEOUT = 20

_KINDS = {
    models.ParticipantInfo.Kind.STANDARD: ParticipantKind.STANDARD,
    models.ParticipantInfo.Kind.INGRESS: ParticipantKind.INGRESS,
    models.ParticipantInfo.Kind.EGRESS: ParticipantKind.EGRESS,
    models.ParticipantInfo.Kind.SIP: ParticipantKind.SIP,
    models.ParticipantInfo.Kind.AGENT: ParticipantKind.AGENT,
    models.ParticipantInfo.Kind.CONNECTOR: ParticipantKind.CONNECTOR,
    models.ParticipantInfo.Kind.BRIDGE: ParticipantKind.BRIDGE,
}


def kind_of(info: models.ParticipantInfo) -> ParticipantKind:
    """A kind that we do not know yet is neither a human nor an agent: nobody calls for it or removes it."""
    return _KINDS.get(info.kind, ParticipantKind.BRIDGE)


def is_present(info: models.ParticipantInfo) -> bool:
    return info.state != models.ParticipantInfo.State.DISCONNECTED


def participant_of(info: models.ParticipantInfo) -> Participant:
    return Participant(
        identity=info.identity,
        sid=info.sid,
        kind=kind_of(info),
        joined_at_ms=info.joined_at_ms or info.joined_at * 1000,
        has_track=bool(info.tracks),
        attributes=dict(info.attributes),
    )


def dispatch_of(message: agent_dispatch.AgentDispatch) -> Dispatch:
    return Dispatch(
        id=message.id,
        agent_name=message.agent_name,
        room=message.room,
        job_ids=tuple(job.id for job in message.state.jobs),
        metadata=message.metadata,
        created_at_ms=message.state.created_at // 1_000_000,
    )


def room_of(message: models.Room) -> Room:
    return Room(
        name=message.name,
        sid=message.sid,
        num_participants=message.num_participants,
        departure_timeout=message.departure_timeout or DEFAULT_DEPARTURE_TIMEOUT,
    )
