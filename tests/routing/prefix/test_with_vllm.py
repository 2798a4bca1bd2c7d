"""Real vLLM tokenises a prompt exactly as we do from its model's folder, and its KV events name the blocks we look for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SeededIds
from hekla.routing.backend import ModelServer, backend_of
from hekla.routing.body import Body
from hekla.routing.config import RoutingSettings
from hekla.routing.prefix.engine_facts import HttpEngineFacts
from hekla.routing.prefix.service import PrefixService
from hekla.routing.prefix.settings import PrefixSettings, TokeniserSettings
from hekla.routing.prefix.vocabulary import PieceCache, Vocabulary
from hekla.routing.upstream import Upstream
from hekla.routing.view import LazyView

CHATS = [
    [{"role": "user", "content": "Where is the river?"}],
    [{"role": "system", "content": "Answer  briefly.\n"}, {"role": "user", "content": "é 🙂 12345 <|im_end|> don't"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c" * 500}],
]


@pytest.mark.vllm
@pytest.mark.ray
@pytest.mark.timeout(300)
def test_prompts_have_the_tokens_that_vllm_gives_them(live: Any, vllm_model: Any) -> None:
    # Where it is now: another test may have had it replaced since the model came up.
    engine = live.engines_of("quickstart")[0]["status"]["address"]
    (card,) = [c for c in httpx.get(f"{engine}/v1/models").json()["data"] if not c.get("parent")]
    vocabulary = Vocabulary(Path(card["root"]), PieceCache(2**20))

    def asked(**question: Any) -> list[int]:
        answer = httpx.post(f"{engine}/tokenize", json={"model": card["id"], **question}, timeout=60)
        return list(answer.json()["tokens"])

    for messages in CHATS:
        assert list(vocabulary.chat(messages)) == asked(messages=messages)
        assert list(vocabulary.text(messages[-1]["content"])) == asked(prompt=messages[-1]["content"])


@pytest.mark.vllm
@pytest.mark.ray
@pytest.mark.timeout(300)
async def test_what_vllm_cached_before_anybody_listened_is_found_again_block_by_block(
    live: Any, vllm_model: Any, lab: Any
) -> None:
    """Without a word in the manifest: events are on, with a replay endpoint, and both are in the engine's status."""
    (made,) = live.engines_of("quickstart")
    assert made["status"]["kvEvents"] and made["status"]["kvReplay"]
    backend = backend_of(made)
    assert backend is not None
    messages = [{"role": "user", "content": "The quick brown fox jumps over the lazy dog. " * 60}]
    asked = {"model": vllm_model.name, "messages": messages, "max_tokens": 1}
    answer = await asyncio.to_thread(httpx.post, f"{backend.url}/v1/chat/completions", json=asked, timeout=120)
    prompt_tokens = answer.json()["usage"]["prompt_tokens"]
    upstream = Upstream(RoutingSettings().upstream)
    await upstream.start()
    settings = PrefixSettings(tokeniser=TokeniserSettings(deadline_s=60, engines_min=1))
    service = PrefixService(settings, HttpEngineFacts(upstream), clock=SystemClock(), ids=SeededIds(1))
    await service.start()
    try:
        service.took_engines([backend])
        async with asyncio.timeout(60):
            while backend.key not in service.exact.complete:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        body = Body.parse(json.dumps(asked).encode())
        view = LazyView(body, "/v1/chat/completions", [], model=vllm_model.name, chance=lambda: 0.0)
        await service.prepare(view, ModelServer(("default", "s"), vllm_model.name, "vLLM", (backend,)))
        assert view.token_ids is not None and len(view.token_ids) == prompt_tokens
        match = service.exact.match(view, lab.candidates(backend.key))
        assert match.blocks == [match.blocks_total] and match.blocks_total > 0
    finally:
        await service.stop()
        await upstream.stop()
