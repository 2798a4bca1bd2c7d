"""`/v1/messages`: Anthropic's shapes, whole or as typed events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from hekla.deployments.simengine.answer import Answer
from hekla.deployments.simengine.generation import Generation

Shape = dict[str, Any]


def _usage(answer: Answer) -> Shape:
    """Cached tokens are not input tokens here."""
    return {
        "input_tokens": len(answer.prompt) - answer.cached_tokens,
        "output_tokens": len(answer.tokens),
        "cache_read_input_tokens": answer.cached_tokens,
    }


def _stop(generation: Generation) -> Shape:
    answer = generation.answers[0]
    if isinstance(answer.stop_reason, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": answer.stop_reason}
    if answer.finish == "length":
        return {"stop_reason": "max_tokens", "stop_sequence": None}
    return {"stop_reason": "tool_use" if generation.job.tool else "end_turn", "stop_sequence": None}


def _tool_block(generation: Generation, arguments: Any) -> Shape:
    identity = f"toolu_{generation.job.public_id.removeprefix('msg_')}"
    return {"type": "tool_use", "id": identity, "name": generation.job.tool, "input": arguments}


def full(generation: Generation, created: int) -> Shape:
    answer = generation.answers[0]
    block: Shape = {"type": "text", "text": answer.text}
    if generation.job.tool:
        try:
            block = _tool_block(generation, msgspec.json.decode(answer.text))
        except msgspec.DecodeError:  # cut short by max_tokens: not JSON yet
            block = {"type": "text", "text": answer.text}
    return {
        "id": generation.job.public_id,
        "type": "message",
        "role": "assistant",
        "model": generation.job.model,
        "content": [block],
        **_stop(generation),
        "usage": _usage(answer),
        "kv_transfer_params": answer.kv_transfer_params,
    }


async def stream(generation: Generation, created: int) -> AsyncIterator[tuple[str, Shape]]:
    """(event name, data) pairs."""
    answer, tool = generation.answers[0], generation.job.tool
    start = {"id": generation.job.public_id, "type": "message", "role": "assistant", "model": generation.job.model}
    nothing_yet: Shape = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": _usage(answer)}
    yield "message_start", {"type": "message_start", "message": start | nothing_yet}
    block = _tool_block(generation, {}) if tool else {"type": "text", "text": ""}
    yield "content_block_start", {"type": "content_block_start", "index": 0, "content_block": block}
    async for batch in generation.deltas():
        for delta in batch:
            if not delta.text:
                continue
            gained = (
                {"type": "input_json_delta", "partial_json": delta.text}
                if tool
                else {"type": "text_delta", "text": delta.text}
            )
            yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": gained}
    yield "content_block_stop", {"type": "content_block_stop", "index": 0}
    yield "message_delta", {"type": "message_delta", "delta": _stop(generation), "usage": _usage(answer)}
    yield "message_stop", {"type": "message_stop"}
