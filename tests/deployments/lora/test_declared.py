"""Adapters as manifests declare them, and what a ModelBooster makes of them."""

from __future__ import annotations

from typing import Any

import pytest

from hekla.deployments.booster.generate import generate
from hekla.deployments.commands import plan_process
from hekla.deployments.engines.plan import Site
from hekla.deployments.launch import EngineLaunch
from hekla.platform.api.admission import admit
from hekla.platform.api.meta import Json
from hekla.platform.base.errors import Invalid

SITE = Site(node_ip="127.0.0.1", port=9000, spare_ports=(9001, 9002, 9003), python="python", model="")


def booster(*adapters: Json, **config: str) -> Json:
    backend = {
        "name": "b", "type": "Simulated", "modelURI": "hf://simulated/m", "replicas": 1,
        "workers": [{"type": "server", "config": config}], "loraAdapters": list(adapters),
    }  # fmt: skip
    made = admit(
        {
            "apiVersion": "workload.serving.volcano.sh/v1alpha1",
            "kind": "ModelBooster",
            "metadata": {"name": "m"},
            "spec": {"backend": backend},
        }
    )
    made["metadata"]["uid"] = "uid"
    return made


def adapter(name: str, **more: Any) -> Json:
    return {"name": name, "uri": f"/adapters/{name}", **more}


def args_of(obj: Json) -> list[str]:
    return list(generate(obj)[0]["spec"]["template"]["roles"][0]["entryTemplate"]["spec"]["containers"][0]["args"])


def test_a_boosters_adapters_are_on_its_server_and_its_route_and_its_engines_take_them() -> None:
    made = booster(adapter("a", pinned=True), adapter("b"))
    _, server, route = generate(made)
    assert server["spec"]["loraAdapters"] == [adapter("a", pinned=True), adapter("b")]
    assert route["spec"]["loraAdapters"] == ["a", "b"]
    assert args_of(made)[-3:] == ["--enable-lora", "--max-loras", "4"]
    assert admit(server)["spec"]["loraAdapters"][0]["name"] == "a"


def test_another_adapter_changes_no_engine() -> None:
    one, two = booster(adapter("a")), booster(adapter("a"), adapter("b"))
    assert generate(one)[0] == generate(two)[0]


def test_the_config_has_the_last_word_on_slots() -> None:
    arguments = args_of(booster(adapter("a"), max_loras="9"))
    assert arguments.count("--max-loras") == 1
    assert arguments[arguments.index("--max-loras") + 1] == "9"


def test_without_adapters_lora_stays_off() -> None:
    assert "--enable-lora" not in args_of(booster())


@pytest.mark.parametrize(
    ("adapters", "problem"),
    [
        ([adapter("a"), adapter("a")], "there twice"),
        ([adapter("m")], "the model's own name"),
        ([{"name": "a", "uri": "ftp://x"}], "not a place adapters are read from"),
        ([adapter("a", minReplicas=3, maxReplicas=2)], "below the 3 that have to be"),
        ([adapter(f"a{i}") for i in range(11)], "at most 10"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_is_allowed(adapters: list[Json], problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        booster(*adapters)


@pytest.mark.parametrize(("args", "allowed"), [(["--enable-lora"], "1"), ([], None)])
def test_vllm_may_load_adapters_at_run_time_only_when_lora_is_on(args: list[str], allowed: str | None) -> None:
    plan = plan_process(EngineLaunch(name="e", engine="vLLM", model_uri="hf://o/m", args=args), SITE)
    assert plan.env.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") == allowed
