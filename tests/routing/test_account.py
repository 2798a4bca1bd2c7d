"""What is remembered of a request: access log, metrics, usage; and that every name of them is documented."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest

from hekla.routing.access_log import AccessLog, AccessRecord, json_line, text_line
from hekla.routing.config import AccessLogSettings, RoutingSettings
from hekla.routing.metrics import RouterMetrics
from hekla.routing.scheduling.catalog import FILTERS, SCORERS
from hekla.routing.sse import split_events
from hekla.routing.usage import EventRelay, JsonTail, Usage

DOCS = "\n".join(page.read_text() for page in (Path(__file__).parents[2] / "docs").glob("*.md"))


def record(**changes: Any) -> AccessRecord:
    values: dict[str, Any] = {f.name: 0 if f.type in ("int", "float") else "" for f in dataclasses.fields(AccessRecord)}
    values |= {"method": "POST", "path": "/v1/completions", "protocol": "HTTP/1.1", "status_code": 200, "unix_s": 0.0}
    return AccessRecord(**{**values, **changes})


def test_a_text_line_has_the_documented_shape() -> None:
    line = text_line(
        record(model_name="m", model_server="default/s", input_tokens=5, output_tokens=2, duration_total=9,
               duration_request_processing=1, duration_upstream_processing=5, duration_response_processing=3)
    )  # fmt: skip
    assert line == (
        '[1970-01-01T00:00:00Z] "POST /v1/completions HTTP/1.1" 200 model=m server=default/s tokens=5/2 timings=9ms(1+5+3)\n'
    )


def test_a_client_cannot_forge_a_log_line() -> None:
    line = text_line(record(model_name='x\n[1970] "GET / HTTP/1.1" 200', path="/\r\n"))
    assert line.count("\n") == 1
    assert "\r" not in line


def test_a_json_line_leaves_out_what_is_empty_and_nests_the_error() -> None:
    line = json.loads(json_line(record(error_type="proxy", error_message="gone", model_name="m")))
    assert line["error"] == {"type": "proxy", "message": "gone"}
    assert line["model_name"] == "m"
    assert "model_route" not in line
    assert line["output_tokens"] == 0


async def test_requests_appear_in_the_log_file(start_site: Any, start_backend: Any, kit: Any, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    settings = RoutingSettings(access_log=AccessLogSettings(format="json", output=str(path), flush_interval_s=0.01))
    site = await start_site(*kit.objects(await start_backend()), settings=settings)
    await site.post()
    await site.post(model="none")
    await kit.until(lambda: path.exists() and path.read_text().count("\n") == 2, "two lines")
    good, bad = (json.loads(line) for line in path.read_text().splitlines())
    assert (good["status_code"], good["input_tokens"], good["output_tokens"], good["cached_tokens"]) == (200, 7, 3, 2)
    assert (good["model_route"], good["model_server"], good["selected_pod"]) == ("default/r", "default/s", "default/e0")
    assert (good["upstream_model"], good["upstream_attempts"], good["upstream_status_code"]) == ("served-m", 1, 200)
    assert bad["error"]["type"] == "route_not_found"


def test_lines_beyond_the_limit_are_dropped_and_counted() -> None:
    out = io.StringIO()
    log = AccessLog(AccessLogSettings(pending_lines_max=3), out)
    for _ in range(5):
        log.record(record())
    log.start()
    log.stop()
    assert (out.getvalue().count("\n"), log.dropped) == (3, 2)


async def test_metrics_are_served_and_balance(start_site: Any, start_backend: Any, kit: Any) -> None:
    # Two engines: a lone one is not scored.
    site = await start_site(*kit.objects(await start_backend(), await start_backend()))
    for _ in range(3):
        await site.post()
    async with site.client.get("/metrics") as response:
        text = await response.text()
    assert (
        'hekla_router_requests_total{backend_name="default/s",backend_type="model_server",error_type="",model="m",'
        'model_route="default/r",path="/v1/chat/completions",status_code="200",upstream_model="served-m"} 3.0'
    ) in text
    assert 'hekla_router_scheduler_plugin_duration_seconds_count{model="m",plugin="cost",type="score"} 3.0' in text
    assert "hekla_router_active_requests 0.0" in text
    assert site.sample("active_upstream_requests") == 0


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        (b'{"choices":[],"usage": {"prompt_tokens":4,"completion_tokens":2}, "x":1}', Usage(4, 2, 0)),
        (b'{"usage":{"input_tokens":4,"output_tokens":2,"input_tokens_details":{"cached_tokens":3}}}', Usage(4, 2, 3)),
        (b'{"content":"\\"usage\\": {\\"prompt_tokens\\": 9}"}', None),
        (b'{"usage":null}', None),
        (b'{"usage":{"prompt_tokens":"x","completion_tokens":-1}}', Usage(0, 0, 0)),
        (b'{"usage":{"prompt_', None),
    ],
)
def test_usage_of_plain_answers(answer: bytes, usage: Usage | None) -> None:
    for size in (1, 7, len(answer)):
        tail = JsonTail()
        for i in range(0, len(answer), size):
            tail.feed(answer[i : i + size])
        assert tail.usage() == usage


def test_usage_of_anthropic_and_responses_streams() -> None:
    anthropic = EventRelay(hide_usage=False, held_bytes_max=100)
    anthropic.feed(b'event: message_start\ndata: {"message":{"usage":{"input_tokens":9,"output_tokens":1}}}\n\n')
    anthropic.feed(b'event: message_delta\ndata: {"usage":{"output_tokens":5}}\n\n')
    assert anthropic.usage() == Usage(9, 5, 0)
    responses = EventRelay(hide_usage=False, held_bytes_max=100)
    responses.feed(b'data: {"response":{"usage":{"input_tokens":3,"output_tokens":4}}}\r\n\r\n')
    assert responses.usage() == Usage(3, 4, 0)


def test_null_usage_in_every_chunk_is_not_the_usage() -> None:
    relay = EventRelay(hide_usage=True, held_bytes_max=100)
    word = b'data: {"choices":[{"x":1}],"usage":null}\n\n'
    assert relay.feed(word * 2) == word * 2
    assert relay.feed(b'data: {"choices": [], "usage": {"prompt_tokens":1,"completion_tokens":2}}\n\n') == b""
    assert relay.feed(b"data: [DONE]\n\n") == b"data: [DONE]\n\n"
    assert relay.usage() == Usage(1, 2, 0)


def test_a_stream_that_tells_cached_tokens_once_is_known_to_have_told_them() -> None:
    relay = EventRelay(hide_usage=False, held_bytes_max=100)
    relay.feed(b'data: {"choices":[],"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":0}}}\n\n')
    usage = relay.usage()
    assert usage is not None and usage.tells_cached, "none cached is an answer too"


def test_a_first_event_without_choices_that_is_not_usage_is_kept() -> None:
    # Azure's content filter sends one.
    relay = EventRelay(hide_usage=True, held_bytes_max=100)
    event = b'data: {"choices":[],"prompt_filter_results":[],"usage":null}\n\n'
    assert relay.feed(event) == event


def test_an_event_too_long_to_hold_is_relayed_in_pieces() -> None:
    relay = EventRelay(hide_usage=True, held_bytes_max=10)
    assert relay.feed(b"data: 1234") == b""
    assert relay.feed(b"56789") == b"data: 123456789"
    assert relay.feed(b"\n\ndata: x") == b"\n\n"
    assert relay.rest() == b"data: x"


def test_events_split_and_join_to_the_same_bytes() -> None:
    chunk = b"a: 1\n\nb: 2\r\n\r\nrest"
    assert split_events(chunk) == [b"a: 1\n\n", b"b: 2\r\n\r\n", b"rest"]


def setting_names(settings: Any, prefix: str = "") -> list[str]:
    names = []
    for part in dataclasses.fields(settings):
        value, name = getattr(settings, part.name), prefix + part.name
        names += setting_names(value, name + ".") if dataclasses.is_dataclass(value) else [name]
    return names


def test_every_setting_is_documented() -> None:
    names = setting_names(RoutingSettings())
    assert [name for name in names if f"| `{name}` |" not in DOCS] == []


def test_every_metric_is_documented() -> None:
    assert [name for name in RouterMetrics().names() if f"`{name}`" not in DOCS] == []


def test_every_log_key_and_plugin_is_documented() -> None:
    keys = {f.name for f in dataclasses.fields(AccessRecord)} - {"unix_s", "error_type", "error_message"}
    assert [name for name in (*keys, *FILTERS, *SCORERS) if f"`{name}`" not in DOCS] == []
