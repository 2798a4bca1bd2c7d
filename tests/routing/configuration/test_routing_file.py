"""routing.yaml: every section, checked; what holds at once, and what waits for a restart."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SeededIds
from hekla.routing.app import build_ingress
from hekla.routing.config import AccessLogSettings, RoutingSettings, SchedulingSettings
from hekla.routing.configuration.live import RESTART, change
from hekla.routing.configuration.routing_file import read_routing_file
from hekla.routing.identity.settings import IdentitySettings, JwtSettings, Price
from hekla.routing.limits.settings import LimitRule
from hekla.routing.source import FakeObjectSource

EXAMPLE = """
limits: {engine_requests_max: 64}
upstream: {retry_attempts: 4}
admission:
  timeout_s: 30
  objectives: [{ttft_s: 5, model: "chat-*"}, {step_s: 0.05}]
  boost: {enabled: false}
rate_limits:
  rules:
  - {name: per-tenant, requests: 100, unit: minute, per: [tenant]}
traffic: {ejection: {consecutive_failures: 3}, timeouts: {total_s: 600}}
identity:
  mode: off
  prices: [{model: "*", input: 1.5, output: 2}]
scheduling: {scorers: {cost: 1, random: 0.5}, args: {cost: {d: 1}}}
observe: {explain_scope: admin}
retry_after_s: 3
"""


def read(text: str, base: RoutingSettings | None = None) -> RoutingSettings:
    return read_routing_file(text, base or RoutingSettings()).settings


def test_every_section_can_be_set_and_what_is_not_said_stays() -> None:
    settings = read(EXAMPLE)
    assert settings.limits.engine_requests_max == 64
    assert settings.limits.body_bytes_max == RoutingSettings().limits.body_bytes_max
    assert settings.upstream.retry_attempts == 4
    assert [objective.ttft_s for objective in settings.admission.objectives] == [5.0, 0.0]
    assert settings.admission.timeout_s == 30.0 and not settings.admission.boost.enabled
    assert settings.rate_limits.rules == (LimitRule("per-tenant", requests=100, unit="minute", per=("tenant",)),)
    assert settings.traffic.ejection.consecutive_failures == 3 and settings.traffic.timeouts.total_s == 600.0
    assert settings.identity.prices == (Price("*", input=1.5, output=2.0),) and settings.identity.mode == "off"
    assert settings.scheduling.scorers == (("cost", 1.0), ("random", 0.5))
    assert settings.observe.explain_scope == "admin" and settings.retry_after_s == 3
    assert read("") == RoutingSettings() == read("{}")


@pytest.mark.parametrize("section", [spec.name for spec in dataclasses.fields(RoutingSettings)])
def test_every_field_of_routing_settings_is_a_section_of_the_file(section: str) -> None:
    value = getattr(RoutingSettings(), section)
    text = f"{section}: {value}" if not dataclasses.is_dataclass(value) else f"{section}: {{}}"
    assert read(text) == RoutingSettings()
    with pytest.raises(ValueError, match=section):
        read(f"{section}: [1]" if not dataclasses.is_dataclass(value) else f"{section}: 7")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("admision: {}", r"the file has 'admision'; did you mean 'admission'\?"),
        ("admission: {queue_maxx: 1}", r"admission has 'queue_maxx'; did you mean 'queue_max'\?"),
        ("admission: {queue_max: many}", "admission.queue_max is 'many'; allowed: a whole number"),
        ("admission: {queue_max: 0}", "admission.queue_max is 0; allowed: 1 or more"),
        ("admission: {queue_max: true}", "admission.queue_max is True; allowed: a whole number"),
        ("admission: {timeout_s: .inf}", "admission.timeout_s is inf; allowed: a number"),
        ("admission: {enabled: 1}", "admission.enabled is 1; allowed: true or false"),
        ("admission: {objectives: [{ttft: 1}]}", r"admission.objectives\[0\] has 'ttft'; did you mean 'ttft_s'\?"),
        ("admission: {objectives: 5}", "admission.objectives is 5; allowed: a list"),
        ("rate_limits: {rules: [{requests: 1}]}", r"rate_limits.rules\[0\] has no 'name'; needed: name"),
        ("rate_limits: {rules: [{name: a, requests: 1, unit: week}]}", "unit is 'week'; allowed: second, minute"),
        ("rate_limits: {rules: [{name: a, requests: 1, per: [town]}]}", r"per\[0\] is 'town'; allowed: tenant, user"),
        ("identity: {mode: maybe}", "identity.mode is 'maybe'; allowed: off, optional, required"),
        ("access_log: {format: xml}", "access_log.format is 'xml'; allowed: text, json"),
        ("scheduling: {config_file: x}", "scheduling.config_file can't be set in the file itself"),
        ("scheduler: {plugins: {Score: {enabled: [nothing]}}}", "is 'nothing'; known:"),
        ("auth: {issuer: 5}", "auth.issuer is 5; allowed: an http or https URL"),
        ("auth: {issuer: ftp://x}", "is 'ftp://x'; allowed: an http or https URL"),
        ("auth: {issuer: https://x, audiences: hekla}", "auth.audiences is 'hekla'; allowed: a list of texts"),
        ("- a", "the file is .* allowed: a mapping"),
        ("a: [", "the file is not YAML"),
    ],
)
def test_a_mistake_is_named_with_its_place_its_value_and_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(text)


def test_the_peers_auth_becomes_an_issuer_that_is_required() -> None:
    text = "auth: {issuer: https://idp.example, audiences: [hekla], jwksUri: https://idp.example/keys}"
    identity = read(text).identity
    assert identity.mode == "required"
    assert identity.jwt == (JwtSettings("https://idp.example", ("hekla",), "https://idp.example/keys"),)
    base = RoutingSettings(
        identity=IdentitySettings(
            mode="optional", jwt=(JwtSettings("https://idp.example", tenant_claim="org"), JwtSettings("https://b"))
        )
    )
    kept = read(text, base).identity
    assert kept.mode == "optional", "what was decided where the ingress is started stays"
    assert [issuer.issuer for issuer in kept.jwt] == ["https://idp.example", "https://b"]
    assert kept.jwt[0].tenant_claim == "org" and kept.jwt[0].audiences == ("hekla",)


def test_what_cannot_change_is_held_and_the_rest_changes() -> None:
    now = RoutingSettings()
    wanted = read("gossip: {port: 7}\nadmission: {queue_max: 7}\nidentity: {mode: required, prices: [{model: a}]}")
    changed = change(now, wanted)
    assert changed.held == ("gossip", "identity.mode")
    assert changed.settings.gossip == now.gossip and changed.settings.identity.mode == "off"
    assert changed.settings.admission.queue_max == 7 and changed.settings.identity.prices == (Price("a"),)
    assert change(now, now).held == ()
    assert change(now, read("scrape: {period_s: 0}")).held == ("scrape.period_s",)


@pytest.mark.parametrize("name", RESTART)
def test_what_needs_a_restart_exists(name: str) -> None:
    value: Any = RoutingSettings()
    for part in name.split("."):
        value = getattr(value, part)


async def test_a_changed_file_holds_from_the_next_request_on(
    start_site: Any, start_backend: Any, kit: Any, tmp_path: Path
) -> None:
    path = tmp_path / "routing.yaml"
    path.write_text("rate_limits: {rules: [{name: r, requests: 1, unit: day}]}\nowned_by: me")
    settings = RoutingSettings(scheduling=SchedulingSettings(config_file=str(path)))
    site = await start_site(*kit.objects(await start_backend()), settings=settings)
    reloader = site.ingress.live.reloader
    assert [(await site.post())[0] for _ in range(2)] == [200, 429]
    path.write_text("rate_limits: {rules: []}\nlimits: {body_bytes_max: 100}\ngossip: {port: 9}\nowned_by: you")
    await reloader.look()
    assert (await site.post())[0] == 200, "the rule is gone at once"
    assert (await site.post(messages=["x" * 200]))[0] == 413
    models = await (await site.client.get("/v1/models")).json()
    assert models["data"][0]["owned_by"] == "you"
    assert site.sample("settings_awaiting_restart") == 1
    shown = await (await site.client.get("/debug/config_dump/settings")).json()
    assert shown["settings"]["awaiting_restart"] == ["gossip"]
    path.write_text("limits: {body_bytes_max: -1}")
    await reloader.look()
    assert "limits.body_bytes_max is -1" in reloader.problem
    assert (await site.post(messages=["x" * 200]))[0] == 413, "what held before stays"
    path.write_text("scheduler: {plugins: {Score: {enabled: [random]}}}")
    await reloader.look()
    assert site.ingress.scheduling.settings.scorers == (("random", 1.0),)
    assert (await site.post(messages=["x" * 200]))[0] == 200, "a line taken out is undone"
    assert site.sample("settings_reloads_total", outcome="ok") == 2
    assert site.sample("settings_reloads_total", outcome="refused") == 1


async def test_scheduler_settings_of_the_file_that_make_no_sense_change_nothing_at_all(
    start_site: Any, start_backend: Any, kit: Any, tmp_path: Path
) -> None:
    path = tmp_path / "routing.yaml"
    path.write_text("")
    settings = RoutingSettings(scheduling=SchedulingSettings(config_file=str(path)))
    site = await start_site(*kit.objects(await start_backend()), settings=settings)
    path.write_text("retry_after_s: 9\nscheduling: {scorers: {no-such: 1}}")
    await site.ingress.live.reloader.look()
    assert "no-such" in site.ingress.live.reloader.problem
    assert site.ingress.settings.retry_after_s == 1


def test_a_bad_file_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "routing.yaml"
    path.write_text("limits: {bodies: 1}")
    settings = RoutingSettings(
        scheduling=SchedulingSettings(config_file=str(path)), access_log=AccessLogSettings(enabled=False)
    )
    with pytest.raises(ValueError, match=r"routing.yaml: limits has 'bodies'; known: body_bytes_max"):
        build_ingress(settings, FakeObjectSource(), clock=SystemClock(), ids=SeededIds(1))
