"""The routing table and its rules, pure: rows R7, R8, R13, R14, R16 and the order of routes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from hekla.platform.base.ids import SeededIds
from hekla.routing.table import Match, RoutingTable, build_table


def table(kit: Any, *routes: Any) -> RoutingTable:
    servers = [kit.model_server(name) for name in ("s", "a", "b", "gold")]
    return build_table(routes, servers, [kit.engine("e", "http://h:1")])


def rules_to(*names: str, **match: Any) -> list[dict[str, Any]]:
    return [{"targetModels": [{"modelServerName": name} for name in names], **({"modelMatch": match} if match else {})}]


def match(
    table: RoutingTable, model: str = "m", path: str = "/v1/completions", random: float = 0.5, **headers: str
) -> Match | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return table.match(model, path, named, random)


def shares(table: RoutingTable, n: int) -> Counter[str]:
    ids = SeededIds(7)
    found = [match(table, random=ids.random()) for _ in range(n)]
    return Counter(m.target.name for m in found if m is not None)


@pytest.mark.parametrize(("first", "second", "share"), [(70, 30, 0.70), (50, 30, 0.625), (1, 99, 0.01)])
def test_targets_share_by_weight(kit: Any, first: int, second: int, share: float) -> None:
    targets = [{"modelServerName": "a", "weight": first}, {"modelServerName": "b", "weight": second}]
    drawn = shares(table(kit, kit.model_route(rules=[{"targetModels": targets}])), 2000)
    assert abs(drawn["a"] / 2000 - share) < 0.05


def test_unset_weights_share_equally_and_zero_is_never_picked(kit: Any) -> None:
    drawn = shares(table(kit, kit.model_route(rules=rules_to("a", "b"))), 1000)
    assert abs(drawn["a"] / 1000 - 0.5) < 0.05
    targets = [{"modelServerName": "a", "weight": 0}, {"modelServerName": "b", "weight": 1}]
    zero = table(kit, kit.model_route(rules=[{"targetModels": targets}]))
    for random in (0.0, 0.5, 0.999999999):
        found = match(zero, random=random)
        assert found is not None
        assert found.target.name == "b"


def test_a_regex_header_matches_what_it_says(kit: Any) -> None:
    rules = rules_to("gold", headers={"X-Tier": {"regex": "^gold-.*"}})
    routed = table(kit, kit.model_route(rules=rules))
    assert match(routed, x_tier="gold-1") is not None
    assert match(routed, x_tier="silver") is None
    assert match(routed) is None


def test_exact_alone_decides_when_prefix_is_set_too(kit: Any) -> None:
    rules = rules_to("a", uri={"exact": "/v1/completions", "prefix": "/v2"})
    routed = table(kit, kit.model_route(rules=rules))
    assert match(routed, path="/v1/completions") is not None
    assert match(routed, path="/v2/x") is None


def test_an_empty_match_object_matches_everything(kit: Any) -> None:
    routed = table(kit, kit.model_route(rules=rules_to("a", headers={"h": {}}, uri={})))
    assert match(routed, h="anything") is not None


def test_every_condition_of_a_rule_must_hold_and_the_first_rule_wins(kit: Any) -> None:
    strict = rules_to("gold", headers={"tier": {"exact": "gold"}}, uri={"prefix": "/v1/chat"}, body={"model": "m"})
    routed = table(kit, kit.model_route(rules=strict + rules_to("a")))
    chosen = match(routed, path="/v1/chat/completions", tier="gold")
    other = match(routed, path="/v1/completions", tier="gold")
    assert chosen is not None
    assert other is not None
    assert (chosen.target.name, other.target.name) == ("gold", "a")


def test_weights_on_only_some_targets_make_the_route_unusable(kit: Any) -> None:
    targets = [{"modelServerName": "a", "weight": 1}, {"modelServerName": "b"}]
    routed = table(kit, kit.model_route(rules=[{"targetModels": targets}]))
    assert not routed.knows("m")
    assert "weights must be set on all targets or on none" in routed.problems["ModelRoute default/r"]


@pytest.mark.parametrize(
    "rule",
    [
        {"targetModels": [{"modelServerName": "a", "weight": 0}]},
        {"targetModels": [{"modelServerName": "a", "externalModelProviderName": "x"}]},
        {"targetModels": [{}]},
        {"targetModels": [{"modelServerName": "a"}], "modelMatch": {"uri": {"regex": "("}}},
    ],
)
def test_a_route_that_cannot_be_used_leaves_the_others_alone(kit: Any, rule: Any) -> None:
    routed = table(kit, kit.model_route("bad", model="x", rules=[rule]), kit.model_route("good"))
    assert routed.models == ("m",)
    assert list(routed.problems) == ["ModelRoute default/bad"]


def test_the_oldest_route_of_a_model_is_asked_first_and_hands_over_when_no_rule_matches(kit: Any) -> None:
    old = kit.model_route("z", created="2026-01-01T00:00:00Z", rules=rules_to("gold", headers={"t": {"exact": "g"}}))
    new = kit.model_route("a", created="2026-01-02T00:00:00Z", rules=rules_to("a"))
    routed = table(kit, new, old)
    first, second = match(routed, t="g"), match(routed)
    assert first is not None
    assert second is not None
    assert (first.route.key, second.route.key) == ("default/z", "default/a")


def test_adapter_names_count_only_when_no_route_has_the_model_name(kit: Any) -> None:
    by_adapter = kit.model_route("r1", model="base", loraAdapters=["m", "lora"], rules=rules_to("a"))
    by_model = kit.model_route("r2", model="m", rules=rules_to("b"), created="2027-01-01T00:00:00Z")
    routed = table(kit, by_adapter, by_model)
    model, adapter = match(routed, "m"), match(routed, "lora")
    assert model is not None
    assert adapter is not None
    assert (model.target.name, model.upstream_model) == ("b", "served-m")
    assert (adapter.target.name, adapter.upstream_model) == ("a", None)


def test_a_route_bound_to_a_gateway_is_not_served_here(kit: Any) -> None:
    routed = table(kit, kit.model_route(parentRefs=[{"name": "gw"}]))
    assert not routed.knows("m")


def test_only_ready_entries_of_the_namespace_with_the_labels_are_backends(kit: Any) -> None:
    worker = kit.engine("worker", "http://h:2")
    worker["spec"]["index"] = 1
    leaving = kit.engine("leaving", "http://h:3")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    engines = [
        kit.engine("good", "http://h:1"), worker, leaving,
        kit.engine("draining", "http://h:4", phase="Draining"), kit.engine("no-port", ""),
        kit.engine("other", "http://h:5", app="x"), kit.engine("far", "http://h:6", namespace="far"),
    ]  # fmt: skip
    routed = build_table([], [kit.model_server()], engines)
    assert [b.key for b in routed.servers[("default", "s")].backends] == ["default/good"]


def test_https_ports_are_spoken_to_in_https(kit: Any) -> None:
    # The reference accepts workloadPort.protocol https and speaks http (its defect 1).
    server = kit.model_server(workloadPort={"port": 1, "protocol": "https"})
    routed = build_table([], [server], [kit.engine("e", "http://h:1")])
    assert routed.servers[("default", "s")].backends[0].url == "https://h:1"


def test_a_bad_duration_names_itself(kit: Any) -> None:
    routed = build_table([], [kit.model_server(trafficPolicy={"timeout": "soon"})], [])
    assert "'soon'" in routed.problems["ModelServer default/s"]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("route", {"spec": {"modelName": "m", "rules": "all"}}),
        ("route", {"spec": {"modelName": "m", "rules": [{"modelMatch": [], "targetModels": 7}]}}),
        ("server", {"spec": {"workloadSelector": "app=m"}}),
        ("server", {"spec": {"trafficPolicy": {"retry": "often"}}}),
        ("engine", {"status": {"phase": "Ready", "address": 8000}}),
    ],
)
def test_an_object_with_fields_of_the_wrong_type_is_left_out_alone(kit: Any, kind: str, change: Any) -> None:
    made = {"route": kit.model_route, "server": kit.model_server, "engine": lambda name: kit.engine(name, "http://h:9")}
    objects = {"route": [kit.model_route()], "server": [kit.model_server()], "engine": [kit.engine("e", "http://h:1")]}
    objects[kind].append({**made[kind]("bad"), **change})
    routed = build_table(objects["route"], objects["server"], objects["engine"])
    assert [name.split("/")[1] for name in routed.problems] == ["bad"]
    assert routed.models == ("m",)
    assert [b.key for b in routed.servers[("default", "s")].backends] == ["default/e"]
