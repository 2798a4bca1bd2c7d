"""A controller that notes when it is asked to reconcile what, for tests of whatever asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from hekla.platform.api.meta import Json, Ref
from hekla.platform.base.clock import Clock
from hekla.platform.control.interface import Again

Reconcile = Callable[[Ref], Awaitable[Again | None]]


class RecordingController:
    """A controller of Models, woken by Children too, that notes each reconcile and then does as it is told."""

    name = "models"
    kind = "Model"
    watches: tuple[str, ...] = ("Child",)

    def __init__(self, clock: Clock, then: Reconcile | None = None) -> None:
        self.clock = clock
        self.then = then
        self.calls: list[tuple[float, str]] = []
        self.running: set[Ref] = set()

    def keys_for(self, obj: Json) -> Iterable[Ref]:
        return [Ref("Model", "default", obj["spec"]["model"])]

    async def reconcile(self, key: Ref) -> Again | None:
        assert key not in self.running, f"two reconciles of {key} at once"
        self.running.add(key)
        self.calls.append((round(self.clock.monotonic(), 4), key.name))
        try:
            return await self.then(key) if self.then else None
        finally:
            self.running.discard(key)

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.calls]

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.calls]
