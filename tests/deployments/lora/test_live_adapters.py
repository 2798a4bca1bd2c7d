"""Adapters come, move and go on a live platform while requests for them are under way: none fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from hekla.platform.base.tasks import TaskOwner

pytestmark = [pytest.mark.ray, pytest.mark.timeout(420)]

NAME = "lora-live"
TOKENS = 40


def booster(simulated: Callable[..., Any], *adapters: str) -> dict[str, Any]:
    """Two engines of one slot each; a request takes about half a second."""
    made: dict[str, Any] = simulated(
        NAME, replicas=2, config={"max-loras": "1", "max-model-len": "2048", "time-scale": "0.5"}
    )
    made["spec"]["backend"]["loraAdapters"] = [{"name": name, "uri": f"/adapters/{name}"} for name in adapters]
    return made


class Load:
    """Keeps one streamed request under way for each model it is told of; all that goes wrong is kept."""

    def __init__(self, endpoint: str) -> None:
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self._client = httpx.AsyncClient(base_url=endpoint, timeout=90)
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._tasks = TaskOwner("load")
        self._stopping: set[str] = set()

    def ask(self, *models: str) -> None:
        self._stopping -= set(models)
        for model in models:
            self._asked[model] = self._tasks.spawn(self._ask_on(model), model)

    async def stop(self, *models: str) -> None:
        """Start no more requests; those under way are finished."""
        chosen = models or tuple(self._asked)
        self._stopping |= set(chosen)
        await asyncio.gather(*(self._asked.pop(model) for model in chosen))

    def no_more(self, model: str) -> None:
        self._stopping.add(model)

    async def until_done(self, model: str, more: int) -> None:
        wanted = self.done[model] + more
        async with asyncio.timeout(90):
            while self.done[model] < wanted:
                assert not self.failures, self.failures
                await asyncio.sleep(0.05)

    async def _ask_on(self, model: str) -> None:
        while model not in self._stopping:
            await self._once(model)

    async def _once(self, model: str) -> None:
        body = {"model": model, "prompt": "tell me", "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
        try:
            async with self._client.stream("POST", "/v1/completions", json=body) as answer:
                text = (await answer.aread()).decode()
                events = [line for line in text.splitlines() if line.startswith("data: {")]
                is_whole = answer.status_code == 200 and text.rstrip().endswith("[DONE]") and "error" not in text
                if is_whole and len(events) >= TOKENS:
                    self.done[model] += 1
                else:
                    self.failures.append(f"{model}: {answer.status_code} {len(events)} events, {text[-300:]}")
        except httpx.HTTPError as error:
            self.failures.append(f"{model}: {error!r}")

    async def post(self, **body: str) -> httpx.Response:
        return await self._client.post("/v1/completions", json=body)

    async def close(self) -> None:
        await self._tasks.stop()
        await self._client.aclose()


async def test_adapters_are_added_moved_and_removed_under_load_without_a_failed_request(
    live: Any, simulated: Callable[..., Any]
) -> None:
    load = Load(live.endpoint)
    try:
        await asyncio.to_thread(live.client.apply, [booster(simulated, "lora-a")])
        await asyncio.to_thread(live.client.wait_ready, "ModelBooster", NAME, timeout_s=90)
        await asyncio.to_thread(live.until, lambda: "lora-a" in live.model_names(), "the adapter is offered")
        pids = sorted(engine["status"]["pid"] for engine in live.engines_of(NAME))
        load.ask(NAME, "lora-a")
        await load.until_done("lora-a", 3)

        # Added, and more than there are slots: from now on they take turns.
        await asyncio.to_thread(live.client.apply, [booster(simulated, "lora-a", "lora-b", "lora-c")])
        await asyncio.to_thread(live.until, lambda: "lora-c" in live.model_names(), "the adapters are offered")
        load.ask("lora-b", "lora-c")
        for model in ("lora-b", "lora-c", "lora-a", NAME):
            await load.until_done(model, 2)

        # Removed while its last request is under way; without lora-c there is a slot for each.
        await load.stop("lora-c")
        for model in ("lora-a", "lora-b", "lora-a", "lora-b"):
            await load.until_done(model, 2)
        load.no_more("lora-b")
        await asyncio.to_thread(live.client.apply, [booster(simulated, "lora-a", "lora-c")])
        await load.stop("lora-b")
        await asyncio.to_thread(
            live.until, lambda: "lora-b" not in live.model_names(), "the adapter is offered no more"
        )
        load.ask("lora-c")
        for model in ("lora-c", "lora-a"):
            await load.until_done(model, 2)
        await load.stop()
        assert load.failures == []
        assert sorted(engine["status"]["pid"] for engine in live.engines_of(NAME)) == pids, "no engine has restarted"
        held = [one["name"] for engine in live.engines_of(NAME) for one in engine["status"]["adapters"]]
        assert "lora-b" not in held
        answer = await load.post(model="lora-b", prompt="x")
        assert answer.status_code == 404
    finally:
        await load.close()
        await asyncio.to_thread(live.client.delete, "ModelBooster", NAME)
