"""The kinds as JSON schemas: an OpenAPI v3 document, and self-contained schemas for CRDs."""

from __future__ import annotations

import copy
from typing import Any

from hekla.platform.api.meta import Json, ObjectMeta
from hekla.platform.api.registry import Kind, all_kinds

_SCHEMAS = "#/components/schemas/"
_JSON = "application/json"


def openapi() -> Json:
    """An OpenAPI 3.0 document of every kind: its schemas, and the paths it is served under."""
    schemas: Json = {"ObjectMeta": _metadata_schema()}
    paths: Json = {}
    for kind in all_kinds().values():
        schemas.update(_component_schemas(kind))
        paths.update(_paths(kind))
    info = {"title": "hekla resource API", "version": "v1alpha1"}
    return {"openapi": "3.0.3", "info": info, "paths": paths, "components": {"schemas": schemas}}


def spec_schema(kind: Kind) -> Json:
    """The kind's spec with every reference resolved, in the form that a CRD's `openAPIV3Schema` wants."""
    schema = _raw(kind)
    definitions = schema.pop("$defs", {})
    plain: Json = _plain(_inlined(schema, definitions))
    return plain


def schema_name(kind: Kind) -> str:
    """`sh.volcano.serving.workload.v1alpha1.ModelServing`, as Kubernetes names schemas."""
    return ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])


def _raw(kind: Kind) -> Json:
    return kind.spec.model_json_schema(by_alias=True)


def _metadata_schema() -> Json:
    schema = ObjectMeta.model_json_schema(by_alias=True)
    plain: Json = _plain(_inlined(schema, schema.pop("$defs", {})))
    return plain


def _component_schemas(kind: Kind) -> Json:
    """The kind and the parts of its spec; a part's name carries the kind's, as two kinds may both have a `Rule`."""
    name = schema_name(kind)
    spec = _raw(kind)
    definitions = spec.pop("$defs", {})
    names = {part: f"{name}.{part}" for part in definitions}
    top = {
        "type": "object",
        "description": kind.doc,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"type": "string", "enum": [kind.api_version]},
            "kind": {"type": "string", "enum": [kind.kind]},
            "metadata": {"$ref": f"{_SCHEMAS}ObjectMeta"},
            "spec": {"$ref": f"{_SCHEMAS}{name}.Spec"},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
        "x-kubernetes-group-version-kind": [{"group": kind.group, "version": kind.version, "kind": kind.kind}],
    }
    parts = {names[part]: _plain(_renamed(schema, names)) for part, schema in definitions.items()}
    return {name: top, f"{name}.Spec": _plain(_renamed(spec, names)), **parts}


def _renamed(schema: Any, names: dict[str, str]) -> Any:
    if isinstance(schema, list):
        return [_renamed(item, names) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _SCHEMAS + names[value.rpartition("/")[2]] if key == "$ref" else _renamed(value, names)
        for key, value in schema.items()
    }


def _inlined(schema: Any, definitions: Json) -> Any:
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = copy.deepcopy(definitions[schema["$ref"].rpartition("/")[2]])
        return _inlined({**target, **{key: value for key, value in schema.items() if key != "$ref"}}, definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items()}


def _plain(schema: Any) -> Any:
    """pydantic's JSON schema in OpenAPI 3.0's words: no `null` type, no `const`, no titles."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = _without_null(schema)
    result: Json = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {name: _plain(field) for name, field in value.items()}
        elif key == "const":
            result["enum"] = [value]
        elif key == "title" or (key == "default" and value is None):
            continue
        elif key == "additionalProperties" and value is False:
            continue  # a CRD's schema is closed already, and refuses this beside `properties`
        elif key in ("default", "enum", "required"):
            result[key] = value
        else:
            result[key] = _plain(value)
    return result


def _without_null(schema: Json) -> Json:
    choices = schema.get("anyOf")
    if not isinstance(choices, list) or {"type": "null"} not in choices:
        return schema
    rest = [choice for choice in choices if choice != {"type": "null"}]
    outer = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**rest[0], **outer} if len(rest) == 1 else {**outer, "anyOf": rest}


def _paths(kind: Kind) -> Json:
    schema = {"$ref": _SCHEMAS + schema_name(kind)}
    answer = {"200": {"description": "OK", "content": {_JSON: {"schema": schema}}}}
    body = {"required": True, "content": {_JSON: {"schema": schema}}}
    merge = {"required": True, "content": {"application/merge-patch+json": {"schema": {"type": "object"}}}}
    listing = {"200": {"description": "OK", "content": {_JSON: {"schema": {"type": "object"}}}}}
    root = f"/apis/{kind.group}/{kind.version}"
    many = f"{root}/namespaces/{{namespace}}/{kind.plural}"
    one = f"{many}/{{name}}"
    found: Json = {
        f"{root}/{kind.plural}": {"get": _operation("list", kind, listing, ())},
        many: {"get": _operation("list", kind, listing, ("namespace",))},
        one: {"get": _operation("get", kind, answer, ("namespace", "name"))},
    }
    if not kind.internal:
        names = ("namespace", "name")
        created = {"201": {**answer["200"], "description": "Created"}}
        found[many]["post"] = {**_operation("create", kind, created, names[:1]), "requestBody": body}
        found[one]["put"] = {**_operation("replace", kind, answer, names), "requestBody": body}
        found[one]["patch"] = {**_operation("patch", kind, answer, names), "requestBody": merge}
        found[one]["delete"] = _operation("delete", kind, answer, names)
    return found


def _operation(verb: str, kind: Kind, responses: Json, names: tuple[str, ...]) -> Json:
    scope = "" if names or verb != "list" else "AllNamespaces"
    return {
        "operationId": f"{verb}{kind.kind}{scope}",
        "tags": [kind.kind],
        "parameters": [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names],
        "responses": responses,
    }
