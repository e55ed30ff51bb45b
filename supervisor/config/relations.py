"""What belongs together in a configuration, checked on the data as it was written.

Not on the validated settings: there are none while anything else is wrong, and everything is told at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from supervisor.config.address import Address
from supervisor.config.document import Path
from supervisor.config.env_file import check_name
from supervisor.config.settings import HttpSettings

Found = Iterator[tuple[Path, str]]


def check(data: Mapping[str, object]) -> Found:
    livekit = data.get("livekit")
    if isinstance(livekit, dict):
        yield from _livekit(livekit)
    http = data.get("http")
    if isinstance(http, dict):
        yield from _http(http)
    agents = data.get("agents")
    if agents == ():
        yield ("agents",), "must not be empty"
    if isinstance(agents, tuple):
        for index, agent in enumerate(agents):
            if isinstance(agent, dict):
                yield from _agent(agent, ("agents", index))
        yield from _same_ids(agents)


def _given(section: Mapping[str, object], key: str) -> bool:
    return section.get(key) is not None


def _livekit(section: Mapping[str, object]) -> Found:
    here: Path = ("livekit",)
    secret, file = _given(section, "api_secret"), _given(section, "api_secret_file")
    if secret and file:
        yield (*here, "api_secret_file"), "is there beside api_secret: keep one of them"
    if not secret and not file:
        yield (*here, "api_secret"), "is required, or api_secret_file"
    for one, other in (("webhook_api_key", "webhook_api_secret"), ("webhook_api_secret", "webhook_api_key")):
        if _given(section, one) and not _given(section, other):
            yield (*here, other), f"is required beside {one}"


def _http(section: Mapping[str, object]) -> Found:
    default = HttpSettings.model_fields["listen"].default
    listen = _address(section.get("listen")) if _given(section, "listen") else default
    also = _address(section.get("webhook_listen"))
    if listen is not None and also is not None and listen.overlaps(also):
        yield (
            ("http", "webhook_listen"),
            "is taken by listen, where webhooks arrive, too: leave it out, or choose another port",
        )


def _address(value: object) -> Address | None:
    """None for what is found fault with elsewhere."""
    try:
        return Address.parse(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _agent(agent: Mapping[str, object], here: Path) -> Found:
    script, command = _given(agent, "script"), _given(agent, "command")
    if script and command:
        yield (*here, "command"), "is there beside script: keep one of them"
    if not script and not command:
        yield (*here, "script"), "is required, or command"
    if command and not script:
        for key in ("python", "args"):
            if _given(agent, key):
                yield (*here, key), "goes with script; a command holds everything itself"
    env = agent.get("env")
    for name in env if isinstance(env, dict) else ():
        try:
            check_name(name)
        except ValueError as error:
            yield (*here, "env", name), str(error)


def _same_ids(agents: tuple[object, ...]) -> Found:
    first: dict[str, int] = {}
    for index, agent in enumerate(agents):
        agent_id = agent.get("id") if isinstance(agent, dict) else None
        if not isinstance(agent_id, str) or not agent_id:
            continue
        if agent_id in first:
            yield ("agents", index, "id"), f"is the id of agents[{first[agent_id]}] already"
        first.setdefault(agent_id, index)
