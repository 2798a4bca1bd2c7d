"""Many keys, random changes, failures and delays, from one seed in virtual time: nothing is ever missed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import suppress

import pytest

from hekla.platform.api.meta import Json, Ref
from hekla.platform.base.clock import VirtualClock, settle
from hekla.platform.base.errors import Conflict, NotFound, Permanent, Temporary
from hekla.platform.base.ids import SeededIds
from hekla.platform.control.interface import Again
from hekla.platform.control.mailboxes import BACKOFF_MAX_S
from hekla.platform.control.runtime import ControllerRuntime
from hekla.platform.store.memory import MemoryStore

NAMES = [f"m{number}" for number in range(20)]
ASKED_DELAY_MAX_S = 30.0


class Flaky:
    """Copies each Model's number into its status and its child; fails in every way, until told to be good."""

    name = "flaky"
    kind = "Model"
    watches: tuple[str, ...] = ("Child",)

    def __init__(self, store: MemoryStore, clock: VirtualClock, chance: random.Random) -> None:
        self.store, self.clock, self.chance = store, clock, chance
        self.is_good = False
        self.running: set[Ref] = set()
        self.refused: dict[Ref, int] = {}

    def keys_for(self, obj: Json) -> Iterable[Ref]:
        return [Ref("Model", "default", obj["metadata"]["name"])]

    async def reconcile(self, key: Ref) -> Again | None:
        assert key not in self.running, f"two reconciles of {key} at once"
        self.running.add(key)
        try:
            return await self._step(key)
        finally:
            self.running.discard(key)

    async def _step(self, key: Ref) -> Again | None:
        try:
            model = self.store.get(key)
        except NotFound:
            return None
        self.refused.pop(key, None)
        if self.chance.random() < 0.5:
            await self.clock.sleep(self.chance.random() * 5)
        if not self.is_good:
            self._maybe_fail(key, model)
        self.store.update_status({**model, "status": {"number": model["spec"]["number"]}})
        return Again(self.chance.random() * 100) if self.chance.random() < 0.2 else None

    def _maybe_fail(self, key: Ref, model: Json) -> None:
        draw = self.chance.random()
        if draw < 0.1:
            raise Temporary("later", delay_s=self.chance.random() * ASKED_DELAY_MAX_S)
        if draw < 0.2:
            raise Temporary("busy")
        if draw < 0.3:
            raise Conflict("stale")
        if draw < 0.4:
            self.refused[key] = model["metadata"]["generation"]
            raise Permanent("no")


def change_something(store: MemoryStore, chance: random.Random, number: int) -> None:
    name = chance.choice(NAMES)
    model = {"kind": "Model", "metadata": {"name": name}, "spec": {"number": number}}
    child = {"kind": "Child", "metadata": {"name": name}, "spec": {"number": number}}
    what = chance.random()
    if what < 0.1:
        with suppress(NotFound):
            store.delete(Ref("Model", "default", name))
        return
    obj = model if what < 0.7 else child
    try:
        store.update(obj)
    except NotFound:
        store.create(obj)


@pytest.mark.parametrize("seed", range(8))
async def test_every_change_is_reconciled_in_the_end(seed: int) -> None:
    chance, clock = random.Random(seed), VirtualClock()
    store = MemoryStore(clock, SeededIds(seed))
    flaky = Flaky(store, clock, chance)
    runtime = ControllerRuntime(store, [flaky], clock, SeededIds(seed), workers=4)
    await runtime.start()
    for number in range(300):
        change_something(store, chance, number)
        if chance.random() < 0.05:
            await runtime.stop()
            flaky.refused.clear()
            await runtime.start()
        await clock.advance(chance.random() * 2)
    flaky.is_good = True
    await clock.advance(5 + max(BACKOFF_MAX_S, ASKED_DELAY_MAX_S) + len(NAMES) * 5)
    await settle()
    models = store.list("Model").items
    assert len(models) > len(NAMES) / 2
    for model in models:
        refused_at = flaky.refused.get(Ref("Model", "default", model["metadata"]["name"]))
        if refused_at is None:
            assert model["status"]["number"] == model["spec"]["number"], f"seed {seed}: {model}"
        else:
            assert refused_at == model["metadata"]["generation"], f"seed {seed}: a refused key slept through a change"
    await runtime.stop()
