"""`/v1/completions`: the shapes of its answer and of its stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from hekla.deployments.simengine.answer import Answer
from hekla.deployments.simengine.generation import Generation
from hekla.deployments.simengine.tokens import decode

Shape = dict[str, Any]


def _logprobs(answer: Answer, first: int, top: int | None, offset: int) -> Shape | None:
    if top is None:
        return None
    tokens = [decode((token,), keep_specials=True) for token in answer.tokens[first:]]
    values = answer.logprobs[first:]
    offsets: list[int] = []
    for text in tokens:
        offsets.append(offset)
        offset += len(text)
    tops = [{text: value} if top else None for text, value in zip(tokens, values, strict=True)]
    return {"text_offset": offsets, "token_logprobs": values, "tokens": tokens, "top_logprobs": tops}


def _echo(generation: Generation, answer: Answer) -> str:
    return decode(answer.prompt, keep_specials=True) if generation.job.sampling.echo else ""


def full(generation: Generation, created: int) -> Shape:
    job = generation.job
    choices = [
        {
            "index": answer.index,
            "text": _echo(generation, answer) + answer.text,
            "logprobs": _logprobs(answer, 0, job.top_logprobs, len(_echo(generation, answer))),
            "finish_reason": answer.finish,
            "stop_reason": answer.stop_reason,
            "token_ids": answer.tokens if job.sampling.return_token_ids else None,
            "prompt_token_ids": answer.prompt if job.sampling.return_token_ids else None,
        }
        for answer in generation.answers
    ]
    return {
        "id": job.public_id,
        "object": "text_completion",
        "created": created,
        "model": job.model,
        "choices": choices,
        "usage": generation.usage,
        "kv_transfer_params": generation.answers[0].kv_transfer_params,
    }


async def stream(generation: Generation, created: int) -> AsyncIterator[Shape]:
    """The chunks, without the closing [DONE]."""
    job = generation.job
    options = job.sampling.stream_options
    continuous = options is not None and bool(options.continuous_usage_stats)
    head: Shape = {"id": job.public_id, "object": "text_completion", "created": created, "model": job.model}
    async for batch in generation.deltas():
        for delta in batch:
            answer, text = delta.answer, delta.text
            if delta.first_token == 0:
                text = _echo(generation, answer) + text
            if not (text or answer.finish or job.top_logprobs is not None or job.sampling.return_token_ids):
                continue
            choice: Shape = {
                "index": answer.index,
                "text": text,
                "logprobs": _logprobs(answer, delta.first_token, job.top_logprobs, answer.shown - len(delta.text)),
                "finish_reason": answer.finish,
                "stop_reason": answer.stop_reason,
                "prompt_token_ids": answer.prompt if job.sampling.return_token_ids and delta.first_token == 0 else None,
                "token_ids": answer.tokens[delta.first_token :] if job.sampling.return_token_ids else None,
            }
            chunk = head | {"choices": [choice]}
            if continuous:
                chunk["usage"] = generation.usage
            yield chunk
    if options is not None and options.include_usage:
        yield head | {"choices": [], "usage": generation.usage}
