"""The ordinary `openai` client against real vLLM: through the ingress, and against the engine itself.

Every test runs on both; what the model answers at temperature 0 must be the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI

pytestmark = [pytest.mark.vllm, pytest.mark.ray, pytest.mark.timeout(300)]

QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(params=["ingress", "engine"])
def client(request: pytest.FixtureRequest, vllm_model: Any) -> OpenAI:
    return OpenAI(base_url=f"{getattr(vllm_model, request.param)}/v1", api_key="none", max_retries=0, timeout=120)


@pytest.fixture(scope="session")
def same_everywhere() -> Callable[[str, object], None]:
    """Remembers the first answer to each question and holds every later one against it."""
    answers: dict[str, object] = {}

    def check(question: str, answer: object) -> None:
        assert answers.setdefault(question, answer) == answer

    return check


def test_a_chat_is_answered_and_counted(client: OpenAI, vllm_model: Any, same_everywhere: Any) -> None:
    answer = client.chat.completions.create(
        model=vllm_model.name, messages=QUESTION, temperature=0, max_completion_tokens=24
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 10
    assert 0 < answer.usage.completion_tokens <= 24
    same_everywhere("chat", answer.choices[0].message.content)


def test_a_streamed_chat_ends_with_usage_when_asked(client: OpenAI, vllm_model: Any, same_everywhere: Any) -> None:
    stream = client.chat.completions.create(
        model=vllm_model.name,
        messages=QUESTION,
        temperature=0,
        max_completion_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "Paris" in text
    assert len(chunks) > 5
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0
    same_everywhere("chat", text)


def test_a_streamed_chat_without_the_wish_shows_no_usage(client: OpenAI, vllm_model: Any) -> None:
    stream = client.chat.completions.create(
        model=vllm_model.name, messages=QUESTION, temperature=0, max_completion_tokens=8, stream=True
    )
    chunks = list(stream)
    assert all(chunk.choices for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)


def test_a_completion_continues_the_prompt(client: OpenAI, vllm_model: Any, same_everywhere: Any) -> None:
    answer = client.completions.create(
        model=vllm_model.name, prompt="One, two, three, four,", temperature=0, max_tokens=12
    )
    assert "five" in answer.choices[0].text
    same_everywhere("completion", answer.choices[0].text)


def test_two_choices_are_two_choices(client: OpenAI, vllm_model: Any) -> None:
    answer = client.chat.completions.create(
        model=vllm_model.name, messages=QUESTION, n=2, temperature=0.9, max_completion_tokens=8
    )
    assert [choice.index for choice in answer.choices] == [0, 1]


def test_logprobs_come_with_their_alternatives(client: OpenAI, vllm_model: Any, same_everywhere: Any) -> None:
    answer = client.chat.completions.create(
        model=vllm_model.name, messages=QUESTION, temperature=0, max_completion_tokens=4, logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert len(logprobs.content) == 4
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in logprobs.content)
    same_everywhere("logprobs", [token.token for token in logprobs.content])


def test_a_stop_string_ends_the_answer_before_it(client: OpenAI, vllm_model: Any, same_everywhere: Any) -> None:
    answer = client.completions.create(
        model=vllm_model.name, prompt="One, two, three, four,", temperature=0, max_tokens=40, stop=["seven"]
    )
    assert answer.choices[0].finish_reason == "stop"
    assert "seven" not in answer.choices[0].text
    same_everywhere("stop", answer.choices[0].text)


def test_the_same_seed_gives_the_same_answer(client: OpenAI, vllm_model: Any, same_everywhere: Any) -> None:
    def answer(seed: int) -> str:
        return client.completions.create(
            model=vllm_model.name, prompt="Once upon a time", temperature=1.0, seed=seed, max_tokens=16
        ).choices[0].text  # fmt: skip

    assert answer(7) == answer(7)
    assert len({answer(seed) for seed in range(4)}) > 1
    same_everywhere("seed", answer(7))


def test_a_named_tool_is_called_with_arguments_in_json(client: OpenAI, vllm_model: Any, same_everywhere: Any) -> None:
    """vLLM 0.32 does not hold a named tool's arguments to their schema, so what they are is the model's affair."""
    answer = client.chat.completions.create(
        model=vllm_model.name,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        temperature=0,
        max_completion_tokens=64,
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    assert "Paris" in str(json.loads(call.function.arguments))
    same_everywhere("tool", call.function.arguments)


def test_a_json_schema_binds_the_answer(client: OpenAI, vllm_model: Any, same_everywhere: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 12}, "sure": {"type": "boolean"}},
        "required": ["capital", "sure"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=vllm_model.name,
        messages=QUESTION,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
        temperature=0,
        max_completion_tokens=64,
    )
    content = json.loads(answer.choices[0].message.content or "")
    assert set(content) == {"capital", "sure"}
    same_everywhere("json", content)


def test_embeddings_of_a_generation_model_are_refused_as_the_engine_refuses_them(
    client: OpenAI, vllm_model: Any, same_everywhere: Any
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.embeddings.create(model=vllm_model.name, input="hello")
    assert 400 <= refused.value.status_code < 500
    same_everywhere("embeddings", refused.value.status_code)


def test_the_model_is_listed(client: OpenAI, vllm_model: Any) -> None:
    assert vllm_model.name in [model.id for model in client.models.list()]


def test_a_bad_parameter_is_a_bad_request_with_the_engines_words(
    client: OpenAI, vllm_model: Any, same_everywhere: Any
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=vllm_model.name, messages=QUESTION, temperature=-1)
    assert "temperature" in str(refused.value)
    same_everywhere("bad request", refused.value.body)


def test_a_prompt_longer_than_the_context_is_a_bad_request(
    client: OpenAI, vllm_model: Any, same_everywhere: Any
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=vllm_model.name, prompt="word " * 6000, max_tokens=4)
    assert "context length" in str(refused.value)
    same_everywhere("too long", refused.value.status_code)


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=QUESTION)
