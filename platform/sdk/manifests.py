"""Manifests: YAML or JSON, one file, a folder, standard input or plain text, to a list of objects."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from hekla.platform.api.meta import Json
from hekla.platform.base.errors import BadRequest, NotFound
from hekla.platform.base.limits import API_BODY_BYTES_MAX
from hekla.platform.sdk.yaml_documents import Document, parse_documents

Manifests = str | Path | Json | Sequence[Json]
"""A path (file or folder), YAML text, one object, or several."""

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"


@dataclass(frozen=True)
class Manifest:
    """An object and where it was written."""

    object: Json
    source: str
    document: int
    line: int


def objects_of(source: Manifests) -> list[Json]:
    """The objects that `source` means. Raises NotFound (no such file), BadRequest (naming file, document and line)."""
    if isinstance(source, dict):
        return [manifest.object for manifest in _expand(Document(source, 1, 1), "object")]
    if isinstance(source, Path):
        return [manifest.object for manifest in load_path(source)]
    if isinstance(source, str):
        manifests = load_text(source) if _is_text(source) else load_path(Path(source))
        return [manifest.object for manifest in manifests]
    documents = [Document(obj, number, 1) for number, obj in enumerate(source, 1)]
    return [manifest.object for document in documents for manifest in _expand(document, "objects")]


def load(sources: Iterable[str], stdin: TextIO | None = None) -> list[Manifest]:
    """Files, folders and `-` (standard input), in the order given."""
    found: list[Manifest] = []
    for source in sources:
        if source == STDIN:
            found += load_text((stdin or sys.stdin).read(), "standard input")
        else:
            found += load_path(Path(source))
    return found


def load_path(path: Path) -> list[Manifest]:
    """A file, or every .yaml, .yml and .json file of a folder (not of folders inside it) in the order of their names."""
    if not path.exists():
        raise NotFound(f"{path}: no such file or folder")
    if not path.is_dir():
        return load_text(_read(path), str(path))
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if not files:
        raise BadRequest(f"{path}: the folder holds no {', '.join(SUFFIXES)} file")
    return [manifest for file in files for manifest in load_text(_read(file), str(file))]


def load_text(text: str, source: str = "text") -> list[Manifest]:
    """The objects of a YAML (or JSON) text; a `List` counts as its items. Raises BadRequest when there are none."""
    documents = parse_documents(text, source)
    found = [manifest for document in documents for manifest in _expand(document, source)]
    if not found:
        raise BadRequest(f"{source}: holds no object")
    return found


def _expand(document: Document, source: str) -> Iterator[Manifest]:
    value = document.value
    where = f"{source}, document {document.number}, line {document.line}"
    if not isinstance(value, dict):
        raise BadRequest(f"{where}: is a {type(value).__name__}, must be an object with apiVersion, kind and metadata")
    kind = value.get("kind")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(value.get("items"), list):
        for item in value["items"]:
            yield from _expand(Document(item, document.number, document.line), source)
        return
    for name in ("apiVersion", "kind"):
        if not isinstance(value.get(name), str):
            raise BadRequest(f"{where}: {name}: is {value.get(name)!r}, must be a text such as {_EXAMPLES[name]}")
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise BadRequest(f"{where}: metadata.name: is missing or not a text ({kind} needs a name)")
    yield Manifest(value, source, document.number, document.line)


_EXAMPLES = {"apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelBooster"}


def _is_text(source: str) -> bool:
    """A path has one line and names no field; YAML text has more, or starts as JSON does."""
    return "\n" in source or source.lstrip().startswith("{")


def _read(path: Path) -> str:
    if path.is_file() and path.stat().st_size > API_BODY_BYTES_MAX:
        raise BadRequest(f"{path}: {path.stat().st_size} bytes; a manifest may have {API_BODY_BYTES_MAX} bytes at most")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise BadRequest(f"{path}: can't be read: {error.strerror}") from error
