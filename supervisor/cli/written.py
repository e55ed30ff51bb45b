"""The configuration as it is written: values with their variables, where the file is perhaps not valid.

One rule: nothing is filled in, constructed or judged here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode


def compose(text: str) -> Node | None:
    """Raises ValueError where the text is no YAML."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError("no YAML") from error


def readable(text: str | None) -> Node | None:
    try:
        return compose(text) if text is not None else None
    except ValueError:
        return None


def scalars(root: Node | None, wanted: Callable[[str], bool]) -> Iterator[ScalarNode]:
    """All values below keys of such names."""
    for key, value in entries(root):
        if wanted(key):
            yield from (node for node in _nodes(value) if isinstance(node, ScalarNode))


def entries(root: Node | None) -> Iterator[tuple[str, Node]]:
    """All keys with their values, wherever they stand."""
    for node in _nodes(root):
        if isinstance(node, MappingNode):
            yield from ((key.value, value) for key, value in node.value if isinstance(key, ScalarNode))


def _nodes(root: Node | None) -> Iterator[Node]:
    """Each once, however many aliases name it.  Without the keys of mappings."""
    open_nodes, seen = [root] if root is not None else [], set[int]()
    while open_nodes:
        node = open_nodes.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, SequenceNode):
            open_nodes += node.value
        elif isinstance(node, MappingNode):
            open_nodes += [value for _, value in node.value]
