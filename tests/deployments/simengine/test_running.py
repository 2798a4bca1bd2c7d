"""What only a running server shows: metrics, disconnects, faults, time, KV handed between processes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

Make = Callable[..., Any]


def body(**more: Any) -> dict[str, Any]:
    return {
        "model": "sim",
        "prompt": "some words to begin with",
        "max_tokens": 8,
        "temperature": 0,
        "ignore_eos": True,
    } | more


def post(server: Any, **more: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/completions", json=body(**more), timeout=20)


def test_metrics_add_up_and_parse(serve: Make) -> None:
    server = serve("--time-scale", "0", "--enable-lora")
    for _ in range(3):
        assert post(server).status_code == 200
    families = {item.name: item for item in text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text)}
    assert server.metric("vllm:generation_tokens_total") == 24
    assert server.metric("vllm:request_success_total", 'finished_reason="length"') == 3
    assert server.metric("vllm:time_to_first_token_seconds_count") == 3
    assert server.metric("vllm:inter_token_latency_seconds_count") == 21
    assert server.metric("vllm:request_generation_tokens_sum") == 24
    assert server.metric("vllm:request_generation_tokens_bucket", 'le="5.0"') == 0
    assert server.metric("vllm:request_generation_tokens_bucket", 'le="10.0"') == 3
    assert families["vllm:num_requests_running"].type == "gauge"
    assert families["vllm:prompt_tokens"].type == "counter"
    assert families["vllm:e2e_request_latency_seconds"].type == "histogram"
    assert families["vllm:lora_requests_info"].samples[0].labels["max_lora"] == "1"
    assert families["vllm:cache_config_info"].samples[0].labels["block_size"] == "16"


def test_a_client_that_leaves_frees_its_place(serve: Make) -> None:
    server = serve("--step-ms-base", "20")
    for stream in (True, False):
        with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as client:
            request = httpx.Request("POST", f"{server.url}/v1/completions", json=body(max_tokens=20_000, stream=stream))
            head = "".join(f"{key}: {value}\r\n" for key, value in request.headers.items())
            client.sendall(f"POST /v1/completions HTTP/1.1\r\n{head}\r\n".encode() + request.read())
            server.wait_for("vllm:num_requests_running", 1)
        server.wait_for("vllm:num_requests_running", 0)
        server.wait_for("vllm:kv_cache_usage_perc", 0)
    assert server.metric("vllm:request_success_total", 'finished_reason="abort"') == 2


def test_modelled_time_is_waited_out(serve: Make) -> None:
    server = serve("--step-ms-base", "20", "--step-ms-per-prefill-token", "0", "--step-ms-per-decode", "0")
    started = time.monotonic()
    assert post(server, max_tokens=10).status_code == 200
    assert time.monotonic() - started >= 0.2
    mean = server.metric("vllm:inter_token_latency_seconds_sum") / server.metric(
        "vllm:inter_token_latency_seconds_count"
    )
    assert mean >= 0.0199


def test_faults_strike_when_asked_for(serve: Make) -> None:
    flaky = serve("--time-scale", "0", "--error-rate", "1", "--error-code", "503", "--fail-health-after", "0.000001")
    assert post(flaky).status_code == 503
    assert httpx.get(f"{flaky.url}/health").status_code == 503
    mortal = serve("--step-ms-base", "5", "--die-after-tokens", "5")
    lines: list[str] = []
    try:
        with httpx.stream("POST", f"{mortal.url}/v1/completions", json=body(stream=True, max_tokens=100)) as answer:
            lines.extend(line for line in answer.iter_lines() if line)
        raise AssertionError("the stream ended well")
    except httpx.RemoteProtocolError:
        assert 1 <= len(lines) <= 5
    assert mortal.process.wait(10) == -9


def test_an_engine_that_is_full_says_so(serve: Make) -> None:
    server = serve("--step-ms-base", "20", "--max-num-queued-reqs", "1")
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body(stream=True, max_tokens=20_000)):
        server.wait_for("vllm:num_requests_running", 1)
        assert post(server).status_code == 503
        assert server.metric("vllm:admission_rejections_total", 'reason="max_num_queued_reqs"') == 1


def test_an_engine_that_hangs_stays_healthy_and_generates_nothing(serve: Make) -> None:
    server = serve("--step-ms-base", "1", "--hang-after-tokens", "5")
    lines: list[str] = []
    try:
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body(stream=True), timeout=1) as answer:
            lines.extend(line for line in answer.iter_lines() if line)
        raise AssertionError("the stream went on")
    except httpx.ReadTimeout:
        assert len(lines) == 5
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_an_api_key_is_asked_for(serve: Make) -> None:
    server = serve("--api-key", "secret")
    assert httpx.get(f"{server.url}/v1/models").status_code == 401
    assert httpx.get(f"{server.url}/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200
    assert httpx.get(f"{server.url}/health").status_code == 200


NIXL = '{"kv_connector": "NixlConnector", "kv_role": "kv_both"}'
RECOMPUTE = '{"kv_connector": "NixlConnector", "kv_role": "kv_both", "kv_load_failure_policy": "recompute"}'
PROMPT = "a prompt that is long enough to fill some blocks of sixteen tokens " * 6


def prefilled(server: Any) -> dict[str, Any]:
    answer = post(server, prompt=PROMPT, max_tokens=1, kv_transfer_params={"do_remote_decode": True}).json()
    params: dict[str, Any] = answer["kv_transfer_params"]
    return params


def test_kv_is_handed_from_a_prefill_process_to_a_decode_process(serve: Make) -> None:
    port = ("--kv-side-channel-port", "0", "--time-scale", "0")
    first = serve(*port, "--kv-transfer-config", NIXL)
    second = serve(*port, "--kv-transfer-config", NIXL)
    third = serve(*port, "--kv-transfer-config", RECOMPUTE)
    params = prefilled(first)
    assert first.metric("vllm:kv_cache_usage_perc") > 0
    whole = post(first, prompt=PROMPT).json()["choices"][0]["text"]
    answer = post(second, prompt=PROMPT, kv_transfer_params=params)
    assert answer.json()["choices"][0]["text"] == whole
    assert second.metric("vllm:external_prefix_cache_hits_total") == params["remote_num_tokens"] - 1
    first.wait_for("vllm:kv_cache_usage_perc", 0)
    spent = post(second, prompt=PROMPT + "x", kv_transfer_params=params)
    assert spent.status_code == 500
    assert "could not be loaded" in spent.json()["error"]["message"]
    assert post(third, prompt=PROMPT, kv_transfer_params=params).json()["choices"][0]["text"] == whole
    assert third.metric("vllm:nixl_num_failed_transfers_total") == 1


def test_a_lease_expires_while_the_engine_idles(serve: Make) -> None:
    server = serve(
        "--kv-side-channel-port", "0", "--kv-transfer-config", NIXL, "--kv-lease-s", "0.2", "--time-scale", "0"
    )
    prefilled(server)
    server.wait_for("vllm:nixl_num_kv_expired_reqs_total", 1)
    server.wait_for("vllm:kv_cache_usage_perc", 0)


def test_kv_transfer_params_that_lack_an_address_are_refused(serve: Make) -> None:
    server = serve("--kv-side-channel-port", "0", "--kv-transfer-config", NIXL)
    answer = post(server, kv_transfer_params={"do_remote_prefill": True})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "kv_transfer_params"
