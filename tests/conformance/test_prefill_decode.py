"""Prefill and decode in two real vLLM engines, KV blocks moved by NIXL."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest

from hekla.platform.sdk import Client

pytestmark = [pytest.mark.vllm, pytest.mark.ray, pytest.mark.timeout(420)]

WORDS = (
    *("river", "mountain", "copper", "violin", "harvest", "lantern", "orchard", "meadow"),
    *("thunder", "canvas", "pepper", "harbor", "marble", "winter", "candle", "forest"),
)


def prompt_of(tokens: int, seed: int) -> str:
    """About `tokens` tokens of text that shares no prefix with another seed's."""
    words = [f"{WORDS[(seed * 7 + i * (seed + 3)) % len(WORDS)]}" for i in range(tokens - 8)]
    return f"{seed}: " + " ".join(words)


def metric(address: str, name: str) -> float:
    """Sum of a counter over its label sets, as the engine itself shows it."""
    lines = httpx.get(f"{address}/metrics", timeout=30).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " ")))


def complete(url: str, model: str, prompt: str, max_tokens: int = 12) -> Any:
    body = {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": max_tokens}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()


def first_token_s(url: str, model: str, prompt: str) -> float:
    """Seconds from sending to the first streamed token."""
    body = {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 2, "stream": True}
    began = time.perf_counter()
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=120) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"]:
                return time.perf_counter() - began
    raise AssertionError("no token came")


def decode_first_token_s(address: str) -> tuple[float, float]:
    """(sum in seconds, count) of the engine's own time-to-first-token histogram."""
    name = "vllm:time_to_first_token_seconds"
    return metric(address, f"{name}_sum"), metric(address, f"{name}_count")


def test_every_request_moves_its_kv_and_answers_as_one_engine_would(
    vllm_pair: Any, vllm_together: dict[str, Any]
) -> None:
    for prompt, together in vllm_together.items():
        hits = metric(vllm_pair.decode, "vllm:external_prefix_cache_hits_total")
        apart = complete(vllm_pair.ingress, vllm_pair.name, prompt)
        assert apart["choices"][0]["text"] == together["choices"][0]["text"]
        assert apart["usage"]["prompt_tokens"] == together["usage"]["prompt_tokens"]
        moved = metric(vllm_pair.decode, "vllm:external_prefix_cache_hits_total") - hits
        assert moved >= 0.9 * apart["usage"]["prompt_tokens"]
    assert len(vllm_together) == 4
    assert metric(vllm_pair.decode, "vllm:nixl_num_failed_transfers_total") == 0


def test_a_streamed_answer_comes_from_the_decode_engine(vllm_pair: Any) -> None:
    generated = metric(vllm_pair.decode, "vllm:generation_tokens_total")
    client = Client(vllm_pair.ingress).openai()
    stream = client.chat.completions.create(
        model=vllm_pair.name,
        messages=[{"role": "user", "content": "Count from one to five."}],
        temperature=0,
        max_completion_tokens=16,
        stream=True,
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert metric(vllm_pair.decode, "vllm:generation_tokens_total") - generated >= 15


def test_decode_starts_at_least_five_times_sooner_than_if_it_prefilled_itself(vllm_pair: Any) -> None:
    """The decode engine's own histogram, so that the prefill's time is not in it. A ratio, not a wall-clock bound."""
    ratios = []
    for seed in (101, 102, 103):
        prompt, other = prompt_of(1500, seed), prompt_of(1500, seed + 100)
        total, count = decode_first_token_s(vllm_pair.decode)
        complete(vllm_pair.ingress, vllm_pair.name, prompt, max_tokens=2)
        handed, handed_count = decode_first_token_s(vllm_pair.decode)
        first_token_s(vllm_pair.decode, vllm_pair.engine_model, other)
        alone, alone_count = decode_first_token_s(vllm_pair.decode)
        assert (handed_count - count, alone_count - handed_count) == (1, 1)
        ratios.append((alone - handed) / (handed - total))
    assert sorted(ratios)[1] >= 5, ratios
