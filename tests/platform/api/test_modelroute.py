from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hekla.platform.api.admission import admit
from hekla.platform.api.kinds.modelroute import references
from hekla.platform.api.meta import Json

Manifest = Callable[..., Json]
Problems = Callable[..., dict[str, str]]

RULE = "spec.rules[0]"
TARGETS = f"{RULE}.targetModels"
MISSING = "<missing>"


def test_defaults_are_filled_in(manifest: Manifest) -> None:
    spec = admit(manifest("route", {"spec.rateLimit": {"inputTokensPerUnit": 1}, "spec.parentRefs": [{"name": "gw"}]}))[
        "spec"
    ]
    assert spec["rules"][0]["targetModels"] == [{"modelServerName": "chat"}]
    assert spec["rateLimit"] == {"inputTokensPerUnit": 1, "unit": "second"}
    assert spec["parentRefs"] == [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"}]


ACCEPTED: list[dict[str, Any]] = [
    {"spec.modelName": MISSING, "spec.loraAdapters": ["a"]},
    {"spec.loraAdapters": [f"a{index}" for index in range(10)]},
    {TARGETS: [{"externalModelProviderName": "openai"}]},
    {TARGETS: [{"modelServerName": "a", "weight": 0}, {"modelServerName": "b", "weight": 1}]},
    {f"{RULE}.modelMatch": {"headers": {"x-user": {"regex": "^a+$"}, "x-tier": {"exact": "gold"}}}},
    {f"{RULE}.modelMatch": {"uri": {"prefix": "/v1/"}, "body": {"model": "chat"}}},
    {"spec.rateLimit": {"unit": "month", "outputTokensPerUnit": 5, "global": {"redis": {"address": "redis:6379"}}}},
    {"spec.parentRefs": [{"name": "gw", "namespace": "infra", "sectionName": "https", "port": 443}]},
]


@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
def test_a_route_within_the_rules_is_accepted(manifest: Manifest, problems: Problems, changes: dict[str, Any]) -> None:
    assert problems(manifest("route", changes)) == {}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"spec.modelName": MISSING}, "spec", "names no model; allowed: modelName, loraAdapters or both"),
    ({"spec.modelName": ""}, "spec", "names no model"),
    ({"spec.loraAdapters": [""]}, "spec.loraAdapters[0]", "is empty"),
    ({"spec.loraAdapters": ["a", "b", "a"]}, "spec.loraAdapters[2]", '"a" is listed twice'),
    ({"spec.loraAdapters": ["a"] * 11}, "spec.loraAdapters", "has 11 entries; allowed: at most 10"),
    ({"spec.rules": MISSING}, "spec.rules", "required"),
    ({"spec.rules": []}, "spec.rules", "at least 1"),
    ({"spec.rules": [{"targetModels": [{"modelServerName": "a"}]}] * 17}, "spec.rules", "at most 16"),
    ({TARGETS: []}, TARGETS, "at least 1"),
    ({TARGETS: [{"modelServerName": "a"}] * 17}, TARGETS, "has 17 entries; allowed: at most 16"),
    ({TARGETS: [{}]}, f"{TARGETS}[0]", "neither is set; allowed: exactly one of"),
    (
        {TARGETS: [{"modelServerName": "a", "externalModelProviderName": "b"}]},
        f"{TARGETS}[0]",
        "both are set; allowed: exactly one of modelServerName, externalModelProviderName",
    ),
    (
        {TARGETS: [{"externalModelProviderName": "b"}], "spec.loraAdapters": ["a"]},
        f"{TARGETS}[0].externalModelProviderName",
        "not allowed in a route with loraAdapters",
    ),
    ({f"{TARGETS}[0].weight": 101}, f"{TARGETS}[0].weight", "allowed: 100 or less"),
    ({f"{TARGETS}[0].weight": -1}, f"{TARGETS}[0].weight", "allowed: 0 or more"),
    ({f"{TARGETS}[0].weight": 0}, TARGETS, "every weight is 0"),
    ({TARGETS: [{"modelServerName": "a", "weight": 1}, {"modelServerName": "b"}]}, TARGETS, "all or none"),
    ({f"{TARGETS}[0].modelServerName": ""}, f"{TARGETS}[0].modelServerName", "too short"),
    ({f"{RULE}.modelMatch.uri.regex": "("}, f"{RULE}.modelMatch.uri.regex", '"(" is not a regular expression'),
    ({f"{RULE}.modelMatch.headers": {"x-a": {"regex": "*"}}}, f"{RULE}.modelMatch.headers.x-a.regex", "not a regular expression"),
    ({f"{RULE}.modelMatch.headers": {"x-a": {"regexp": "a"}}}, f"{RULE}.modelMatch.headers.x-a.regexp", 'did you mean "regex"?'),
    ({f"{RULE}.modelMatch.uri.regex": "a" * 1025}, f"{RULE}.modelMatch.uri.regex", "at most 1024"),
    ({"spec.rateLimit.inputTokensPerUnit": 0}, "spec.rateLimit.inputTokensPerUnit", "allowed: 1 or more"),
    ({"spec.rateLimit.outputTokensPerUnit": 0}, "spec.rateLimit.outputTokensPerUnit", "allowed: 1 or more"),
    ({"spec.rateLimit.unit": "week"}, "spec.rateLimit.unit", "allowed: second, minute, hour, day, month"),
    ({"spec.rateLimit.global": {"redis": {}}}, "spec.rateLimit.global.redis.address", "required"),
    ({"spec.parentRefs": [{}]}, "spec.parentRefs[0].name", "required"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "path", "problem"), REFUSED, ids=[f"{case[0]}"[:80] for case in REFUSED])
def test_a_broken_rule_is_named_with_its_path(
    manifest: Manifest, problems: Problems, changes: dict[str, Any], path: str, problem: str
) -> None:
    found = problems(manifest("route", changes))
    assert path in found, found
    assert problem in found[path]


@pytest.mark.parametrize("later", ["other", MISSING])
def test_the_model_name_is_immutable(manifest: Manifest, problems: Problems, later: str) -> None:
    old = admit(manifest("route"))
    new = manifest("route", {"spec.modelName": later, "spec.loraAdapters": ["a"]})
    assert 'immutable: it was "chat"' in problems(new, old)["spec.modelName"]


def test_a_route_of_adapters_may_gain_a_model_name(manifest: Manifest, problems: Problems) -> None:
    old = admit(manifest("route", {"spec.modelName": MISSING, "spec.loraAdapters": ["a"]}))
    assert problems(manifest("route", {"spec.loraAdapters": ["a"]}), old) == {}


def test_references_are_named_by_their_field(manifest: Manifest) -> None:
    targets = [{"modelServerName": "a"}, {"externalModelProviderName": "b"}]
    assert references(admit(manifest("route", {TARGETS: targets}))) == [
        (f"{TARGETS}[0].modelServerName", "ModelServer", "a"),
        (f"{TARGETS}[1].externalModelProviderName", "ExternalModelProvider", "b"),
    ]
