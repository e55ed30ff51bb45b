"""``schema --reference``: docs/configuration.md, made from the same schema.

One rule: a key, its type, its default and its meaning come from the settings; only what belongs to the file
as a whole is written here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from supervisor.cli.schema import REFERENCE, Schema, document
from supervisor.config.units import DURATION_PATTERN, SIZE_PATTERN

INTRODUCTION = """\
# Configuration

<!-- Made by `livekit-supervisor schema --reference` from supervisor/config/settings.py; a test compares. -->

One YAML file, `config.yaml`: named with `--config FILE` before or after the command, or by
`LIVEKIT_SUPERVISOR_CONFIG`, else the one in the working directory. `livekit-supervisor check` tells every
mistake at once, with its line. The smallest file:

```yaml
livekit:
  url: wss://livekit.example.org
  api_key: ${LIVEKIT_API_KEY}
  api_secret: ${LIVEKIT_API_SECRET}
agents:
  - id: receptionist
    script: receptionist.py
```

- **Variables.** `${NAME}` is filled in from the daemon's environment, `${NAME:-default}` where it may be
  unset; a plain `${` is written `$${`. Inside `{ }` and `[ ]` put them in quotes. What was filled in
  appears in no message.
- **Durations** have a unit: `500ms`, `2s`, `5m`, `1h`, `30d`. **Sizes**, too: `512KiB`, `10MiB`, `2GiB`,
  or `10MB`. `0` needs none.
- **Paths** are relative to the folder of the file; `~` is the home directory.
- **Patterns** are those of a shell, matched against the whole name: `support-*`, `room-[0-9]`, `*`.
- An unknown key is an error, and so is a value of the wrong type: nothing is guessed. A key with nothing
  behind it counts as left out.
- **Reload.** `livekit-supervisor reload`, or SIGHUP, reads the file again and touches only agents that
  changed; a file with mistakes changes nothing. `livekit`, `http`, `paths` and `store` need a new daemon:
  `livekit-supervisor handoff` and start it again, and the calls go on.

For completion and checks while you type, write the schema to a file and name it in the first line of
`config.yaml`:

```sh
livekit-supervisor schema > config.schema.json
```

```yaml
# yaml-language-server: $schema=config.schema.json
```
"""


def render() -> str:
    return "\n".join([INTRODUCTION, *_section("", document())])


def _section(name: str, schema: Schema) -> Iterator[str]:
    """A table of its keys, then its sections."""
    if name:
        yield f"{'###' if '.' in name else '##'} `{name}`\n"
    if name and "description" in schema:
        yield f"{schema['description']}\n"
    required = set(schema.get("required", ()))
    properties: Mapping[str, Schema] = schema["properties"]
    plain = {k: p for k, p in properties.items() if _inner(p) is None}
    if plain:
        if not name:
            yield "## At the top\n"
        yield "| key | value | default | |"
        yield "| --- | --- | --- | --- |"
        for key, value in plain.items():
            yield f"| `{key}` | {_value(value)} | {_default(value, key in required)} | {_meaning(value)} |"
        yield ""
    for key, value in properties.items():
        inner = _inner(value)
        if inner is not None:
            path = f"{name}.{key}" if name else key
            listed = value.get("type") == "array"
            yield from _section(f"{path}[]" if listed else path, inner)


def _inner(schema: Schema) -> Schema | None:
    """The section behind a key: a mapping with keys of its own, or a list of such."""
    if "properties" in schema:
        return schema
    items = schema.get("items")
    return items if isinstance(items, dict) and "properties" in items else None


def _forms(schema: Schema) -> list[Schema]:
    return [f for f in schema.get("anyOf", [schema]) if f != REFERENCE and f.get("type") != "null"]


def _value(schema: Schema) -> str:
    return " or ".join(dict.fromkeys(filter(None, map(_kind, _forms(schema)))))


def _kind(form: Schema) -> str:
    if "enum" in form:
        return "" if 0 in form["enum"] else ", ".join(f"`{word}`" for word in form["enum"])
    pattern = form.get("pattern")
    if pattern in (DURATION_PATTERN, SIZE_PATTERN):
        return "duration" if pattern == DURATION_PATTERN else "size"
    match _type(form):
        case "array":
            return "list of texts"
        case "object":
            return "names and texts"
        case "boolean":
            return "`true`, `false`"
        case "integer" | "number":
            return f"number{_bounds(form)}"
        case "string":
            return "text"
    return ""


def _type(form: Schema) -> object:
    kind: Any = form.get("type")
    return kind[0] if isinstance(kind, list) else kind


def _bounds(form: Schema) -> str:
    lowest, highest = form.get("minimum"), form.get("maximum")
    if highest is not None:
        return f", {lowest} to {highest}"
    return "" if lowest in (None, 0) else f", at least {lowest}"


def _default(schema: Schema, required: bool) -> str:
    if required:
        return "required"
    value = schema.get("default")
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value if value != [] else '[]'}`"


def _meaning(schema: Schema) -> str:
    return str(schema.get("description", "")).replace("|", "\\|")
