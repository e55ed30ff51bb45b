"""``schema``: the JSON Schema of ``config.yaml``, for editors; made from the settings themselves.

One rule: what ``check`` accepts, the schema accepts.  It may let pass what only ``check`` can know, such as
whether a file is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from supervisor.config import Address, Settings
from supervisor.config.units import DURATION_PATTERN, SIZE_PATTERN, spell_duration, spell_size

Schema = dict[str, Any]

DIALECT = "http://json-schema.org/draft-07/schema#"
"""The newest that every editor's YAML plug-in reads."""

REFERENCE = {"type": "string", "pattern": r"\$\{"}
"""``${NAME}`` may stand for a value of any type."""

_FILLED_IN_BY_US = {"cwd", "paths", "state", "runtime", "logs"}
"""Required by the settings, and given a default before they are made."""

_RENAMED = {"ge": "minimum", "le": "maximum"}


def document() -> Schema:
    """The whole schema, every section in its place."""
    schema = Settings.model_json_schema()
    sections = schema.pop("$defs")
    whole = _object(schema, sections)
    whole["properties"]["livekit"]["anyOf"] = [_requires("api_secret"), _requires("api_secret_file")]
    agents = whole["properties"]["agents"]
    agents["minItems"] = 1
    agents["items"]["anyOf"] = [_requires("script"), _requires("command")]
    return {"$schema": DIALECT, "title": "livekit-supervisor config.yaml", **whole}


def render() -> str:
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def _requires(key: str) -> Schema:
    return {"required": [key]}


def _object(schema: Mapping[str, Any], sections: Mapping[str, Any]) -> Schema:
    required = [
        key for key in schema.get("required", ()) if key not in _FILLED_IN_BY_US and key != "api_secret"
    ]
    properties = {
        key: _property(value, sections, optional=key not in required)
        for key, value in schema["properties"].items()
    }
    told = {"description": schema["description"]} if "description" in schema else {}
    result: Schema = {**told, "type": "object", "properties": properties, "additionalProperties": False}
    if not _is_section(schema):
        result["additionalProperties"] = schema.get("additionalProperties", True)
    if required:
        result["required"] = required
    return result


def _is_section(schema: Mapping[str, Any]) -> bool:
    return "properties" in schema


def _property(value: Mapping[str, Any], sections: Mapping[str, Any], *, optional: bool) -> Schema:
    value = _resolved(value, sections)
    found: Schema = {}
    if "description" in value:
        found["description"] = " ".join(str(value["description"]).split())
    found |= _accepted(_types(value, sections), optional=optional)
    default = written(value, value.get("default"))
    if default is not None:
        found["default"] = default
    return found


def _resolved(value: Mapping[str, Any], sections: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in value:
        return value
    target = sections[value["$ref"].rpartition("/")[2]]
    return {**target, **{k: v for k, v in value.items() if k != "$ref"}}


def _types(value: Mapping[str, Any], sections: Mapping[str, Any]) -> list[Schema]:
    """The forms that a value may have, without null."""
    return [
        _form(_resolved(form, sections), sections)
        for form in value.get("anyOf", [value])
        if form.get("type") != "null"
    ]


def _form(form: Mapping[str, Any], sections: Mapping[str, Any]) -> Schema:
    if form.get("type") == "object":
        return _object(form, sections) if _is_section(form) else _mapping(form, sections)
    if form.get("type") == "array":
        items = _property(form["items"], sections, optional=False)
        return {"type": "array", "items": items, **({"minItems": 1} if "minLength" in form else {})}
    left_out = ("title", "description", "default")
    return {_RENAMED.get(key, key): value for key, value in form.items() if key not in left_out}


def _mapping(form: Mapping[str, Any], sections: Mapping[str, Any]) -> Schema:
    values = _property(form["additionalProperties"], sections, optional=False)
    return {"type": "object", "additionalProperties": values}


def _accepted(forms: list[Schema], *, optional: bool) -> Schema:
    """One form as it is; with others beside it where the loader takes them: nothing, or a variable."""
    also: list[Schema] = []
    if any(_could_be_filled_in(form) for form in forms):
        also.append(dict(REFERENCE))
    if optional:
        also.append({"type": "null"})
    if not also and len(forms) == 1:
        return forms[0]
    if len(forms) == 1 and also == [{"type": "null"}] and isinstance(forms[0].get("type"), str):
        return {**forms[0], "type": [forms[0]["type"], "null"]}
    return {"anyOf": [*forms, *also]}


def _could_be_filled_in(form: Mapping[str, Any]) -> bool:
    """A plain text takes a variable anyway; a mapping or a list never comes from one."""
    if form.get("type") == "string":
        return "pattern" in form or "enum" in form
    return form.get("type") in ("boolean", "integer", "number")


# --- values as they are written -------------------------------------------------------------------------


def written(schema: Mapping[str, Any], value: object) -> object:
    """A default, in the words of the file; None where its own parts have theirs."""
    if isinstance(value, dict):
        return str(Address(**value)) if value.keys() == {"host", "port"} else None
    patterns = set(_patterns(schema))
    if DURATION_PATTERN in patterns and isinstance(value, int | float):
        return spell_duration(value)
    if SIZE_PATTERN in patterns and isinstance(value, int):
        return spell_size(value)
    if isinstance(value, float) and value == int(value):
        return int(value)
    return value


def _patterns(schema: Mapping[str, Any]) -> Iterator[str]:
    for form in (schema, *schema.get("anyOf", ())):
        if isinstance(form.get("pattern"), str):
            yield form["pattern"]
