"""What a ModelBooster becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hekla.deployments.booster.arguments import engine_args, served_name
from hekla.deployments.booster.generate import generate
from hekla.deployments.engine_reading import Place, read_engine
from hekla.platform.api.admission import admit
from hekla.platform.api.meta import Json

Make = Callable[..., Json]


def children(booster: Json) -> tuple[Json, Json, Json]:
    booster["metadata"].setdefault("uid", "booster-uid")
    serving, server, route = (admit(child) for child in generate(booster))
    return serving, server, route


def revision(obj: Json) -> str:
    return str(obj["metadata"]["labels"]["workload.serving.volcano.sh/revision"])


def container(serving: Json, role: int = 0, template: str = "entryTemplate") -> Json:
    found: Json = serving["spec"]["template"]["roles"][role][template]["spec"]["containers"][0]
    return found


def test_a_booster_becomes_three_owned_objects_with_its_names(booster: Make) -> None:
    serving, server, route = children(booster())
    assert [obj["metadata"]["name"] for obj in (serving, server, route)] == ["demo-main", "demo-main", "demo"]
    for obj in (serving, server, route):
        (owner,) = obj["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
            "ModelBooster", "demo", "booster-uid", True,
        )  # fmt: skip
        assert obj["metadata"]["labels"]["workload.serving.volcano.sh/backend-name"] == "main"
        assert revision(obj)


def test_the_servers_selector_finds_the_generated_engines(booster: Make) -> None:
    serving, server, _ = children(booster())
    labels = serving["spec"]["template"]["roles"][0]["entryTemplate"]["metadata"]["labels"]
    assert server["spec"]["workloadSelector"]["matchLabels"].items() <= labels.items()


def test_the_route_sends_the_public_name_to_the_server(booster: Make) -> None:
    _, server, route = children(booster())
    assert route["spec"]["modelName"] == "chat"
    (rule,) = route["spec"]["rules"]
    assert rule["name"] == "default"
    assert rule["targetModels"][0]["modelServerName"] == server["metadata"]["name"]


def test_without_a_name_the_objects_own_name_is_the_models(booster: Make) -> None:
    serving, server, route = children(booster(model=None))
    assert route["spec"]["modelName"] == server["spec"]["model"] == "demo"
    assert "demo" in container(serving)["args"]


def test_the_model_match_is_copied_into_the_route(booster: Make) -> None:
    obj = booster()
    obj["spec"]["modelMatch"] = {"headers": {"x-tier": {"exact": "gold"}}}
    assert children(obj)[2]["spec"]["rules"][0]["modelMatch"]["headers"] == {"x-tier": {"exact": "gold"}}


def test_a_served_model_name_in_the_config_is_what_the_router_rewrites_to(booster: Make, worker: Make) -> None:
    serving, server, route = children(booster(workers=[worker(config={"served_model_name": "inner"})]))
    assert (server["spec"]["model"], route["spec"]["modelName"]) == ("inner", "chat")
    assert container(serving)["args"].count("--served-model-name") == 1


def test_pods_become_an_entry_and_workers_in_the_engines_own_multi_node_mode(booster: Make, worker: Make) -> None:
    serving, _, _ = children(booster(workers=[worker(pods=3)]))
    role = serving["spec"]["template"]["roles"][0]
    assert (role["name"], role["workerReplicas"]) == ("leader", 2)
    entry, other = container(serving)["args"], container(serving, template="workerTemplate")["args"]
    assert entry[-6:] == [
        "--nnodes",
        "$(GROUP_SIZE)",
        "--node-rank",
        "$(WORKER_INDEX)",
        "--master-addr",
        "$(ENTRY_ADDRESS)",
    ]
    assert "--headless" in other
    assert "--headless" not in entry


def test_a_disaggregated_booster_has_both_roles_and_a_pd_group(booster: Make, pair: Callable[..., list[Json]]) -> None:
    serving, server, _ = children(booster("vLLMDisaggregated", pair(replicas=2)))
    assert [(role["name"], role["replicas"]) for role in serving["spec"]["template"]["roles"]] == [
        ("prefill", 2), ("decode", 1),
    ]  # fmt: skip
    assert server["spec"]["workloadSelector"]["pdGroup"] == {
        "groupKey": "modelserving.volcano.sh/group-name",
        "prefillLabels": {"modelserving.volcano.sh/role": "prefill"},
        "decodeLabels": {"modelserving.volcano.sh/role": "decode"},
        "scope": "group",
    }
    assert server["spec"]["kvConnector"] == {"type": "nixl"}


@pytest.mark.parametrize(
    ("kind", "engine"),
    [("vLLM", "vLLM"), ("SGLang", "SGLang"), ("Simulated", "Simulated"), ("vLLMDisaggregated", "vLLM"), ("SimulatedDisaggregated", "Simulated")],
)  # fmt: skip
def test_the_generated_template_is_read_back_as_the_engine_it_means(
    booster: Make, worker: Make, kind: str, engine: str
) -> None:
    workers = [worker("prefill"), worker("decode")] if "Disagg" in kind else [worker()]
    for one in workers:
        one["config"] = {"max_model_len": 4096}
    serving, server, _ = children(booster(kind, workers, cacheURI="hostpath:///cache"))
    for role in serving["spec"]["template"]["roles"]:
        launch = read_engine(role["entryTemplate"], Place("default", "x", role["name"], 1, 0)).launch
        assert launch.engine == engine == server["spec"]["inferenceEngine"]
        assert (launch.model_uri, launch.served_model_name, launch.command) == ("hf://org/model", "chat", [])
        assert launch.args == ["--max-model-len", "4096"]
        assert launch.cache_uri == "hostpath:///cache"
        assert launch.drain_grace_s == 300
        assert launch.role == {"leader": "server"}.get(role["name"], role["name"])


def test_scheduler_affinity_tolerations_and_environment_are_handed_on(booster: Make, worker: Make) -> None:
    tolerations = [{"key": "gpu", "operator": "Exists"}]
    obj = booster(
        workers=[worker(tolerations=tolerations, image="my/vllm:1")],
        env=[{"name": "A", "value": "1"}],
        schedulerName="other",
        runtimeClassName="nvidia",
    )
    serving, _, _ = children(obj)
    pod = serving["spec"]["template"]["roles"][0]["entryTemplate"]["spec"]
    assert serving["spec"]["schedulerName"] == "other"
    assert (pod["tolerations"], pod["runtimeClassName"]) == (tolerations, "nvidia")
    assert container(serving)["env"] == [{"name": "A", "value": "1"}]
    assert container(serving)["image"] == "my/vllm:1"


def test_the_servings_revision_is_the_backends(booster: Make, worker: Make) -> None:
    first = children(booster())
    again = children(booster())
    other = children(booster(workers=[worker(config={"max-model-len": 1})]))
    assert [revision(obj) for obj in first] == [revision(obj) for obj in again]
    assert revision(first[0]) != revision(other[0])
    assert revision(first[2]) == revision(other[2])


@pytest.mark.parametrize(
    ("config", "args"),
    [
        ({"max_model_len": 4096}, ["--max-model-len", "4096"]),
        ({"enable-prefix-caching": ""}, ["--enable-prefix-caching"]),
        ({"trust_remote_code": True}, ["--trust-remote-code"]),
        ({"enable-prefix-caching": False}, ["--no-enable-prefix-caching"]),
        ({"quantization": None}, []),
        ({"kv-transfer-config": '{"kv_role": "kv_both"}'}, ["--kv-transfer-config", '{"kv_role": "kv_both"}']),
        ({"rope_scaling": {"factor": 2}}, ["--rope-scaling", '{"factor":2}']),
        ({"lora-modules": ["a=b", "c=d"]}, ["--lora-modules", "a=b", "c=d"]),
        ({"gpu_memory_utilization": 0.9}, ["--gpu-memory-utilization", "0.9"]),
        ({"port": 8001, "host": "0.0.0.0"}, []),
    ],
)
def test_config_entries_become_engine_arguments(config: dict[str, Any], args: list[str]) -> None:
    assert engine_args(config) == args


def test_the_first_of_several_served_names_counts() -> None:
    assert served_name({"served-model-name": ["a", "b"]}) == "a"
    assert served_name({}) is None
