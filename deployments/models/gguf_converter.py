"""Program: turns a GGUF file into a Hugging Face folder. `python gguf_converter.py FILE.gguf FOLDER`

Run by path in a process of its own (see `gguf.py`), so it imports nothing of hekla. Weights become bfloat16, which
both CPU and accelerator engines read; the quantised values fit in it with less error than they carry already.
"""

from __future__ import annotations

import sys
from pathlib import Path

VERSIONS = (2, 3)


def main(source: Path, into: Path) -> None:
    _check_version(source)  # first: the libraries take seconds to load
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    _say("read")
    folder, name = str(source.parent), source.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    _say("loaded")
    # What the file says of itself; a name from a training run tells a reader nothing.
    model.config._name_or_path = source.stem
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)
    for path in into.iterdir():
        path.chmod(0o644)
    _say("saved")


def _check_version(source: Path) -> None:
    with source.open("rb") as file:
        field = file.read(8)[4:]
    if not any(int.from_bytes(field, order) in VERSIONS for order in ("little", "big")):
        sys.exit(f"{source} has GGUF version {int.from_bytes(field, 'little')}; allowed: {VERSIONS}")


def _say(stage: str) -> None:
    print(f"stage {stage}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
