"""Admission: every object passes here before it is stored, whoever sent it. Pure: it decides, and touches nothing.

`admit` lists everything wrong with one object at once; `admit_batch` does it for a manifest, so that a manifest with a
mistake changes nothing at all. What they return has its defaults filled in.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import ValidationError

from hekla.platform.api.defaults import filled
from hekla.platform.api.hiding import from_kubernetes
from hekla.platform.api.meta import Json, ObjectMeta, Ref
from hekla.platform.api.names import (
    ANNOTATIONS_BYTES_MAX,
    annotation_problems,
    dns_label_problem,
    dns_subdomain_problem,
    label_problems,
)
from hekla.platform.api.onray import ignored_on_ray
from hekla.platform.api.plain_json import json_problems, without_nulls
from hekla.platform.api.registry import Kind, all_kinds
from hekla.platform.api.spec_reading import read_spec
from hekla.platform.api.wording import (
    field_errors,
    nearest,
    path_of,
    shown,
    unknown_field,
    wrong_type,
)
from hekla.platform.base.errors import FieldError, Invalid

__all__ = ["admit", "admit_batch", "ignored_on_ray"]

TOP_FIELDS = ("apiVersion", "kind", "metadata", "spec", "status")


def admit(obj: Json, old: Json | None = None) -> Json:
    """The object as it is to be stored: defaults filled, nulls gone, metadata and status kept.

    `old` is the stored object of an update, for the fields that must not change. Raises Invalid with every problem.
    """
    admitted, problems = _examined(obj, old)
    if problems:
        raise Invalid.of(describe(obj), problems)
    return admitted


def admit_batch(
    objs: list[Json], exists: Callable[[Ref], bool], old: Callable[[Ref], Json | None] = lambda _ref: None
) -> list[Json]:
    """Admit all or none. Refuses duplicates, and references that neither the batch nor the store (`exists`) has.

    `old(ref)` gives the stored object, when there is one. Raises Invalid with every problem of every object.
    """
    present = {ref for obj in objs if (ref := claimed_ref(obj)) is not None}
    seen: set[Ref] = set()
    admitted: list[Json] = []
    problems: list[FieldError] = []
    for obj in objs:
        ref = claimed_ref(obj)
        good, found = _examined(obj, old(ref) if ref else None)
        if ref in seen:
            found = [
                *found,
                FieldError("metadata.name", "the manifest holds this object more than once; allowed: once"),
            ]
        if ref is not None:
            seen.add(ref)
        if not found:
            found = _missing_references(good, lambda wanted: wanted in present or exists(wanted))
        admitted.append(good)
        problems.extend(FieldError(f"{describe(obj)}: {one.path}".removesuffix(": "), one.problem) for one in found)
    if problems:
        raise Invalid.of("the manifest", problems)
    return admitted


def describe(obj: Any) -> str:
    """`ModelServing default/chat`, as far as the object tells."""
    if not isinstance(obj, dict):
        return "the object"
    meta = obj.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    return f"{obj.get('kind') or 'object'} {meta.get('namespace') or 'default'}/{meta.get('name') or '<no name>'}"


def claimed_ref(obj: Any) -> Ref | None:
    """What an object not yet checked says it is; None when it does not say."""
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict):
        return None
    meta = obj["metadata"]
    parts = (obj.get("kind"), meta.get("namespace") or "default", meta.get("name"))
    kind, namespace, name = parts
    if isinstance(kind, str) and isinstance(namespace, str) and isinstance(name, str):
        return Ref(kind, namespace, name)
    return None


def _examined(obj: Json, old: Json | None) -> tuple[Json, list[FieldError]]:
    """The object with its defaults, and everything wrong with it; use the first only when there is nothing wrong."""
    if not isinstance(obj, dict):
        return {}, [FieldError("", wrong_type(obj, "an object with apiVersion, kind, metadata and spec"))]
    if problems := json_problems(obj):
        return {}, problems
    obj = from_kubernetes(without_nulls(obj))
    kind, problems = _kind_of(obj)
    problems.extend(_top_problems(obj))
    meta, meta_problems = _metadata(obj.get("metadata"))
    problems.extend(meta_problems)
    if kind is None:
        return {}, problems
    admitted = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta}
    spec, spec_problems = _spec(kind, admitted, obj.get("spec"), old)
    problems.extend(spec_problems)
    admitted["spec"] = spec
    if "status" in obj:
        admitted["status"] = copy.deepcopy(obj["status"])
    return admitted, problems


def _kind_of(obj: Json) -> tuple[Kind | None, list[FieldError]]:
    name, version = obj.get("kind"), obj.get("apiVersion")
    kinds = all_kinds()
    if not isinstance(name, str) or not name:
        return None, [FieldError("kind", f"required; known: {', '.join(sorted(kinds))}")]
    kind = kinds.get(name)
    if kind is None:
        near = nearest(name, kinds)
        guess = f'; did you mean "{near}"?' if near else ";"
        return None, [FieldError("kind", f"no resource kind {shown(name)}{guess} known: {', '.join(sorted(kinds))}")]
    if not version:
        return kind, [FieldError("apiVersion", f'required; allowed: "{kind.api_version}"')]
    if version != kind.api_version:
        problem = f'{shown(version)} has no kind {kind.kind}; allowed: "{kind.api_version}"'
        return kind, [FieldError("apiVersion", problem)]
    return kind, []


def _top_problems(obj: Json) -> Iterable[FieldError]:
    for field in obj:
        if field not in TOP_FIELDS:
            yield FieldError(path_of((field,)), unknown_field(field, TOP_FIELDS))
    if not isinstance(obj.get("status", {}), dict):
        yield FieldError("status", wrong_type(obj["status"], "an object"))


def _metadata(raw: Any) -> tuple[Json, list[FieldError]]:
    if raw is None:
        return {}, [FieldError("metadata.name", "required")]
    if not isinstance(raw, dict):
        return {}, [FieldError("metadata", wrong_type(raw, "an object"))]
    meta = copy.deepcopy(raw)
    meta["namespace"] = meta.get("namespace") or "default"
    try:
        read = ObjectMeta.model_validate(meta, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        return {}, field_errors(error, ObjectMeta, "metadata")
    problems = [*label_problems(read.labels, "metadata.labels")]
    problems.extend(annotation_problems(read.annotations, "metadata.annotations"))
    if not read.name:
        problems.append(FieldError("metadata.name", "required"))
    elif problem := dns_subdomain_problem(read.name):
        problems.append(FieldError("metadata.name", problem))
    if problem := dns_label_problem(read.namespace):
        problems.append(FieldError("metadata.namespace", problem))
    size = sum(len(key.encode()) + len(value.encode()) for key, value in read.annotations.items())
    if size > ANNOTATIONS_BYTES_MAX:
        problem = f"hold {size} bytes; allowed: at most {ANNOTATIONS_BYTES_MAX}"
        problems.append(FieldError("metadata.annotations", problem))
    return meta, problems


def _spec(kind: Kind, admitted: Json, raw: Any, old: Json | None) -> tuple[Json, list[FieldError]]:
    if raw is None:
        return {}, [FieldError("spec", "required")]
    model, problems = read_spec(kind, raw)
    if model is None:
        return {}, problems
    spec = filled(model)
    known = [problem.path for problem in problems]
    for problem in kind.check({**admitted, "spec": spec}, old):
        if not any(_touch(problem.path, path) for path in known):
            problems.append(problem)
    return spec, problems


def _touch(one: str, other: str) -> bool:
    """True when one path lies within the other, so that one mistake may be the cause of both problems."""
    short, long = sorted((one, other), key=len)
    return long == short or (long.startswith(short) and long[len(short)] in ".[")


def _missing_references(obj: Json, exists: Callable[[Ref], bool]) -> list[FieldError]:
    namespace = obj["metadata"]["namespace"]
    return [
        FieldError(path, f"{kind} {namespace}/{name} does not exist, neither here nor in this manifest")
        for path, kind, name in all_kinds()[obj["kind"]].references(obj)
        if not exists(Ref(kind, namespace, name))
    ]
