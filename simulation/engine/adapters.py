"""LoRA adapters on the accelerator: a step mixes at most `slots` of them, the least recently admitted makes room."""

from __future__ import annotations

from collections.abc import Collection


class AdapterSlots:
    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.loads = 0
        self._loaded: dict[str, None] = {}

    def fits(self, adapter: str, running: Collection[str]) -> bool:
        """Whether a sequence of `adapter` may join those that run with the adapters `running`."""
        return not adapter or adapter in running or len(running) < self.slots

    def use(self, adapter: str, running: Collection[str]) -> bool:
        """A sequence of it starts; whether the adapter has to be fetched. `running` holds it already."""
        if not adapter:
            return False
        is_new = adapter not in self._loaded
        self._loaded.pop(adapter, None)
        if len(self._loaded) >= self.slots:
            del self._loaded[next(name for name in self._loaded if name not in running)]
        self._loaded[adapter] = None
        self.loads += is_new
        return is_new

    @property
    def loaded(self) -> frozenset[str]:
        return frozenset(self._loaded)
