"""YAML text to JSON values, with the line of everything that is wrong.

Stricter than plain YAML where plain YAML loses data without a word: a key that comes twice, a key that is not text.
Looser in one thing: `2026-01-01` stays text, as JSON knows no dates. Aliases may not blow a document up.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from hekla.platform.base.errors import BadRequest

DOCUMENT_NODES_MAX = 200_000
"""Values in one document with every alias written out: far beyond any manifest, far below what hurts."""


@dataclass(frozen=True)
class Document:
    """One YAML document: its number in the file and its first line, both from 1."""

    value: Any
    number: int
    line: int


class _Loader(yaml.SafeLoader):
    """SafeLoader that keeps dates as text and refuses what JSON can't say."""

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key, ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                shown = key.value if isinstance(key, ScalarNode) else "a list or mapping"
                raise _at(key, f"key {shown!r} is not text; write it in quotes")
            if key.value in seen:
                raise _at(key, f"key {key.value!r} comes twice in one mapping")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _finite(loader: _Loader, node: ScalarNode) -> float:
    value = loader.construct_yaml_float(node)
    if not math.isfinite(value):
        raise _at(node, f"{node.value} is not a number that JSON knows")
    return value


def _as_written(_loader: _Loader, node: ScalarNode) -> str:
    return str(node.value)


_Loader.add_constructor("tag:yaml.org,2002:float", _finite)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _as_written)


def parse_documents(text: str, source: str) -> Iterator[Document]:
    """The documents that are not empty. Raises BadRequest naming `source`, the document and the line."""
    number = 0
    try:
        loader = _Loader(text)
        while loader.check_node():
            number += 1
            node = loader.get_node()
            if node is None:
                continue
            _check_size(node)
            value = loader.construct_document(node)
            if value is not None:
                yield Document(value, number, node.start_mark.line + 1)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BadRequest(f"{source}, document {max(number, 1)}{place}: {error.problem or error.context}") from error
    except RecursionError:
        raise BadRequest(f"{source}, document {number + 1}: nested too deeply") from None
    except yaml.YAMLError as error:
        raise BadRequest(f"{source}: not YAML: {error}") from error


def _check_size(root: Node) -> None:
    """Refuse documents whose aliases expand without bound. Sizes are memoised: the check itself stays cheap."""
    sizes: dict[int, int] = {}

    def size(node: Node) -> int:
        known = sizes.get(id(node))
        if known == 0:
            raise _at(node, "an alias contains itself")
        if known is not None:
            return known
        sizes[id(node)] = 0
        total = 1 + sum(size(child) for child in _children(node))
        if total > DOCUMENT_NODES_MAX:
            raise _at(node, f"more than {DOCUMENT_NODES_MAX} values with all aliases written out")
        sizes[id(node)] = total
        return total

    size(root)


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _at(node: Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
