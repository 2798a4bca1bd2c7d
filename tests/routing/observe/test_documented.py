"""Every setting, metric and access log field is documented, and the peers' metrics and fields are all there."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SeededIds
from hekla.routing.access_log import AccessRecord
from hekla.routing.app import build_ingress
from hekla.routing.config import RoutingSettings
from hekla.routing.configuration.live import RESTART
from hekla.routing.configuration.routing_file import read_routing_file
from hekla.routing.source import FakeObjectSource

ROOT = Path(__file__).parents[3]
PAGES = "\n".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))
OBSERVABILITY = (ROOT / "docs" / "observability.md").read_text()
DASHBOARD = ROOT / "docs" / "observability" / "grafana.json"

PEERS_METRICS = {
    "requests_total": "model path status_code error_type model_route backend_type backend_name upstream_model",
    "request_duration_seconds": "model path status_code model_route backend_type backend_name upstream_model",
    "request_prefill_duration_seconds": "model path status_code",
    "request_decode_duration_seconds": "model path status_code",
    "tokens_total": "model path token_type model_route backend_type backend_name upstream_model",
    "rate_limit_exceeded_total": "model limit_type path",
    "active_requests": "",
    "active_downstream_requests": "model",
    "active_upstream_requests": "model_server model_route backend_type backend_name upstream_model",
    "scheduler_plugin_duration_seconds": "model plugin type",
    "fairness_queue_size": "model user_id",
    "fairness_queue_duration_seconds": "model user_id",
    "fairness_queue_cancelled_total": "model user_id",
    "fairness_queue_dequeue_total": "model user_id",
    "fairness_queue_inflight": "model",
    "session_boost_queue_size": "model",
    "session_boost_queue_duration_seconds": "model",
    "session_boost_queue_cancelled_total": "model",
    "session_boost_queue_dequeue_total": "model",
    "session_boost_inflight": "model",
    "prefix_cache_evictions_total": "",
    "prefix_cache_entries": "",
}
"""As the reference router documents them, but for those about what does not exist here (below)."""
OTHERWISE_HERE = {
    "session_boost_queue_duration_seconds": "session_boost_duration_seconds",
    "session_boost_queue_cancelled_total": "session_boost_cancelled_total",
    "session_boost_queue_dequeue_total": "session_boost_dequeue_total",
    "prefix_cache_evictions_total": "prefix_evictions_total",
    "prefix_cache_entries": "prefix_entries",
}
"""The peer's index is one, here there are two, told apart by a label."""


def all_settings(value: Any, place: str = "") -> Iterator[str]:
    for spec in dataclasses.fields(value):
        inner, name = getattr(value, spec.name), f"{place}{spec.name}"
        if dataclasses.is_dataclass(inner):
            yield from all_settings(inner, name + ".")
        else:
            yield name


def documented_metrics() -> dict[str, set[str]]:
    """Name to labels, out of the pages' tables."""
    rows = re.findall(r"^\| `(hekla_router_[a-z_]+)` \| \w+ \|(.*)\|$", PAGES, re.MULTILINE)
    return {name: set(re.findall(r"\b[a-z_]+\b", re.sub(r"\([^)]*\)", "", text.split(".")[0]))) for name, text in rows}


@pytest.fixture
def metric_names() -> set[str]:
    ingress = build_ingress(RoutingSettings(), FakeObjectSource(), clock=SystemClock(), ids=SeededIds(1))
    return set(ingress.metrics.names())


@pytest.mark.parametrize("setting", sorted(all_settings(RoutingSettings())))
def test_every_setting_is_documented(setting: str) -> None:
    assert f"| `{setting}` |" in PAGES


def test_every_metric_is_documented_and_every_documented_one_exists(metric_names: set[str]) -> None:
    assert set(documented_metrics()) == metric_names


@pytest.mark.parametrize("name", sorted(PEERS_METRICS))
def test_the_reference_routers_metrics_are_here_with_their_labels(name: str, metric_names: set[str]) -> None:
    """Not here: `tokenizer_unsupported_engine_total` (there is always the text), `prefix_cache_match_ratio` and
    `kvcache_aware_match_ratio` (`prefix_precision` says how right the prediction was), and all about Redis."""
    own = "hekla_router_" + OTHERWISE_HERE.get(name, name)
    assert own in metric_names
    if name not in OTHERWISE_HERE:
        assert set(PEERS_METRICS[name].split()) <= documented_metrics()[own]


@pytest.mark.parametrize("field", AccessRecord.__slots__)
def test_every_field_of_the_access_log_is_documented(field: str) -> None:
    name = {"unix_s": "timestamp", "error_type": "error", "error_message": "error"}.get(field, field)
    page = (ROOT / "docs" / "routing.md").read_text()
    assert f"`{name}`" in page[page.index("## Access log") :]


def test_the_reference_routers_access_log_fields_are_here() -> None:
    """Not here: `gateway`, `http_route`, `inference_pool`; there is no Gateway API on a Ray cluster."""
    peers = """method path protocol status_code model_name model_route model_server selected_pod backend_type
        backend_name upstream_model upstream_status_code upstream_attempts request_id input_tokens output_tokens
        duration_total duration_request_processing duration_upstream_processing duration_response_processing"""
    assert set(peers.split()) <= set(AccessRecord.__slots__)


def test_the_dashboard_asks_only_for_metrics_that_exist(metric_names: set[str]) -> None:
    board = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(queries) >= 12
    for query in queries:
        named = re.findall(r"hekla_router_[a-z_]+", query)
        assert named, query
        for name in named:
            assert re.sub(r"_(bucket|sum|count)$", "", name) in metric_names or name in metric_names, name
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.parametrize("page", ["admission", "observability", "scheduling"])
def test_the_pages_examples_of_routing_yaml_are_read_and_change_something(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert examples
    for example in examples:
        assert read_routing_file(example, RoutingSettings()).settings != RoutingSettings()


@pytest.mark.parametrize("name", RESTART)
def test_what_needs_a_restart_is_documented(name: str) -> None:
    assert f"`{name}`" in OBSERVABILITY or f"`{name}.*`" in OBSERVABILITY


def test_every_debug_page_is_documented() -> None:
    ingress = build_ingress(RoutingSettings(), FakeObjectSource(), clock=SystemClock(), ids=SeededIds(1))
    for path in ingress.desk.paths:
        assert f"`{path}`" in OBSERVABILITY, path
