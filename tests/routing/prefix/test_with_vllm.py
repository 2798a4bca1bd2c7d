"""Real vLLM tokenises a prompt exactly as we do from its model's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from hekla.routing.prefix.vocabulary import PieceCache, Vocabulary

CHATS = [
    [{"role": "user", "content": "Where is the river?"}],
    [{"role": "system", "content": "Answer  briefly.\n"}, {"role": "user", "content": "é 🙂 12345 <|im_end|> don't"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c" * 500}],
]


@pytest.mark.vllm
@pytest.mark.ray
def test_prompts_have_the_tokens_that_vllm_gives_them(vllm_model: Any) -> None:
    (card,) = [c for c in httpx.get(f"{vllm_model.engine}/v1/models").json()["data"] if not c.get("parent")]
    vocabulary = Vocabulary(Path(card["root"]), PieceCache(2**20))

    def asked(**question: Any) -> list[int]:
        answer = httpx.post(f"{vllm_model.engine}/tokenize", json={"model": card["id"], **question}, timeout=60)
        return list(answer.json()["tokens"])

    for messages in CHATS:
        assert list(vocabulary.chat(messages)) == asked(messages=messages)
        assert list(vocabulary.text(messages[-1]["content"])) == asked(prompt=messages[-1]["content"])
