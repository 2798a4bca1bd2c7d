"""Bad bodies get the status and the message the API or the engine would give: never a 500, never a hang."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def model(live: Any) -> Iterator[Any]:
    with live.serving("bad-requests", replicas=1, config={"max-model-len": "256"}) as served:
        yield served


def post(live: Any, content: bytes, path: str = "/v1/chat/completions") -> httpx.Response:
    headers = {"content-type": "application/json"}
    return httpx.post(f"{live.endpoint}{path}", content=content, headers=headers, timeout=30)


CHAT = b'{"model": "%s", "messages": %s%s}'


@pytest.mark.parametrize(
    "content", [b"", b"{", b"not json", b'{"model": "m"} trailing', b"[1, 2]", b"\xff\xfe", b"null"]
)
def test_a_body_that_is_not_a_json_object_is_a_bad_request(live: Any, model: Any, content: bytes) -> None:
    answer = post(live, content)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_a_body_over_the_limit_is_refused_and_the_limit_is_named(live: Any, model: Any) -> None:
    answer = post(live, b'{"model": "m", "prompt": "' + b"x" * (33 * 2**20) + b'"}', "/v1/completions")
    assert answer.status_code == 413
    assert str(32 * 2**20) in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["nobody", "", None, 5, ["a"], "bad-requests\n"])
def test_an_unknown_or_malformed_model_name_is_not_found(live: Any, model: Any, name: Any) -> None:
    body = {"model": name, "messages": [{"role": "user", "content": "hi"}]}
    answer = httpx.post(f"{live.endpoint}/v1/chat/completions", json=body, timeout=30)
    assert answer.status_code == 404
    assert "model" in answer.json()["error"]["message"]


@pytest.mark.parametrize("field", [
    {"messages": "hello"}, {"messages": [1]}, {"messages": []}, {"max_tokens": "many"}, {"temperature": "hot"},
    {"temperature": -1}, {"n": 0}, {"stop": 5}, {"stream": "maybe"}, {"logprobs": {"a": 1}}, {"stream_options": 7},
    {"messages": [{"role": "user", "content": {"a": 1}}]},
])  # fmt: skip
def test_a_wrong_type_gets_the_engines_own_refusal(live: Any, model: Any, field: dict[str, Any]) -> None:
    body = {"model": model.model, "messages": [{"role": "user", "content": "hi"}]} | field
    through = httpx.post(f"{live.endpoint}/v1/chat/completions", json=body, timeout=30)
    assert 400 <= through.status_code < 500
    assert through.json()["error"]["message"]
    if through.status_code == 400:
        direct = httpx.post(f"{model.engines()[0]}/v1/chat/completions", json=body, timeout=30)
        assert (direct.status_code, direct.json()["error"]["type"]) == (400, through.json()["error"]["type"])


def test_a_prompt_longer_than_the_context_is_a_bad_request_that_names_the_limit(live: Any, model: Any) -> None:
    answer = post(live, b'{"model": "%s", "prompt": "%s"}' % (model.model.encode(), b"word " * 2000), "/v1/completions")
    assert answer.status_code == 400
    assert "256" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/nothing", "/v2/chat/completions", "/", "/v1"])
def test_an_unknown_path_is_not_found(live: Any, path: str) -> None:
    assert post(live, b"{}", path).status_code == 404


def test_a_get_where_a_post_belongs_is_not_allowed(live: Any, model: Any) -> None:
    assert httpx.get(f"{live.endpoint}/v1/chat/completions", timeout=30).status_code == 405


def test_a_model_with_no_ready_engine_says_when_to_come_back(live: Any) -> None:
    with live.serving("sleeper", replicas=0, wait=False) as served:
        live.until(lambda: "sleeper" in live.model_names(), "the route is known")
        body = {"model": served.model, "prompt": "hi"}
        answer = httpx.post(f"{live.endpoint}/v1/completions", json=body, timeout=30)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
