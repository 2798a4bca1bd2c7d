"""The names this engine answers to: the base model's, and its LoRA adapters'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hekla.deployments.simengine.refusal import Refusal, unknown_model

ADAPTERS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Adapter:
    name: str
    path: str


class Models:
    """`loras_enabled` False refuses to load adapters, as vLLM does without `--enable-lora`."""

    def __init__(
        self, root: str, served: tuple[str, ...], max_model_len: int, created: int, *, loras_enabled: bool
    ) -> None:
        self.root = root
        self.served = served
        self.max_model_len = max_model_len
        self.loras_enabled = loras_enabled
        self._created = created
        self._adapters: dict[str, Adapter] = {}

    def resolve(self, name: str | None) -> tuple[str, str]:
        """(name to answer with, adapter or empty); raises Refusal (404)."""
        if not name or name in self.served:
            return name or self.served[0], ""
        if name in self._adapters:
            return name, name
        raise unknown_model(name)

    def load(self, name: str, path: str, *, again: bool = False) -> str:
        """Raises Refusal."""
        if not self.loras_enabled:
            raise Refusal("LoRA is not enabled: start the engine with --enable-lora")
        if not name or not path:
            raise Refusal("Both 'lora_name' and 'lora_path' must be provided.", kind="InvalidUserInput")
        if name in self.served or (name in self._adapters and not again):
            raise Refusal(f"The lora adapter '{name}' has already been loaded.", kind="InvalidUserInput")
        if len(self._adapters) >= ADAPTERS_MAX:
            raise Refusal(f"{ADAPTERS_MAX} adapters are loaded, the most this engine keeps: unload one first")
        self._adapters[name] = Adapter(name, path)
        return f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, name: str) -> str:
        """Raises Refusal."""
        if not name:
            raise Refusal("'lora_name' must be provided to unload a LoRA adapter.", kind="InvalidUserInput")
        if name not in self._adapters:
            raise Refusal(f"The lora adapter '{name}' cannot be found.", 404)
        del self._adapters[name]
        return f"Success: LoRA adapter '{name}' removed successfully."

    def cards(self) -> dict[str, Any]:
        """The body of `/v1/models`."""
        base = [self._card(name, self.root, None, self.max_model_len) for name in self.served]
        loras = [self._card(item.name, item.path, self.served[0], None) for item in self._adapters.values()]
        return {"object": "list", "data": base + loras}

    def _card(self, name: str, root: str, parent: str | None, max_model_len: int | None) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": max_model_len,
            "permission": [],
        }
