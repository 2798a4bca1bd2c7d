"""LoRA adapters as manifests declare them. hekla's addition, shared by ModelServer and ModelBooster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from hekla.platform.api.meta import ApiModel
from hekla.platform.api.wording import shown
from hekla.platform.base.errors import FieldError

ADAPTERS_MAX = 1000
"""Declared on one object: what a simulated engine keeps, and far more than any engine holds at once."""
URI_CHARS_MAX = 2048
REPLICAS_MAX = 1_000_000
SCHEMES = ("hf://", "ms://", "s3://", "obs://", "pvc://", "file://", "/")


def _checked_uri(text: str) -> str:
    if not any(text.startswith(scheme) and len(text) > len(scheme) for scheme in SCHEMES):
        allowed = ", ".join(f"{scheme}…" for scheme in SCHEMES)
        raise ValueError(f"{shown(text)} is not a place adapters are read from; allowed: {allowed}")
    return text


AdapterURI = Annotated[str, Field(max_length=URI_CHARS_MAX), AfterValidator(_checked_uri)]


class LoraAdapter(ApiModel):
    """A LoRA adapter that the pool's engines load at run time."""

    name: str = Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]*$")
    """The name that clients ask for."""
    uri: AdapterURI
    """The folder with `adapter_config.json` and the weights: fetched once per node, as models are."""
    pinned: bool = False
    """Loaded at once, and never unloaded to make room for another."""
    min_replicas: int = Field(default=0, ge=0, le=REPLICAS_MAX)
    """Engines that hold it however little it is asked for; 0: none has to while no one asks."""
    max_replicas: int = Field(default=0, ge=0, le=REPLICAS_MAX)
    """Engines that hold it at most; 0: as many as its requests are worth."""
    routable: bool = False
    """Clients may ask for it by name without a ModelRoute that lists it."""

    @property
    def replicas_min(self) -> int:
        """Engines that hold it always."""
        return max(self.min_replicas, 1 if self.pinned else 0)


def adapter_problems(adapters: Sequence[LoraAdapter], path: str, base: str | None) -> Iterator[FieldError]:
    """What is wrong across the fields of a list; `base` is the model they adapt, which none may be called."""
    seen: set[str] = set()
    for index, adapter in enumerate(adapters):
        if adapter.name in seen:
            yield FieldError(f"{path}[{index}].name", f"{shown(adapter.name)} is there twice; allowed: each name once")
        if adapter.name == base:
            problem = f"{shown(adapter.name)} is the model's own name; allowed: a name of its own"
            yield FieldError(f"{path}[{index}].name", problem)
        if adapter.max_replicas and adapter.max_replicas < adapter.replicas_min:
            problem = f"{adapter.max_replicas} is below the {adapter.replicas_min} that have to be; allowed: 0 or more"
            yield FieldError(f"{path}[{index}].maxReplicas", problem)
        seen.add(adapter.name)
