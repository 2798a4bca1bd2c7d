"""`routing.yaml`: the names of the peer's file, errors that say what is known, and a file that changes under way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from hekla.platform.base.clock import VirtualClock
from hekla.routing.config import LimitSettings, SchedulingSettings
from hekla.routing.load import LoadBook
from hekla.routing.scheduling.catalog import build_profile
from hekla.routing.scheduling.knowledge import NoKnowledge
from hekla.routing.scheduling.peer_config import read_config
from hekla.routing.scheduling.service import Knowledge, SchedulingService

KTHENA = """
scheduler:
  pluginConfig:
  - name: least-request
    args: {maxWaitingRequests: 7}
  - name: least-latency
    args: {TTFTTPOTWeightFactor: 0.3}
  - name: prefix-cache
    args: {blockSizeToHash: 64, maxBlocksToMatch: 128, maxHashCacheSize: 50000, topKMatches: 5}
  - name: kvcache-aware
    args: {blockSizeToHash: 16, vllmTokenizerPort: 8000}
  plugins:
    Filter:
      enabled: [least-request]
      disabled: [lora-affinity]
    Score:
      enabled:
      - {name: least-request, weight: 1}
      - {name: gpu-usage, weight: 1}
      - {name: least-latency, weight: 1}
      - {name: prefix-cache, weight: 2}
auth:
  issuer: https://issuer
  audiences: [a]
  jwksUri: https://issuer/keys
"""


def test_the_peers_file_is_read_as_it_is() -> None:
    config = read_config(KTHENA, SchedulingSettings())
    assert config.scheduling.filters == ("ready", "circuit", "capacity", "waiting")
    assert config.scheduling.scorers == (
        ("least-request", 1.0), ("kv-usage", 1.0), ("least-latency", 1.0), ("prefix-cache", 2.0),
    )  # fmt: skip
    assert config.scheduling.args == {
        "waiting": {"waiting_max": 7}, "least-latency": {"alpha": 0.3}, "prefix-cache": {"top_k": 5},
    }  # fmt: skip
    assert config.auth == {"issuer": "https://issuer", "audiences": ["a"], "jwksUri": "https://issuer/keys"}
    assert len(config.without_effect) == 5
    build_profile(config.scheduling, LimitSettings())


def test_an_empty_file_leaves_the_defaults() -> None:
    assert read_config("", SchedulingSettings()).scheduling == SchedulingSettings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("[]", "the file is list; allowed: a mapping"),
        ("schedule: {}", "the file has 'schedule'; known: auth, scheduler"),
        (
            "scheduler: {plugins: {Score: {enabled: [nope]}}}",
            r"Score.enabled\[0\].name is 'nope'; known: cost, .*gpu-usage",
        ),
        (
            "scheduler: {plugins: {Score: {enabled: [{name: cost, weight: -1}]}}}",
            "weight is -1; allowed: a number of 0",
        ),
        ("scheduler: {plugins: {Score: {enabled: []}}}", "enabled is empty"),
        ("scheduler: {plugins: {Score: {enabled: [cost, cost]}}}", "names a scorer twice"),
        ("scheduler: {plugins: {Filter: {enabled: [nope]}}}", "Filter.enabled is 'nope'; known: capacity, circuit"),
        ("scheduler: {pluginConfig: [{name: nope}]}", r"pluginConfig\[0\].name is 'nope'"),
        ("auth: {secret: x}", "auth has 'secret'; known: audiences, issuer, jwksUri"),
    ],
)
def test_what_a_file_gets_wrong_is_named_with_what_is_known(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_config(text, SchedulingSettings())


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        (
            "least-latency",
            {"alpha": 1.5},
            r"scheduling.args\[least-latency\].alpha is 1.5; allowed: a number from 0 to 1",
        ),
        ("least-latency", {"alpha": float("nan")}, "alpha is nan"),
        ("least-latency", {"alpha": True}, "alpha is True"),
        ("cost", {"delta": 1}, r"has 'delta'; known: d, headroom, kappa, rho"),
        ("random", {"x": 1}, "known: none"),
        ("prefix-cache", {"top_k": 1.5}, "top_k is 1.5; allowed: a whole number"),
    ],
)
def test_arguments_are_checked(name: str, args: dict[str, Any], message: str) -> None:
    settings = SchedulingSettings(scorers=((name, 1.0),), args={name: args})
    with pytest.raises(ValueError, match=message):
        build_profile(settings, LimitSettings())


def service(path: Path, clock: VirtualClock, registry: CollectorRegistry) -> SchedulingService:
    nothing = NoKnowledge()
    return SchedulingService(
        SchedulingSettings(config_file=str(path)), LimitSettings(), LoadBook(),
        knowledge=Knowledge(nothing, nothing, nothing), registry=registry, clock=clock,
    )  # fmt: skip


async def test_a_changed_file_is_used_without_a_restart_and_a_bad_one_keeps_what_was(tmp_path: Path) -> None:
    path, clock, registry = tmp_path / "routing.yaml", VirtualClock(), CollectorRegistry()
    path.write_text("scheduler: {plugins: {Score: {enabled: [least-request]}}}")
    running = service(path, clock, registry)
    assert running.reloader is not None
    assert running.settings.scorers == (("least-request", 1.0),)
    path.write_text("scheduler: {plugins: {Score: {enabled: [{name: cost, weight: 3}]}}}")
    await running.reloader.look()
    assert running.settings.scorers == (("cost", 3.0),)
    path.write_text("scheduler: {plugins: {Score: {enabled: [no-such-plugin]}}}")
    await running.reloader.look()
    assert running.settings.scorers == (("cost", 3.0),)
    assert "no-such-plugin" in running.reloader.problem
    path.unlink()
    await running.reloader.look()
    assert "can't be read" in running.reloader.problem
    path.write_text("scheduler: {plugins: {Score: {enabled: [random]}}}")
    await running.reloader.look()
    await running.reloader.look()
    assert running.settings.scorers == (("random", 1.0),)
    assert running.reloader.problem == ""
    page = generate_latest(registry).decode()
    assert 'hekla_router_scheduler_config_reloads_total{outcome="ok"} 2.0' in page
    assert 'hekla_router_scheduler_config_reloads_total{outcome="refused"} 2.0' in page


def test_a_bad_file_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"routing.yaml can't be read"):
        service(tmp_path / "routing.yaml", VirtualClock(), CollectorRegistry())
