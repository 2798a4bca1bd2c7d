"""A pod template, read as an engine."""

from __future__ import annotations

from typing import Any

import pytest

from hekla.deployments.command_line import flag_value, flag_values, kv_role, without_flags
from hekla.deployments.engine_reading import Place, Reading, read_engine, with_entry_address
from hekla.platform.api.meta import Json


def read(container: Json, *, role: str = "server", index: int = 0, size: int = 1, **template: Any) -> Reading:
    pod = template.pop("pod", {})
    place = Place("default", f"llm-0-{role}-0-{index}", role, size, index)
    return read_engine({"metadata": template, "spec": {"containers": [{"name": "main", **container}], **pod}}, place)


VLLM = ["python3", "-m", "vllm.entrypoints.openai.api_server"]


@pytest.mark.parametrize(
    ("command", "args"),
    [
        (VLLM, ["--model", "hf://org/m", "--port", "8000", "--max-model-len", "4096"]),
        ([*VLLM, "--model=hf://org/m", "--port", "8000", "--max-model-len", "4096"], []),
        (["vllm", "serve"], ["hf://org/m", "--port", "8000", "--max-model-len", "4096"]),
        ([], ["--model", "hf://org/m", "--port", "8000", "--max-model-len", "4096"]),
    ],
)
def test_the_usual_vllm_command_is_understood_however_it_is_written(command: list[str], args: list[str]) -> None:
    launch = read({"image": "vllm/vllm-openai", "command": command, "args": args}).launch
    assert (launch.engine, launch.command, launch.model_uri, launch.port) == ("vLLM", [], "hf://org/m", 8000)
    assert flag_value(launch.args, ("--max-model-len",)) == "4096"


def test_a_hub_id_is_left_to_the_engine() -> None:
    launch = read({"command": VLLM, "args": ["--model", "org/m"]}).launch
    assert (launch.model_uri, launch.command, launch.args) == ("", [], ["--model", "org/m"])


def test_another_program_runs_as_it_is_written() -> None:
    launch = read({"command": ["./serve", "--port", "9000"], "args": ["--fast"]}).launch
    assert (launch.engine, launch.command, launch.port) == ("Command", ["./serve", "--port", "9000", "--fast"], 9000)


def test_a_shell_script_is_kept_whole_and_its_engine_named() -> None:
    command = ["sh", "-c", "pip list && vllm serve org/m"]
    launch = read({"command": command}).launch
    assert (launch.engine, launch.command) == ("vLLM", command)


@pytest.mark.parametrize(
    ("image", "engine"),
    [("lmsysorg/sglang:v0.5", "SGLang"), ("vllm/vllm-openai", "vLLM"), ("hekla-sim:1", "Simulated"), ("x/y", "vLLM")],
)
def test_without_a_command_the_image_names_the_engine(image: str, engine: str) -> None:
    assert read({"image": image}).launch.engine == engine


@pytest.mark.parametrize("where", ["labels", "annotations"])
def test_a_mark_decides_whatever_the_command_says(where: str) -> None:
    marked: dict[str, Any] = {where: {"hekla.io/engine": "simulated"}}
    launch = read({"command": VLLM}, **marked).launch
    assert launch.engine == "Simulated"


def test_requests_win_over_limits_and_become_rays_resources() -> None:
    container = {
        "resources": {
            "requests": {"cpu": "1500m", "memory": "2Gi"},
            "limits": {"cpu": "4", "nvidia.com/gpu": "2", "huawei.com/Ascend910": 1, "example.com/fpga": 1, "ephemeral-storage": "9Gi"},
        }
    }  # fmt: skip
    reading = read(container)
    assert reading.resources == {"CPU": 1.5, "memory": 2 * 2**30, "GPU": 2, "NPU": 1, "example.com/fpga": 1}
    assert reading.launch.cpus == 1.5


def test_an_engine_that_asks_for_nothing_gets_a_core() -> None:
    assert read({}).resources == {"CPU": 1.0}


def test_variables_are_expanded_as_kubernetes_does() -> None:
    env = [
        {"name": "MODEL", "value": "hf://org/m"},
        {"name": "TWICE", "value": "$(MODEL)-$(MODEL)"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
    container = {"command": VLLM, "args": ["--model", "$(MODEL)", "--x", "$$(MODEL)", "--y", "$(NOBODY)"], "env": env}
    launch = read(container).launch
    assert launch.model_uri == "hf://org/m"
    assert launch.args == ["--x", "$(MODEL)", "--y", "$(NOBODY)"]
    assert launch.env["TWICE"] == "hf://org/m-hf://org/m"
    assert "SECRET" not in launch.env


@pytest.mark.parametrize(
    ("role", "index", "args", "expected"),
    [
        ("prefill", 0, [], "prefill"),
        ("decode", 0, [], "decode"),
        ("prefill", 1, [], "worker"),
        ("leader", 0, [], "server"),
        ("leader", 0, ["--kv-transfer-config", '{"kv_role": "kv_consumer"}'], "decode"),
        ("leader", 0, ["--kv-transfer-config", '{"kv_role": "kv_both"}'], "server"),
    ],
)
def test_the_role_comes_from_the_roles_name_then_from_the_kv_role(
    role: str, index: int, args: list[str], expected: str
) -> None:
    assert read({"args": args}, role=role, index=index, size=2).launch.role == expected


def test_a_worker_learns_its_place_and_the_entrys_address_when_it_is_known() -> None:
    container = {
        "args": ["--node-rank", "$(WORKER_INDEX)", "--nnodes=$(GROUP_SIZE)", "--master-addr", "$(ENTRY_ADDRESS)"]
    }
    launch = read(container, index=1, size=3).launch.model_dump(by_alias=True)
    assert launch["env"] == {"GROUP_SIZE": "3", "WORKER_INDEX": "1"}
    ready = with_entry_address(launch, "10.0.0.7", "engine.default.x")
    assert ready["args"] == ["--node-rank", "1", "--nnodes=3", "--master-addr", "10.0.0.7"]
    assert ready["env"]["ENTRY_ADDRESS"] == "10.0.0.7"
    assert ready["entryActor"] == "engine.default.x"


def test_the_grace_period_of_the_pod_is_the_time_to_drain() -> None:
    assert read({}, pod={"terminationGracePeriodSeconds": 300}).launch.drain_grace_s == 300
    assert read({}).launch.drain_grace_s == 30


def test_served_names_move_to_the_launch_only_when_there_is_one() -> None:
    one = read({"args": ["--model", "hf://a/b", "--served-model-name", "m"]}).launch
    assert (one.served_model_name, one.args) == ("m", [])
    two = read({"args": ["--model", "hf://a/b", "--served-model-name", "m", "n"]}).launch
    assert two.args == ["--served-model-name", "m", "n"]


def test_flags_are_found_and_removed_in_every_spelling() -> None:
    args = ["--a", "1", "--served_model_name", "x", "y", "--b=2", "--flag"]
    assert flag_values(args, ("--served-model-name",)) == ["x", "y"]
    assert without_flags(args, ("--served-model-name",)) == ["--a", "1", "--b=2", "--flag"]
    assert flag_value(args, ("--b",)) == "2"
    assert flag_value(args, ("--flag",)) == ""
    assert kv_role(["--kv-transfer-config", "not json"]) == ""


MODEL = ("--model",)


@pytest.mark.parametrize(
    ("args", "rest"),
    [
        (["--model", "a", "-tp", "2"], ["-tp", "2"]),
        (["-tp", "2", "--model", "a", "-O3"], ["-tp", "2", "-O3"]),
        (["--model=a", "-tp=2", "--seed", "-1"], ["-tp=2", "--seed", "-1"]),
        (["--model", "a", "--enforce-eager", "-dp", "2"], ["--enforce-eager", "-dp", "2"]),
        (["--seed", "-1", "--model", "a"], ["--seed", "-1"]),
        (["--temperature", "-0.5", "--model=a"], ["--temperature", "-0.5"]),
        (["--model", "a", "--x", '{"a": "--b"}'], ["--x", '{"a": "--b"}']),
        (["--x", "-", "--model", "a"], ["--x", "-"]),
        (["--model", "a", "--model=b", "-q"], ["-q"]),
        (["--model-x", "a"], ["--model-x", "a"]),
    ],
)
def test_a_flag_is_removed_with_its_values_and_nothing_else(args: list[str], rest: list[str]) -> None:
    assert without_flags(args, MODEL) == rest


@pytest.mark.parametrize(
    ("args", "values"),
    [
        (["--x", "a", "-tp", "2"], ["a"]),
        (["--x", "-1"], ["-1"]),
        (["--x=-1", "y"], ["-1"]),
        (["--x", "-.5", "-1e3"], ["-.5", "-1e3"]),
        (["--x", '{"a": -1}', "--y"], ['{"a": -1}']),
        (["--x", "--y"], []),
        (["--x"], []),
        (["--x="], [""]),
        (["-x", "1"], []),
        (["--x", "1", "--x", "2"], ["2"]),
    ],
)
def test_the_values_of_a_flag_end_at_the_next_flag(args: list[str], values: list[str]) -> None:
    assert flag_values(args, ("--x",)) == values


def test_short_flags_have_values_too() -> None:
    assert flag_value(["--model", "a", "-tp", "2"], ("--tensor-parallel-size", "-tp")) == "2"
    assert without_flags(["-tp", "2", "-pp", "3"], ("-tp",)) == ["-pp", "3"]


def test_short_flags_after_the_model_reach_the_engine() -> None:
    launch = read({"command": ["vllm", "serve", "hf://a/b", "-tp", "2", "--seed", "-1"]}).launch
    assert (launch.model_uri, launch.args) == ("hf://a/b", ["-tp", "2", "--seed", "-1"])
