"""An adapter's folder, looked at before an engine is bothered with it: its errors are about one file and one number."""

from __future__ import annotations

import json
from pathlib import Path

from hekla.platform.base.errors import Permanent

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")
CONFIG_BYTES_MAX = 4 * 2**20


def check_folder(folder: Path, rank_max: int) -> None:
    """Raises Permanent naming what is missing or does not fit. `rank_max` 0: any rank."""
    if not folder.is_dir():
        raise Permanent(f"{folder} is not a folder; an adapter is a folder with {CONFIG} and its weights")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise Permanent(f"{folder} has no weights; allowed: {', '.join(WEIGHTS)}")
    rank = _rank(folder / CONFIG)
    if rank_max and rank > rank_max:
        raise Permanent(f"its rank is {rank}; the engine takes up to {rank_max} (--max-lora-rank)")


def _rank(path: Path) -> int:
    """0 when the configuration does not say."""
    try:
        if path.stat().st_size > CONFIG_BYTES_MAX:
            raise Permanent(f"{path} is larger than {CONFIG_BYTES_MAX} bytes")
        config = json.loads(path.read_text())
    except OSError as error:
        raise Permanent(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise Permanent(f"{path} is not JSON: {error}") from error
    rank = config.get("r", 0) if isinstance(config, dict) else None
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 0:
        raise Permanent(f"{path}: r is {rank!r}; allowed: a whole number, the adapter's rank")
    return max([rank, *(value for value in _patterns(config) if isinstance(value, int))])


def _patterns(config: dict[str, object]) -> list[object]:
    """Ranks of single modules."""
    found = config.get("rank_pattern")
    return list(found.values()) if isinstance(found, dict) else []
