"""From a request body to a job: prompts in tokens, sampling settled, everything checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hekla.deployments.simengine import structured
from hekla.deployments.simengine.handover import Handover
from hekla.deployments.simengine.models import Models
from hekla.deployments.simengine.refusal import Refusal, too_long
from hekla.deployments.simengine.sequence import EngineRequest
from hekla.deployments.simengine.template import render_chat
from hekla.deployments.simengine.tokens import VOCAB_SIZE, encode, encode_with_specials
from hekla.deployments.simengine.wire import ChatRequest, CompletionRequest, MessagesRequest, ResponsesRequest, Sampling

N_MAX = 128
PROMPTS_MAX = 2048
CHOICES_MAX = 4096
"""Prompts times n."""
STOPS_MAX = 64


@dataclass(slots=True)
class Job:
    """One HTTP request, ready to run."""

    public_id: str
    model: str
    adapter: str
    prompts: list[list[int]]
    sampling: Sampling
    max_tokens: int | None
    """None: as many as fit."""
    planned: tuple[int, ...] = ()
    tool: str = ""
    """Function whose call the answer is; empty: text."""
    tool_named: bool = False
    top_logprobs: int | None = None
    """None: no log-probabilities."""
    stops: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        stop = self.sampling.stop
        self.stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
        if len(self.stops) > STOPS_MAX or "" in self.stops:
            raise Refusal(f"stop: up to {STOPS_MAX} strings, none of them empty", param="stop")

    @property
    def n(self) -> int:
        return self.sampling.n or 1


class Intake:
    """`draw_seed` gives a seed to requests that sample without one; `handover` says how KV is handed over, if it is."""

    def __init__(self, models: Models, draw_seed: Callable[[], int], handover: Handover) -> None:
        self._models = models
        self._draw_seed = draw_seed
        self._handover = handover

    def chat(self, body: ChatRequest, public_id: str) -> Job:
        """Raises Refusal."""
        prompt = render_chat(
            body.messages, body.tools, open_answer=body.add_generation_prompt, continue_last=body.continue_final_message
        )
        limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
        top = (body.top_logprobs or 0) if body.logprobs else None
        tool, named = _forced_tool(body)
        return self._job(public_id, body, [prompt], limit, top_logprobs=top, tool=tool, tool_named=named)

    def completion(self, body: CompletionRequest, public_id: str) -> Job:
        """Raises Refusal."""
        prompts = _prompts(body.prompt)
        return self._job(public_id, body, prompts, body.max_tokens, top_logprobs=body.logprobs)

    def responses(self, body: ResponsesRequest, public_id: str) -> Job:
        """Raises Refusal."""
        items = [{"role": "user", "content": body.input}] if isinstance(body.input, str) else body.input
        if body.instructions:
            items = [{"role": "system", "content": body.instructions}, *items]
        shared = {
            key: getattr(body, key) for key in ("model", "stream", "temperature", "top_p", "priority", "cache_salt")
        }
        sampling = Sampling(**shared, kv_transfer_params=body.kv_transfer_params)
        return self._job(public_id, sampling, [render_chat(items)], body.max_output_tokens)

    def messages(self, body: MessagesRequest, public_id: str) -> Job:
        """Raises Refusal."""
        system = [{"role": "system", "content": body.system}] if body.system else []
        turns = system + body.messages
        prefilled = bool(turns) and turns[-1].get("role") == "assistant"
        shared = {key: getattr(body, key) for key in ("model", "stream", "temperature", "top_p", "cache_salt")}
        sampling = Sampling(**shared, stop=body.stop_sequences, kv_transfer_params=body.kv_transfer_params)
        tools = [{"type": "function", "function": _as_function(tool)} for tool in body.tools or []]
        prompt = render_chat(turns, tools or None, open_answer=not prefilled, continue_last=prefilled)
        tool = _forced_anthropic_tool(body)
        return self._job(public_id, sampling, [prompt], body.max_tokens, tool=tool, tools=tools)

    def _job(
        self,
        public_id: str,
        sampling: Sampling,
        prompts: list[list[int]],
        limit: int | None,
        *,
        top_logprobs: int | None = None,
        tool: str = "",
        tool_named: bool = False,
        tools: list[dict[str, Any]] | None = None,
    ) -> Job:
        model, adapter = self._models.resolve(sampling.model)
        _check_ranges(sampling, limit, top_logprobs)
        tools = tools or getattr(sampling, "tools", None)
        text = _tool_arguments(tools, tool) if tool else _structured_text(sampling)
        planned = tuple(encode(text)) if text is not None else ()
        job = Job(public_id, model, adapter, prompts, sampling, limit, planned, tool, tool_named, top_logprobs)
        if len(prompts) * job.n > CHOICES_MAX:
            raise Refusal(f"n: {len(prompts)} prompts times n={job.n} is above {CHOICES_MAX} choices", param="n")
        for prompt in prompts:
            self._check_length(prompt, limit)
        return job

    def _check_length(self, prompt: list[int], limit: int | None) -> None:
        most = self._models.max_model_len
        if not prompt:
            raise Refusal("prompt: at least one token is needed", param="prompt")
        if len(prompt) >= most:
            raise too_long(most, len(prompt), 0)
        if limit is not None and len(prompt) + limit > most:
            raise too_long(most, len(prompt), limit)

    def engine_requests(self, job: Job, serial: int) -> list[EngineRequest]:
        """One per choice, prompt by prompt; `serial` makes ids unique when a client repeats its own."""
        told = self._handover.told(job.sampling, len(job.prompts[0]))
        sampling = job.sampling
        greedy = sampling.temperature == 0
        requests: list[EngineRequest] = []
        for index in range(len(job.prompts) * job.n):
            prompt = job.prompts[index // job.n]
            choice = index % job.n
            base = 0 if greedy else self._draw_seed() if sampling.seed is None else (sampling.seed & (2**62 - 1)) + 1
            requests.append(
                EngineRequest(
                    f"{job.public_id}-{index}-{serial:08x}",
                    prompt,
                    self._models.max_model_len - len(prompt) if job.max_tokens is None else job.max_tokens,
                    adapter=job.adapter,
                    priority=sampling.priority,
                    cache_salt=sampling.cache_salt or "",
                    seed=base + choice if base else 0,
                    min_tokens=sampling.min_tokens,
                    ignore_eos=sampling.ignore_eos,
                    stop_token_ids=frozenset(sampling.stop_token_ids or ()),
                    planned=job.planned,
                    hold_for_decode=told.holds,
                    held_as=told.held_as,
                    remote=told.remote,
                )
            )
        return requests


def _prompts(prompt: Any) -> list[list[int]]:
    """A text, token ids, or a list of either."""
    if isinstance(prompt, str):
        return [encode_with_specials(prompt)]
    if _is_tokens(prompt):
        return [prompt]
    if isinstance(prompt, list) and 0 < len(prompt) <= PROMPTS_MAX:
        if all(isinstance(item, str) for item in prompt):
            return [encode_with_specials(item) for item in prompt]
        if all(_is_tokens(item) for item in prompt):
            return list(prompt)
    raise Refusal(
        f"prompt: a string, token ids in [0, {VOCAB_SIZE}), or a list of up to {PROMPTS_MAX} of either is needed",
        param="prompt",
    )


def _is_tokens(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(type(item) is int for item in value) and min(value) >= 0 and max(value) < VOCAB_SIZE


def _check_ranges(sampling: Sampling, limit: int | None, top_logprobs: int | None) -> None:
    def refuse_unless(holds: bool, name: str, value: Any, allowed: str) -> None:
        if not holds:
            raise Refusal(f"{name} must be {allowed}, got {value}.", param=name)

    n, temperature, top_p = sampling.n, sampling.temperature, sampling.top_p
    refuse_unless(n is None or 1 <= n <= N_MAX, "n", n, f"in [1, {N_MAX}]")
    refuse_unless(n is None or n == 1 or temperature != 0, "n", n, "1 when using greedy sampling")
    refuse_unless(limit is None or limit >= 1, "max_tokens", limit, "at least 1")
    refuse_unless(temperature is None or temperature >= 0, "temperature", temperature, "non-negative")
    refuse_unless(top_p is None or 0 < top_p <= 1, "top_p", top_p, "in (0, 1]")
    refuse_unless(sampling.min_tokens >= 0, "min_tokens", sampling.min_tokens, "non-negative")
    fits = limit is None or sampling.min_tokens <= limit
    refuse_unless(fits, "min_tokens", sampling.min_tokens, f"at most max_tokens={limit}")
    refuse_unless(top_logprobs is None or 0 <= top_logprobs <= 20, "top_logprobs", top_logprobs, "in [0, 20]")
    if sampling.stream_options is not None and not sampling.stream:
        raise Refusal("Stream options can only be defined when `stream=True`.", param="stream_options")


def _structured_text(sampling: Sampling) -> str | None:
    seed = sampling.seed or 0
    try:
        text = structured.from_response_format(sampling.response_format, seed)
        return structured.from_structured_outputs(sampling.structured_outputs, seed) if text is None else text
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise Refusal(f"response_format: this is not a JSON schema: {error!r}", param="response_format") from error


def _functions(tools: list[dict[str, Any]] | None) -> dict[str, dict[str, Any]]:
    found = [tool.get("function") for tool in tools or []]
    return {str(item["name"]): item for item in found if isinstance(item, dict) and "name" in item}


def _forced_tool(body: ChatRequest) -> tuple[str, bool]:
    """(function the choice forces or empty, whether by name)."""
    choice, known = body.tool_choice, _functions(body.tools)
    if choice in (None, "none", "auto"):
        return "", False
    if choice == "required" and known:
        return next(iter(known)), False
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or name not in known:
        raise Refusal(
            f"tool_choice: {choice!r} is not none, auto, required or one of the tools {sorted(known)}",
            param="tool_choice",
        )
    return name, True


def _as_function(tool: dict[str, Any]) -> dict[str, Any]:
    return {"name": tool.get("name", ""), "parameters": tool.get("input_schema", {})}


def _forced_anthropic_tool(body: MessagesRequest) -> str:
    choice, names = body.tool_choice or {}, [str(tool.get("name", "")) for tool in body.tools or []]
    if choice.get("type") not in ("any", "tool"):
        return ""
    name = choice.get("name", names[0] if names else "")
    if name not in names:
        raise Refusal(f"tool_choice.name: {name!r} is not one of the tools {names}", param="tool_choice")
    return str(name)


def _tool_arguments(tools: list[dict[str, Any]] | None, name: str) -> str:
    schema = _functions(tools)[name].get("parameters") or {"type": "object", "properties": {}}
    try:
        return structured.json_text(schema, 0)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise Refusal(f"tools: the parameters of {name!r} are not a JSON schema: {error!r}", param="tools") from error
