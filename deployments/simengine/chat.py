"""`/v1/chat/completions`: the shapes of its answer and of its stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from hekla.deployments.simengine.answer import Answer
from hekla.deployments.simengine.generation import Delta, Generation
from hekla.deployments.simengine.tokens import decode, token_bytes

Shape = dict[str, Any]


def logprob_of(token: int, value: float, top: int) -> Shape:
    text = decode((token,), keep_specials=True)
    entry: Shape = {"token": text, "logprob": value, "bytes": list(token_bytes(token))}
    return entry | {"top_logprobs": [dict(entry)] if top else []}


def _logprobs(answer: Answer, first: int, top: int | None) -> Shape | None:
    if top is None:
        return None
    pairs = zip(answer.tokens[first:], answer.logprobs[first:], strict=True)
    return {"content": [logprob_of(token, value, top) for token, value in pairs]}


def _finish(answer: Answer, generation: Generation) -> str | None:
    called = generation.job.tool and not generation.job.tool_named and answer.finish == "stop"
    return "tool_calls" if called else answer.finish


def _tool_call(generation: Generation, answer: Answer, arguments: str) -> Shape:
    identity = f"call_{generation.job.public_id.removeprefix('chatcmpl-')}{answer.index}"
    return {"id": identity, "type": "function", "function": {"name": generation.job.tool, "arguments": arguments}}


def full(generation: Generation, created: int) -> Shape:
    job = generation.job
    choices: list[Shape] = []
    for answer in generation.answers:
        message: Shape = {"role": "assistant", "content": answer.text, "refusal": None, "tool_calls": []}
        if job.tool:
            message |= {"content": None, "tool_calls": [_tool_call(generation, answer, answer.text)]}
        choices.append(
            {
                "index": answer.index,
                "message": message,
                "logprobs": _logprobs(answer, 0, job.top_logprobs),
                "finish_reason": _finish(answer, generation),
                "stop_reason": answer.stop_reason,
                "token_ids": answer.tokens if job.sampling.return_token_ids else None,
            }
        )
    return {
        "id": job.public_id,
        "object": "chat.completion",
        "created": created,
        "model": job.model,
        "choices": choices,
        "usage": generation.usage,
        "prompt_token_ids": job.prompts[0] if job.sampling.return_token_ids else None,
        "kv_transfer_params": generation.answers[0].kv_transfer_params,
    }


async def stream(generation: Generation, created: int) -> AsyncIterator[Shape]:
    """The chunks, without the closing [DONE]."""
    job = generation.job
    options = job.sampling.stream_options
    continuous = options is not None and bool(options.continuous_usage_stats)
    head: Shape = {"id": job.public_id, "object": "chat.completion.chunk", "created": created, "model": job.model}
    opened: set[int] = set()
    async for batch in generation.deltas():
        for delta in batch:
            if delta.answer.index not in opened:
                opened.add(delta.answer.index)
                ids = delta.answer.prompt if job.sampling.return_token_ids else None
                yield head | {"choices": [_first_choice(generation, delta)], "prompt_token_ids": ids}
            if delta.text or delta.answer.finish or job.top_logprobs is not None or job.sampling.return_token_ids:
                chunk = head | {"choices": [_choice(generation, delta)]}
                if continuous:
                    chunk["usage"] = generation.usage
                yield chunk
    if options is not None and options.include_usage:
        yield head | {"choices": [], "usage": generation.usage}


def _first_choice(generation: Generation, delta: Delta) -> Shape:
    opening: Shape = {"role": "assistant", "content": "" if not generation.job.tool else None}
    if generation.job.tool:
        opening["tool_calls"] = [{"index": 0, **_tool_call(generation, delta.answer, "")}]
    return {"index": delta.answer.index, "delta": opening, "logprobs": None, "finish_reason": None}


def _choice(generation: Generation, delta: Delta) -> Shape:
    job, answer = generation.job, delta.answer
    gained: Shape = {"content": delta.text}
    if job.tool:
        gained = {"tool_calls": [{"index": 0, "function": {"arguments": delta.text}}]}
    shape: Shape = {
        "index": answer.index,
        "delta": gained,
        "logprobs": _logprobs(answer, delta.first_token, job.top_logprobs),
        "finish_reason": _finish(answer, generation),
        "token_ids": answer.tokens[delta.first_token :] if job.sampling.return_token_ids else None,
    }
    if answer.finish is not None:
        shape["stop_reason"] = answer.stop_reason
    return shape
