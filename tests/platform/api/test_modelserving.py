from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hekla.platform.api.admission import admit
from hekla.platform.api.kinds.modelserving import ModelServingSpec
from hekla.platform.api.meta import Json

Manifest = Callable[..., Json]
Problems = Callable[..., dict[str, str]]

TEMPLATE = "spec.template"
PREFILL = "spec.template.roles[0]"
DECODE = "spec.template.roles[1]"
ROLLING = "spec.rolloutStrategy.rollingUpdateConfiguration"
BY_ROLE = {"spec.rolloutStrategy.type": "RoleRollingUpdate"}
MISSING = "<missing>"


def test_defaults_are_filled_in(manifest: Manifest) -> None:
    spec = admit(manifest("serving", {"spec.replicas": MISSING, f"{PREFILL}.replicas": MISSING}))["spec"]
    assert spec["replicas"] == 1
    assert spec["schedulerName"] == "volcano"
    assert spec["recoveryPolicy"] == "RoleRecreate"
    assert spec["rolloutStrategy"] == {"type": "ServingGroupRollingUpdate"}
    assert spec["template"]["restartGracePeriodSeconds"] == 0
    assert spec["template"]["roles"][0]["replicas"] == 1
    assert spec["template"]["roles"][0]["maxUnavailable"] == 1


def test_what_the_author_left_out_stays_out(manifest: Manifest) -> None:
    spec = admit(manifest("serving"))["spec"]
    assert "plugins" not in spec
    assert "gangPolicy" not in spec["template"]
    assert "partition" not in spec["template"]["roles"][0]
    assert spec["template"]["roles"][0]["entryTemplate"]["spec"] == {
        "containers": [{"name": "engine", "image": "vllm:1"}]
    }


def test_defaults_of_nested_objects_are_filled_in(manifest: Manifest) -> None:
    changes = {
        f"{TEMPLATE}.networkTopology.groupPolicy": {},
        "spec.plugins": [{"name": "lws", "scope": {}}],
        ROLLING: {},
    }
    spec = admit(manifest("serving", changes))["spec"]
    assert spec["template"]["networkTopology"]["groupPolicy"] == {"mode": "hard"}
    assert spec["plugins"] == [{"name": "lws", "type": "BuiltIn", "scope": {"target": "All"}}]
    assert spec["rolloutStrategy"]["rollingUpdateConfiguration"] == {"maxUnavailable": 1}


ACCEPTED: list[dict[str, Any]] = [
    {"spec.replicas": 0},
    {f"{PREFILL}.name": "a23456789012"},
    {f"{PREFILL}.replicas": 0},
    {f"{PREFILL}.maxUnavailable": 2},
    {f"{PREFILL}.maxUnavailable": "50%"},
    {f"{DECODE}.partition": "50%", **BY_ROLE},
    {f"{ROLLING}.maxUnavailable": 5},
    {f"{ROLLING}.maxUnavailable": "100%", f"{ROLLING}.partition": 1},
    {f"{ROLLING}.maxUnavailable": "50%", "spec.replicas": 0},
    {f"{TEMPLATE}.gangPolicy.minRoleReplicas": {"prefill": 2, "decode": 0}},
    {f"{TEMPLATE}.networkTopology.rolePolicy": {"mode": "soft", "highestTierAllowed": 2}},
    {"spec.recoveryPolicy": "ServingGroupRecreate"},
    {"spec.recoveryPolicy": "None", **BY_ROLE},
    {"spec.plugins": [{"name": "x", "config": {"any": ["thing"]}, "scope": {"roles": ["decode"], "target": "Entry"}}]},
    {f"{TEMPLATE}.restartGracePeriodSeconds": 60},
    {"spec.schedulerName": "default-scheduler"},
]


@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
def test_a_serving_within_the_rules_is_accepted(
    manifest: Manifest, problems: Problems, changes: dict[str, Any]
) -> None:
    assert problems(manifest("serving", changes)) == {}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"spec.replicas": -1}, "spec.replicas", "-1 is too small; allowed: 0 or more"),
    ({"spec.replicas": "2"}, "spec.replicas", 'must be a whole number, got "2"'),
    ({"spec.replicas": True}, "spec.replicas", "must be a whole number, got true"),
    ({"spec.replicas": 2**31}, "spec.replicas", "is too large; allowed: 2147483647 or less"),
    ({TEMPLATE: MISSING}, "spec.template", "required"),
    ({f"{TEMPLATE}.roles": []}, "spec.template.roles", "has 0 entries; allowed: at least 1"),
    ({f"{TEMPLATE}.roles": {}}, "spec.template.roles", "must be a list, got {}"),
    ({f"{PREFILL}.name": "decode"}, f"{PREFILL}.name", '"decode" is used 2 times; allowed: unique names'),
    ({f"{PREFILL}.name": "a234567890123"}, f"{PREFILL}.name", "has 13 characters; allowed: at most 12"),
    ({f"{PREFILL}.name": "1st"}, f"{PREFILL}.name", "beginning with a letter"),
    ({f"{PREFILL}.name": "Pre"}, f"{PREFILL}.name", "lower-case"),
    ({f"{PREFILL}.replicas": -1}, f"{PREFILL}.replicas", "too small"),
    ({f"{PREFILL}.workerReplicas": MISSING}, f"{PREFILL}.workerReplicas", "required"),
    ({f"{PREFILL}.workerReplicas": 3}, f"{PREFILL}.workerTemplate", "required, because workerReplicas is 3"),
    ({f"{PREFILL}.entryTemplate": MISSING}, f"{PREFILL}.entryTemplate", "required"),
    ({f"{PREFILL}.maxUnavailable": 0}, f"{PREFILL}.maxUnavailable", "comes to 0"),
    ({f"{PREFILL}.maxUnavailable": "10%"}, f"{PREFILL}.maxUnavailable", "10% of 2 comes to 0"),
    (
        {f"{PREFILL}.maxUnavailable": "101%"},
        f"{PREFILL}.maxUnavailable",
        'allowed: a whole number from 0, or "0%" to "100%"',
    ),
    (
        {f"{PREFILL}.maxUnavailable": 3},
        f"{PREFILL}.maxUnavailable",
        "3 is more than the role's replicas; allowed: at most 2",
    ),
    (
        {f"{PREFILL}.partition": 1},
        f"{PREFILL}.partition",
        "only allowed when spec.rolloutStrategy.type is RoleRollingUpdate",
    ),
    ({f"{ROLLING}.maxUnavailable": 0}, f"{ROLLING}.maxUnavailable", "comes to 0"),
    ({f"{ROLLING}.maxUnavailable": "25%"}, f"{ROLLING}.maxUnavailable", "25% of 2 comes to 0"),
    ({f"{ROLLING}.partition": -1}, f"{ROLLING}.partition", "-1 is not a count or a percentage"),
    ({f"{ROLLING}.maxUnavailable": 1, **BY_ROLE}, ROLLING, "not allowed with RoleRollingUpdate"),
    (
        {"spec.rolloutStrategy.type": "Surge"},
        "spec.rolloutStrategy.type",
        "allowed: ServingGroupRollingUpdate, RoleRollingUpdate",
    ),
    ({"spec.recoveryPolicy": "ServingGroupRecreate", **BY_ROLE}, "spec.recoveryPolicy", "can't be combined"),
    ({"spec.recoveryPolicy": "Never"}, "spec.recoveryPolicy", '"Never" is not one of the choices'),
    (
        {f"{TEMPLATE}.gangPolicy.minRoleReplicas": {"encode": 1}},
        f"{TEMPLATE}.gangPolicy.minRoleReplicas.encode",
        "no role has this name; allowed: decode, prefill",
    ),
    (
        {f"{TEMPLATE}.gangPolicy.minRoleReplicas": {"prefill": 3}},
        f"{TEMPLATE}.gangPolicy.minRoleReplicas.prefill",
        "3 is out of range; allowed: 0 to 2",
    ),
    (
        {f"{TEMPLATE}.gangPolicy.minRoleReplicas": {"prefill": -1}},
        f"{TEMPLATE}.gangPolicy.minRoleReplicas.prefill",
        "-1 is out of range",
    ),
    (
        {f"{TEMPLATE}.networkTopology.groupPolicy": {"highestTierAllowed": 1, "highestTierName": "rack"}},
        f"{TEMPLATE}.networkTopology.groupPolicy",
        "at most one of them",
    ),
    (
        {f"{TEMPLATE}.networkTopology.rolePolicy": {"highestTierAllowed": -1}},
        f"{TEMPLATE}.networkTopology.rolePolicy.highestTierAllowed",
        "too small",
    ),
    (
        {f"{TEMPLATE}.networkTopology.rolePolicy": {"highestTierName": "r" * 254}},
        f"{TEMPLATE}.networkTopology.rolePolicy.highestTierName",
        "has 254 characters; allowed: at most 253",
    ),
    (
        {f"{TEMPLATE}.networkTopology.rolePolicy": {"mode": "firm"}},
        f"{TEMPLATE}.networkTopology.rolePolicy.mode",
        "hard, soft",
    ),
    ({f"{TEMPLATE}.restartGracePeriodSeconds": -1}, f"{TEMPLATE}.restartGracePeriodSeconds", "too small"),
    ({"spec.plugins": [{"name": "x", "type": "Webhook"}]}, "spec.plugins[0].type", "allowed: BuiltIn"),
    ({"spec.plugins": [{"type": "BuiltIn"}]}, "spec.plugins[0].name", "required"),
    ({"metadata.name": "1chat"}, "metadata.name", '"1chat-2-decode-4-1" is not a valid name'),
    ({"metadata.name": "c" * 50}, "metadata.name", "the longest generated name"),
    (
        {f"{PREFILL}.entryTemplate.spec.containers[0].image": "vllm 1"},
        f"{PREFILL}.entryTemplate.spec.containers[0].image",
        "holds whitespace",
    ),
    (
        {f"{DECODE}.workerTemplate.metadata.labels": {"a b": "c"}},
        f"{DECODE}.workerTemplate.metadata.labels",
        "not a valid name",
    ),
]


@pytest.mark.parametrize(("changes", "path", "problem"), REFUSED, ids=[f"{case[0]}" for case in REFUSED])
def test_a_broken_rule_is_named_with_its_path(
    manifest: Manifest, problems: Problems, changes: dict[str, Any], path: str, problem: str
) -> None:
    found = problems(manifest("serving", changes))
    assert path in found, found
    assert problem in found[path]


def test_five_roles_are_too_many(manifest: Manifest, problems: Problems) -> None:
    roles = [{**manifest("serving")["spec"]["template"]["roles"][0], "name": f"r{index}"} for index in range(5)]
    assert problems(manifest("serving", {f"{TEMPLATE}.roles": roles[:4]})) == {}
    assert (
        "has 5 entries; allowed: at most 4"
        in problems(manifest("serving", {f"{TEMPLATE}.roles": roles}))[f"{TEMPLATE}.roles"]
    )


GANG = f"{TEMPLATE}.gangPolicy.minRoleReplicas"


@pytest.mark.parametrize("later", [{"prefill": 2}, {}, None], ids=["changed", "emptied", "removed"])
def test_the_gang_policy_is_immutable_once_set(manifest: Manifest, problems: Problems, later: Json | None) -> None:
    old = admit(manifest("serving", {GANG: {"prefill": 1}}))
    new = manifest("serving", {} if later is None else {GANG: later})
    assert "immutable once set" in problems(new, old)[GANG]


def test_an_unset_gang_policy_may_be_set_and_then_kept(manifest: Manifest, problems: Problems) -> None:
    new = manifest("serving", {GANG: {"prefill": 1}})
    assert problems(new, admit(manifest("serving"))) == {}
    assert problems(new, admit(new)) == {}


def test_the_spec_answers_in_counts(manifest: Manifest) -> None:
    changes = {
        "spec.replicas": 10,
        f"{ROLLING}.maxUnavailable": "25%",
        f"{ROLLING}.partition": "1%",
        GANG: {"decode": 3},
    }
    spec = ModelServingSpec.model_validate(admit(manifest("serving", changes))["spec"])
    assert (spec.max_unavailable_count(), spec.partition_ordinal()) == (2, 1)
    prefill, decode = spec.roles
    assert (spec.gang_replicas(prefill), spec.gang_replicas(decode)) == (2, 3)
    assert spec.role("decode").group_size == 2
    assert (decode.max_unavailable_count(), decode.partition_ordinal()) == (1, 0)
    with pytest.raises(KeyError):
        spec.role("encode")
