from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from hekla.platform.api.openapi import openapi, schema_name, spec_schema
from hekla.platform.api.registry import Kind, all_kinds, kind_named

SERVING = ["ModelBooster", "ModelServing", "ModelServer", "ModelRoute"]


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(child)


def test_every_reference_leads_somewhere() -> None:
    document = openapi()
    schemas = document["components"]["schemas"]
    wanted = re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(document))
    assert wanted
    assert set(wanted) <= set(schemas)


@pytest.mark.parametrize("kind", all_kinds().values(), ids=lambda kind: kind.kind)
def test_every_kind_is_described_and_has_its_paths(kind: Kind) -> None:
    document = openapi()
    assert schema_name(kind) in document["components"]["schemas"]
    one = document["paths"][f"/apis/{kind.group}/{kind.version}/namespaces/{{namespace}}/{kind.plural}/{{name}}"]
    assert set(one) == ({"get"} if kind.internal else {"get", "put", "patch", "delete"})


def test_operation_names_are_unique() -> None:
    names = [node["operationId"] for node in nodes(openapi()["paths"]) if "operationId" in node]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", SERVING)
def test_a_spec_schema_is_self_contained_and_without_null(kind: str) -> None:
    schema = spec_schema(kind_named(kind))
    for node in nodes(schema):
        assert "$ref" not in node
        assert node.get("type") != "null"
    assert "modelURI" in json.dumps(schema) or kind != "ModelBooster"


def test_a_schema_carries_limits_defaults_and_descriptions() -> None:
    fields = spec_schema(kind_named("ms"))["properties"]
    assert fields["replicas"] == {
        "type": "integer",
        "default": 1,
        "minimum": 0,
        "maximum": 2**31 - 1,
        "description": "Serving groups.",
    }
    assert fields["recoveryPolicy"]["enum"] == ["RoleRecreate", "ServingGroupRecreate", "None"]
    role = fields["template"]["properties"]["roles"]
    assert (role["minItems"], role["maxItems"]) == (1, 4)
    assert role["items"]["properties"]["maxUnavailable"]["x-kubernetes-int-or-string"] is True
    pod = role["items"]["properties"]["entryTemplate"]["properties"]["spec"]
    assert pod["x-kubernetes-preserve-unknown-fields"] is True
