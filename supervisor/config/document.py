"""YAML as plain data in which every value remembers its line, with variables filled in.

One rule: whatever is wrong is collected, and the rest is still read.  Lists become tuples; a scalar that
was filled in from the environment becomes :class:`Filled`, whose type its place decides.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import yaml
from yaml.composer import ComposerError
from yaml.constructor import SafeConstructor
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.resolver import Resolver

from supervisor.config.variables import VariableError, fill_in, has_reference

Key = str | int
Path = tuple[Key, ...]

MAX_VALUES = 50_000
"""Counted with every use of an alias, so that a small file cannot stand for an endless one; and counted
while the file is read, so that no file takes longer than a second or two."""

MAX_DEPTH = 30

_TAG = "tag:yaml.org,2002:"
_TYPED = frozenset({f"{_TAG}int", f"{_TAG}float", f"{_TAG}bool"})
_TEXT = frozenset({f"{_TAG}str", f"{_TAG}timestamp", f"{_TAG}value"})
_MERGE = f"{_TAG}merge"


class Filled(str):
    """Text that came, in part at least, from the environment: never to be quoted."""

    __slots__ = ()

    def typed(self) -> object:
        """What YAML would have made of it in the file; text, where it only looks like a number."""
        tag = _resolver.resolve(ScalarNode, str(self), (True, False))  # type: ignore[no-untyped-call]
        try:
            return _construct(ScalarNode(tag, str(self)))
        except ValueError:
            return str(self)


@dataclass(slots=True)
class Document:
    data: object = None
    lines: dict[Path, int] = field(default_factory=dict)
    """Where each value, and each key, stands."""
    problems: list[tuple[Path, int | None, str]] = field(default_factory=list)
    count: int = 0

    def line(self, path: Path) -> int | None:
        """The line of ``path``, or of the nearest that holds it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None


class _TooMuch(Exception):
    def __init__(self, path: Path, node: Node, message: str) -> None:
        super().__init__(message)
        self.problem = (path, _line(node), message)


def parse(text: str, environ: Mapping[str, str]) -> Document:
    document = Document()
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line if mark else 0
        document.problems.append(((), line + 1, _yaml_message(error, text.split("\n")[line:][:1])))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.problems.append(((), line, f"YAML: the character #x{error.character:04x} is not allowed"))
    except RecursionError:
        document.problems.append(((), None, "is nested too deeply"))
    except (ValueError, OverflowError):  # PyYAML's scanner does not look before it converts
        document.problems.append(((), None, "YAML: an escape or a number in it is out of range"))
    else:
        if node is None:
            document.problems.append(((), None, "is empty"))
            return document
        try:
            document.data = _Reader(document, environ).read(node, ())
        except _TooMuch as error:
            document.problems.append(error.problem)
    return document


class _Loader(yaml.SafeLoader):
    """Stops in the middle of a file that is too much anyway."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._nodes = 0

    def compose_node(self, parent: Node | None, index: object) -> Node | None:
        self._nodes += 1
        if self._nodes > MAX_VALUES:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise ComposerError(None, None, "holds too many values", mark)
        node: Node | None = super().compose_node(parent, index)  # type: ignore[arg-type]
        return node


def _yaml_message(error: yaml.MarkedYAMLError, lines: list[str]) -> str:
    told = ", ".join(part for part in (error.context, error.problem) if part)
    # What is quoted after these words may be a secret that only looks like an alias or a tag.
    told = re.sub(r"(alias|anchor|handle) .*", r"\1", told)
    hint = "; inside { } and [ ] put ${...} in quotes" if any(map(has_reference, lines)) else ""
    return f"YAML: {told}{hint}"


class _Reader:
    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ

    def read(self, node: Node, path: Path) -> object:
        self._document.lines.setdefault(path, _line(node))
        self._document.count += 1
        if self._document.count > MAX_VALUES:
            raise _TooMuch(path, node, "holds too many values")
        if len(path) > MAX_DEPTH:
            raise _TooMuch(path[:4], node, "is nested too deeply")
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return tuple(self.read(item, (*path, index)) for index, item in enumerate(node.value))
        assert isinstance(node, ScalarNode)
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, object]:
        found: dict[str, object] = {}
        merged: list[Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged.append(value_node)
            elif not isinstance(key_node, ScalarNode):
                self._problem(path, key_node, "keys must be text")
            else:
                self._entry(found, key_node, value_node, path)
        for value_node in merged:
            self._merge(found, value_node, path)
        return found

    def _entry(self, found: dict[str, object], key_node: ScalarNode, value_node: Node, path: Path) -> None:
        key: str = key_node.value
        here = (*path, key)
        if key in found:
            self._problem(here, key_node, f"is there twice, first on line {self._document.lines[here]}")
            return
        self._document.lines[here] = _line(key_node)
        found[key] = self.read(value_node, here)

    def _merge(self, found: dict[str, object], node: Node, path: Path) -> None:
        """``<<``: the keys of other mappings, where this one does not have them itself."""
        sources = node.value if isinstance(node, SequenceNode) else [node]
        for source in sources:
            if not isinstance(source, MappingNode):
                self._problem(path, node, "<< takes a mapping, or a list of mappings")
                continue
            for key, value in self._merged(source, path).items():
                found.setdefault(key, value)

    def _merged(self, source: MappingNode, path: Path) -> dict[str, object]:
        self._document.count += 1
        if self._document.count > MAX_VALUES:
            raise _TooMuch(path, source, "holds too many values")
        kept = dict(self._document.lines)
        data = self._mapping(source, path)
        # What this mapping says itself keeps its own lines.
        self._document.lines.update(kept)
        return data

    def _scalar(self, node: ScalarNode, path: Path) -> object:
        text: str = node.value
        plain = node.style is None
        if has_reference(text):
            try:
                filled = fill_in(text, self._environ)
            except VariableError as error:
                self._problem(path, node, str(error))
                return Filled()
            # A plain value that comes to nothing is left out, as it would be in the file.
            return Filled(filled) if filled or not plain else None
        if node.tag in _TEXT:
            return text
        if node.tag == f"{_TAG}null":
            return None
        if node.tag not in _TYPED:
            self._problem(path, node, "YAML tags are not supported here")
            return Filled()
        try:
            return _construct(node)
        except ValueError:
            self._problem(path, node, "is no number, or neither true nor false")
            return Filled()

    def _problem(self, path: Path, node: Node, message: str) -> None:
        self._document.problems.append((path, _line(node), message))


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _construct(node: ScalarNode) -> object:
    """Raises ValueError, where PyYAML raises whatever came of the text."""
    try:
        value: Hashable = SafeConstructor().construct_object(node)
    except (IndexError, KeyError, OverflowError) as error:
        raise ValueError(node.tag) from error
    return value


_resolver = Resolver()
