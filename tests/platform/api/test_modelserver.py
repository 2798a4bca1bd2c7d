from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hekla.platform.api.admission import admit
from hekla.platform.api.meta import Json

Manifest = Callable[..., Json]
Problems = Callable[..., dict[str, str]]

SELECTOR = "spec.workloadSelector"
PD = {
    "groupKey": "modelserving.volcano.sh/group-name",
    "prefillLabels": {"role": "prefill"},
    "decodeLabels": {"role": "d"},
}
MISSING = "<missing>"


def test_defaults_are_filled_in(manifest: Manifest) -> None:
    spec = admit(manifest("server", {"spec.trafficPolicy.retry": {"attempts": 3}, "spec.kvConnector": {}}))["spec"]
    assert spec["workloadPort"] == {"port": 8000, "protocol": "http"}
    assert spec["trafficPolicy"] == {"retry": {"attempts": 3, "retryInterval": "100ms"}}
    assert spec["kvConnector"] == {"type": "http"}


def test_a_connector_not_asked_for_is_not_filled_in(manifest: Manifest) -> None:
    assert "kvConnector" not in admit(manifest("server"))["spec"]


ACCEPTED: list[dict[str, Any]] = [
    {"spec.inferenceEngine": "SGLang"},
    {"spec.inferenceEngine": "Simulated"},
    {"spec.model": "m" * 256},
    {f"{SELECTOR}.pdGroup": PD},
    {f"{SELECTOR}.pdGroup": {**PD, "localPrefillTokensMax": 0}},
    {f"{SELECTOR}.pdGroup": {"scope": "pool", **{k: v for k, v in PD.items() if k != "groupKey"}}},
    {"spec.workloadPort": {"port": 65535, "protocol": "https"}},
    {"spec.workloadPort": MISSING},
    {"spec.trafficPolicy": {"timeout": "1m30s", "retry": {"attempts": 0, "retryInterval": "0"}}},
    *({"spec.kvConnector.type": name} for name in ("http", "lmcache", "nixl", "mooncake")),
]


@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
def test_a_server_within_the_rules_is_accepted(manifest: Manifest, problems: Problems, changes: dict[str, Any]) -> None:
    assert problems(manifest("server", changes)) == {}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"spec.model": "m" * 257}, "spec.model", "has 257 characters; allowed: at most 256"),
    ({"spec.inferenceEngine": MISSING}, "spec.inferenceEngine", "required"),
    ({"spec.inferenceEngine": "TGI"}, "spec.inferenceEngine", "allowed: vLLM, SGLang, Simulated"),
    ({SELECTOR: MISSING}, SELECTOR, "required"),
    ({f"{SELECTOR}.matchLabels": {}}, f"{SELECTOR}.matchLabels", "at least 1"),
    ({f"{SELECTOR}.matchLabels": {"app": "a b"}}, f"{SELECTOR}.matchLabels.app", "not a valid name"),
    ({f"{SELECTOR}.matchLabels": {"app": 1}}, f"{SELECTOR}.matchLabels.app", 'got 1; quote it: "1"'),
    ({f"{SELECTOR}.pdGroup": {**PD, "groupKey": ""}}, f"{SELECTOR}.pdGroup.groupKey", "has no name"),
    ({f"{SELECTOR}.pdGroup": {k: v for k, v in PD.items() if k != "groupKey"}}, f"{SELECTOR}.pdGroup", "groupKey: required"),
    ({f"{SELECTOR}.pdGroup": {**PD, "scope": "rack"}}, f"{SELECTOR}.pdGroup.scope", "allowed: group, pool"),
    ({f"{SELECTOR}.pdGroup": {**PD, "localPrefillTokensMax": -1}}, f"{SELECTOR}.pdGroup.localPrefillTokensMax", "0"),
    ({f"{SELECTOR}.pdGroup": {**PD, "groupKey": "a b"}}, f"{SELECTOR}.pdGroup.groupKey", "not a valid name"),
    ({f"{SELECTOR}.pdGroup": {**PD, "prefillLabels": {}}}, f"{SELECTOR}.pdGroup.prefillLabels", "at least 1"),
    ({f"{SELECTOR}.pdGroup": {**PD, "decodeLabels": {}}}, f"{SELECTOR}.pdGroup.decodeLabels", "at least 1"),
    ({f"{SELECTOR}.pdGroup": {"groupKey": "g"}}, f"{SELECTOR}.pdGroup.decodeLabels", "required"),
    ({"spec.workloadPort.port": 0}, "spec.workloadPort.port", "0 is too small; allowed: 1 or more"),
    ({"spec.workloadPort.port": 65536}, "spec.workloadPort.port", "65536 is too large; allowed: 65535 or less"),
    ({"spec.workloadPort": {}}, "spec.workloadPort.port", "required"),
    ({"spec.workloadPort.protocol": "grpc"}, "spec.workloadPort.protocol", "allowed: http, https"),
    ({"spec.trafficPolicy.timeout": "soon"}, "spec.trafficPolicy.timeout", "'soon' is not a duration; allowed: such as 5s"),
    ({"spec.trafficPolicy.timeout": 5}, "spec.trafficPolicy.timeout", "must be text, got 5"),
    ({"spec.trafficPolicy.retry": {"attempts": -1}}, "spec.trafficPolicy.retry.attempts", "too small"),
    ({"spec.trafficPolicy.retry": {"attempts": 1, "retryInterval": "-1s"}}, "spec.trafficPolicy.retry.retryInterval", "not a duration"),
    ({"spec.kvConnector.type": "rdma"}, "spec.kvConnector.type", "allowed: http, lmcache, nixl, mooncake"),
    ({"spec.engine": "vLLM"}, "spec.engine", 'unknown field; did you mean "inferenceEngine"?'),
    ({"spec.inference_engine": "vLLM"}, "spec.inference_engine", 'unknown field; did you mean "inferenceEngine"?'),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "path", "problem"), REFUSED, ids=[f"{case[0]}"[:80] for case in REFUSED])
def test_a_broken_rule_is_named_with_its_path(
    manifest: Manifest, problems: Problems, changes: dict[str, Any], path: str, problem: str
) -> None:
    found = problems(manifest("server", changes))
    assert path in found, found
    assert problem in found[path]
