"""`/v1/responses`: one message of text, whole or as OpenAI's typed events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from hekla.deployments.simengine.generation import Generation

Shape = dict[str, Any]


def _part(text: str) -> Shape:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": None}


def _item(generation: Generation, text: str, status: str) -> Shape:
    content = [_part(text)] if status != "in_progress" else []
    identity = f"msg_{generation.job.public_id.removeprefix('resp_')}"
    return {"id": identity, "type": "message", "role": "assistant", "status": status, "content": content}


def full(generation: Generation, created: int, *, started_only: bool = False) -> Shape:
    job, answer = generation.job, generation.answers[0]
    cut = answer.finish == "length"
    status = "in_progress" if started_only else "incomplete" if cut else "completed"
    usage = None
    if not started_only:
        usage = {
            "input_tokens": len(answer.prompt),
            "input_tokens_details": {"cached_tokens": answer.cached_tokens},
            "output_tokens": len(answer.tokens),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": len(answer.prompt) + len(answer.tokens),
        }
    return {
        "id": job.public_id,
        "object": "response",
        "created_at": created,
        "status": status,
        "model": job.model,
        "output": [] if started_only else [_item(generation, answer.text, status)],
        "incomplete_details": {"reason": "max_output_tokens"} if cut and not started_only else None,
        "usage": usage,
        "error": None,
        "instructions": None,
        "metadata": None,
        "parallel_tool_calls": True,
        "temperature": job.sampling.temperature,
        "top_p": job.sampling.top_p,
        "tool_choice": "auto",
        "tools": [],
        "max_output_tokens": job.max_tokens,
    }


async def stream(generation: Generation, created: int) -> AsyncIterator[tuple[str, Shape]]:
    """(event name, data) pairs, numbered in order."""
    number = 0

    def event(kind: str, **data: Any) -> tuple[str, Shape]:
        nonlocal number
        number += 1
        return kind, {"type": kind, "sequence_number": number - 1, **data}

    answer = generation.answers[0]
    item = _item(generation, "", "in_progress")
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    yield event("response.created", response=full(generation, created, started_only=True))
    yield event("response.in_progress", response=full(generation, created, started_only=True))
    yield event("response.output_item.added", output_index=0, item=item)
    yield event("response.content_part.added", **place, part=_part(""))
    async for batch in generation.deltas():
        for delta in batch:
            if delta.text:
                yield event("response.output_text.delta", **place, delta=delta.text, logprobs=[])
    yield event("response.output_text.done", **place, text=answer.text, logprobs=[])
    yield event("response.content_part.done", **place, part=_part(answer.text))
    yield event("response.output_item.done", output_index=0, item=_item(generation, answer.text, "completed"))
    last = "response.incomplete" if answer.finish == "length" else "response.completed"
    yield event(last, response=full(generation, created))
