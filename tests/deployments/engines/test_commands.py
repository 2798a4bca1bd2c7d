"""From a launch to a command line and an environment."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hekla.deployments.commands import model_to_fetch, plan_process, understood
from hekla.deployments.engines.plan import Plan, Site
from hekla.deployments.launch import EngineLaunch
from hekla.platform.base.errors import Permanent

SITE = Site("10.0.0.7", 21000, (21001, 21002, 21003), "python", "/cache/abc", cores=(2, 3))
NIXL = json.dumps({"kv_connector": "NixlConnector", "kv_role": "kv_both"})


def planned(site: Site = SITE, **launch: Any) -> Plan:
    return plan_process(understood(EngineLaunch(name="e", **launch)), site)


def value(plan: Plan, flag: str) -> str:
    assert plan.argv.count(flag) == 1, f"{flag} in {plan.argv}"
    return plan.argv[plan.argv.index(flag) + 1]


def test_vllm_serves_the_fetched_folder_under_the_models_own_name() -> None:
    plan = planned(model_uri="hf://org/name", args=["--max-model-len", "2048"])
    assert plan.argv[:3] == ["python", "-m", "vllm.entrypoints.openai.api_server"]
    assert value(plan, "--model") == "/cache/abc"
    assert value(plan, "--served-model-name") == "org/name"
    assert value(plan, "--max-model-len") == "2048"
    assert (value(plan, "--host"), value(plan, "--port")) == ("10.0.0.7", "21000")
    assert plan.env["HF_HUB_OFFLINE"] == "1"
    assert value(plan, "--disable-access-log-for-endpoints") == "/health,/metrics,/v1/models"


@pytest.mark.parametrize(
    "command",
    [
        ["python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "hf://a/b", "--port", "8000"],
        ["vllm", "serve", "hf://a/b", "--port=8000", "--host=0.0.0.0"],
        ["vllm", "serve", "--model=hf://a/b", "--port", "8000", "--host", "0.0.0.0"],
    ],
)
def test_a_container_command_becomes_the_usual_one_on_the_free_port(command: list[str]) -> None:
    launch = understood(EngineLaunch(name="e", command=command))
    assert model_to_fetch(launch) == "hf://a/b"
    plan = plan_process(launch, SITE)
    assert plan.argv[:3] == ["python", "-m", "vllm.entrypoints.openai.api_server"]
    assert (value(plan, "--host"), value(plan, "--port")) == ("10.0.0.7", "21000")
    assert (value(plan, "--model"), value(plan, "--served-model-name")) == ("/cache/abc", "a/b")
    assert not [word for word in plan.argv if "8000" in word or "0.0.0.0" in word]


def test_a_hub_id_without_a_scheme_is_left_to_the_engine_which_stays_online() -> None:
    launch = understood(EngineLaunch(name="e", command=["vllm", "serve", "org/name"]))
    plan = plan_process(launch, Site("10.0.0.7", 21000, (1, 2, 3), "python", ""))
    assert model_to_fetch(launch) == ""
    assert value(plan, "--model") == "org/name"
    assert "HF_HUB_OFFLINE" not in plan.env


def test_a_shell_script_runs_as_given_with_its_port_replaced() -> None:
    plan = planned(command=["sh", "-c", "pip list; vllm serve x --port 8000 --host=0.0.0.0 --seed 8000"])
    assert plan.argv == ["sh", "-c", "pip list; vllm serve x --port 21000 --host=10.0.0.7 --seed 8000"]
    assert plan.env["PORT"] == "21000"
    assert plan.env["VLLM_NO_USAGE_STATS"] == "1"


def test_a_command_engine_runs_what_it_is_told_and_learns_its_port() -> None:
    plan = planned(engine="Command", command=["serve-it"], args=["--port", "80", "--host", "x"])
    assert plan.argv == ["serve-it", "--port", "21000", "--host", "10.0.0.7"]
    assert (plan.env["PORT"], plan.env["HOST"]) == ("21000", "10.0.0.7")


def test_a_command_engine_without_a_command_is_refused() -> None:
    with pytest.raises(Permanent, match=r"^command: is empty"):
        planned(engine="Command")


def test_the_simulated_engine_fetches_nothing() -> None:
    launch = understood(EngineLaunch(name="e", engine="Simulated", model_uri="hf://a/b"))
    assert model_to_fetch(launch) == ""
    plan = plan_process(launch, Site("10.0.0.7", 21000, (1, 2, 3), "python", ""))
    assert plan.argv[:3] == ["python", "-m", "hekla.deployments.simengine"]
    assert (value(plan, "--model"), value(plan, "--served-model-name")) == ("hf://a/b", "a/b")


def test_nixl_gets_a_side_channel_of_its_own_and_host_memory_without_an_accelerator() -> None:
    plan = planned(args=["--kv-transfer-config", NIXL])
    assert json.loads(value(plan, "--kv-transfer-config"))["kv_buffer_device"] == "cpu"
    assert plan.env["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "10.0.0.7"
    assert plan.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "21001"


def test_nixl_with_an_accelerator_is_left_as_the_manifest_has_it() -> None:
    site = Site("10.0.0.7", 21000, (21001, 2, 3), "python", "/m", has_accelerator=True)
    plan = planned(site, args=["--kv-transfer-config", NIXL])
    assert value(plan, "--kv-transfer-config") == NIXL
    assert "VLLM_CPU_KVCACHE_SPACE" not in plan.env


def test_engines_on_cpu_are_bound_to_their_own_cores_or_to_none() -> None:
    assert planned(cpus=2).env["VLLM_CPU_OMP_THREADS_BIND"] == "2,3"
    unbound = planned(Site("10.0.0.7", 21000, (1, 2, 3), "python", "/m"), cpus=2).env
    assert (unbound["VLLM_CPU_OMP_THREADS_BIND"], unbound["OMP_NUM_THREADS"]) == ("nobind", "2")


def test_the_manifests_environment_wins() -> None:
    env = planned(env={"VLLM_CPU_KVCACHE_SPACE": "4", "HF_HUB_OFFLINE": "0"}).env
    assert (env["VLLM_CPU_KVCACHE_SPACE"], env["HF_HUB_OFFLINE"]) == ("4", "0")


@pytest.mark.parametrize("engine", ["vLLM", "SGLang", "Simulated"])
def test_kv_events_move_to_a_free_port_and_are_reported(engine: Any) -> None:
    config = {
        "enable_kv_cache_events": True,
        "endpoint": "tcp://*:5557",
        "replay_endpoint": "tcp://*:5558",
        "topic": "t",
    }
    plan = planned(engine=engine, args=[f"--kv-events-config={json.dumps(config)}"])
    moved = json.loads(value(plan, "--kv-events-config"))
    assert (moved["endpoint"], moved["replay_endpoint"]) == ("tcp://*:21002", "tcp://*:21003")
    assert (moved["topic"], moved["publisher"]) == ("t", "zmq")
    assert plan.kv_events == "tcp://10.0.0.7:21002"


@pytest.mark.parametrize("engine", ["vLLM", "Simulated"])
def test_engines_tell_what_they_cache_without_being_asked_and_it_can_be_had_again(engine: Any) -> None:
    plan = planned(engine=engine)
    config = json.loads(value(plan, "--kv-events-config"))
    assert config["enable_kv_cache_events"]
    assert (config["endpoint"], config["replay_endpoint"]) == ("tcp://*:21002", "tcp://*:21003")
    assert (plan.kv_events, plan.kv_replay) == ("tcp://10.0.0.7:21002", "tcp://10.0.0.7:21003")


def test_events_that_a_manifest_asks_for_get_a_replay_endpoint_too() -> None:
    plan = planned(args=["--kv-events-config", '{"enable_kv_cache_events": true, "buffer_steps": 7}'])
    config = json.loads(value(plan, "--kv-events-config"))
    assert (config["replay_endpoint"], config["buffer_steps"]) == ("tcp://*:21003", 7)


@pytest.mark.parametrize(
    "args",
    [
        ["--kv-events-config", '{"enable_kv_cache_events": false}'],
        ["--kv-events-config", '{"enable_kv_cache_events": true, "publisher": "null"}'],
        ["--no-enable-prefix-caching"],
        ["--enable-prefix-caching=false"],
        ["--nnodes", "2", "--headless"],
    ],
)
def test_an_engine_that_is_told_not_to_or_keeps_nothing_publishes_no_kv_events(args: list[str]) -> None:
    plan = planned(args=args)
    assert (plan.kv_events, plan.kv_replay) == ("", "")
    assert [word for word in plan.argv if "replay_endpoint" in word] == []


def test_a_member_of_a_group_that_is_not_its_entry_publishes_no_kv_events() -> None:
    assert planned(group_size=2, worker_index=1, role="worker", env={"ENTRY_ADDRESS": "10.0.0.1"}).kv_events == ""


@pytest.mark.parametrize("flag", ["--data-parallel-size", "-dp"])
def test_every_data_parallel_rank_takes_ports_of_its_own(flag: str) -> None:
    plan = planned(args=[flag, "4"])
    config = json.loads(value(plan, "--kv-events-config"))
    assert (config["endpoint"], config["replay_endpoint"]) == ("tcp://*:0", "tcp://*:0")
    assert (plan.kv_events, plan.env["VLLM_HOST_IP"]) == ("tcp://10.0.0.7:0", "10.0.0.7")


def test_group_members_learn_their_place() -> None:
    entry = planned(group_size=2).env
    assert (entry["GROUP_SIZE"], entry["WORKER_INDEX"], entry["ENTRY_ADDRESS"]) == ("2", "0", "10.0.0.7")
    worker = planned(group_size=2, worker_index=1, role="worker", env={"ENTRY_ADDRESS": "10.0.0.1"}).env
    assert (worker["WORKER_INDEX"], worker["ENTRY_ADDRESS"]) == ("1", "10.0.0.1")


def test_sglang_speaks_its_own_flags() -> None:
    plan = planned(engine="SGLang", role="prefill", model_uri="hf://a/b")
    assert value(plan, "--model-path") == "/cache/abc"
    assert value(plan, "--disaggregation-mode") == "prefill"
    assert value(plan, "--disaggregation-bootstrap-port") == "21001"
    assert "--enable-metrics" in plan.argv


GROUP = ["--nnodes", "2", "--node-rank", "1", "--master-addr", "10.0.0.1", "--headless"]


@pytest.mark.parametrize(
    "given",
    [
        {"model_uri": "hf://a/b", "args": GROUP},
        {"command": ["vllm", "serve", "hf://a/b", *GROUP]},
        {"command": ["python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "hf://a/b", *GROUP]},
    ],
)
def test_a_headless_vllm_worker_is_started_by_the_program_that_knows_headless(given: dict[str, Any]) -> None:
    plan = planned(role="worker", worker_index=1, group_size=2, **given)
    assert plan.argv[:5] == ["python", "-m", "vllm.entrypoints.cli.main", "serve", "/cache/abc"]
    assert "--model" not in plan.argv
    assert (value(plan, "--node-rank"), value(plan, "--master-addr")) == ("1", "10.0.0.1")
    assert "--headless" in plan.argv


def test_a_hub_id_of_a_headless_worker_is_its_first_word_too() -> None:
    bare = Site("10.0.0.7", 21000, (1, 2, 3), "python", "")
    assert planned(bare, args=["--model", "org/name", "--headless"]).argv[3:5] == ["serve", "org/name"]
    assert planned(bare, args=["--headless"]).argv[3:5] == ["serve", "--headless"]


def test_what_a_manifest_says_of_speed_on_cpu_is_passed_on_and_nothing_is_forced() -> None:
    given = ["--enforce-eager", "-O1", "--dtype=bfloat16", "-tp", "2", "--seed", "-1", "--no-enable-prefix-caching"]
    argv = planned(model_uri="hf://a/b", args=given).argv
    assert [word for word in argv if word in given] == given
    assert not {"--enforce-eager", "--dtype"} & set(planned(model_uri="hf://a/b").argv)


def test_a_bare_flag_before_one_that_is_replaced_is_kept() -> None:
    assert "--enforce-eager" in planned(args=["--port", "--enforce-eager"]).argv


def test_an_engine_gets_a_temporary_folder_of_its_own_unless_the_manifest_names_one() -> None:
    site = Site("10.0.0.7", 21000, (1, 2, 3), "python", "", scratch="/run/e-1")
    plan = planned(site)
    assert (plan.env["TMPDIR"], plan.env["VLLM_RPC_BASE_PATH"]) == ("/run/e-1", "/run/e-1")
    assert planned(site, engine="Command", command=["x"]).env["TMPDIR"] == "/run/e-1"
    assert planned(site, env={"TMPDIR": "/scratch"}).env["TMPDIR"] == "/scratch"
