"""Where adapters go: pure, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from hekla.deployments.lora.demand import TIME_CONSTANT_S, WAITING_S, DemandMeter, DemandReport
from hekla.deployments.lora.model import Adapter, Demand, Host, Placement
from hekla.deployments.lora.placement import RESIDENCE_S, place
from hekla.deployments.lora.targets import SHRINK_AFTER_S, Targets, wanted_replicas


def hosts(count: int, slots: int = 2, held: Mapping[str, Mapping[str, float]] | None = None) -> list[Host]:
    return [Host(f"e{i}", slots, (held or {}).get(f"e{i}", {})) for i in range(count)]


def adapters(*names: str) -> list[Adapter]:
    return [Adapter(name) for name in names]


def again(placement: Placement, before: list[Host], now_s: float = 0.0) -> list[Host]:
    """The hosts once the placement has come about."""
    return [
        Host(h.key, h.slots, {name: h.held.get(name, now_s) for name in placement[h.key]}, h.failed) for h in before
    ]


def moves(placement: Placement, before: list[Host]) -> int:
    """Loads that the placement asks for."""
    return sum(len(placement[host.key] - host.held.keys()) for host in before)


def where(placement: Placement, name: str) -> list[str]:
    return sorted(key for key, names in placement.items() if name in names)


def test_adapters_nobody_asks_for_fill_free_slots_once_each() -> None:
    placement = place(adapters("a", "b", "c"), hosts(2), {}, Demand(), 0.0)
    assert [len(where(placement, name)) for name in "abc"] == [1, 1, 1]


def test_slots_are_never_exceeded_and_a_waited_for_adapter_gets_the_place_of_an_idle_one() -> None:
    before = hosts(1, 1, {"e0": {"old": 0.0}})
    placement = place(adapters("old", "new"), before, {"new": 1}, Demand(waiting={"new": 0.0}), 1.0)
    assert placement == {"e0": {"new"}}


def test_a_busy_adapter_keeps_its_only_place_for_a_while_before_another_takes_a_turn() -> None:
    before = hosts(1, 1, {"e0": {"busy": 0.0}})
    demand = Demand(rates={"busy": 9.0}, total=9.0, waiting={"other": 0.0})
    goals = {"busy": 1, "other": 1}
    assert place(adapters("busy", "other"), before, goals, demand, RESIDENCE_S - 0.1) == {"e0": {"busy"}}
    assert place(adapters("busy", "other"), before, goals, demand, RESIDENCE_S) == {"e0": {"other"}}


def test_a_pinned_adapter_never_leaves_and_is_loaded_unasked() -> None:
    pinned = Adapter("pinned", pinned=True, replicas_min=1)
    before = hosts(1, 1, {"e0": {"pinned": 0.0}})
    demand = Demand(waiting={"other": 0.0})
    assert place([pinned, Adapter("other")], before, {"pinned": 1, "other": 1}, demand, 1e6) == {"e0": {"pinned"}}
    assert wanted_replicas(pinned, Demand(), 3) == 1


def test_surplus_goes_before_anybodys_last_place() -> None:
    before = hosts(2, 1, {"e0": {"a": 0.0}, "e1": {"a": 0.0}})
    placement = place(adapters("a", "b"), before, {"a": 1, "b": 1}, Demand(waiting={"b": 0.0}), 0.0)
    assert (len(where(placement, "a")), len(where(placement, "b"))) == (1, 1)


def test_an_unchanged_world_moves_nothing() -> None:
    names = [f"a{i}" for i in range(12)]
    goals = {name: 1 + i % 3 for i, name in enumerate(names)}
    demand = Demand(rates=dict.fromkeys(names, 1.0), total=12.0)
    first = place(adapters(*names), hosts(6, 4), goals, demand, 0.0)
    settled = again(first, hosts(6, 4))
    assert place(adapters(*names), settled, goals, demand, 1000.0) == first


def test_an_engine_that_joins_moves_nothing_and_one_that_leaves_moves_only_its_own() -> None:
    names = [f"a{i}" for i in range(12)]
    goals = dict.fromkeys(names, 1)
    demand = Demand(rates=dict.fromkeys(names, 1.0), total=12.0)
    settled = again(place(adapters(*names), hosts(4, 4), goals, demand, 0.0), hosts(4, 4))
    joined = [*settled, Host("new", 4)]
    assert moves(place(adapters(*names), joined, goals, demand, 100.0), joined) == 0
    lost, left = settled[0], settled[1:]
    assert moves(place(adapters(*names), left, goals, demand, 100.0), left) == len(lost.held)


def test_an_adapter_that_failed_on_an_engine_is_tried_elsewhere() -> None:
    broken = [Host("e0", 4, failed=frozenset({"a"})), Host("e1", 1)]
    assert where(place(adapters("a"), broken, {"a": 1}, Demand(), 0.0), "a") == ["e1"]


def test_what_is_declared_no_more_is_not_kept() -> None:
    assert place([], hosts(1, 2, {"e0": {"gone": 0.0}}), {}, Demand(), 0.0) == {"e0": frozenset()}


def test_hot_adapters_are_on_more_engines_as_their_share_says() -> None:
    demand = Demand(rates={"hot": 8.0, "warm": 1.0, "cold": 0.01}, total=10.0)
    assert [wanted_replicas(Adapter(name), demand, 10) for name in ("hot", "warm", "cold", "none")] == [10, 2, 1, 0]
    assert wanted_replicas(Adapter("hot", replicas_max=3), demand, 10) == 3


def test_replicas_grow_at_once_and_shrink_only_after_a_lull() -> None:
    targets, hot = Targets(), Demand(rates={"a": 5.0}, total=10.0)
    lull = Demand(rates={"a": 1.0}, total=10.0)
    assert targets.of(adapters("a"), hot, 10, 0.0) == {"a": 10}
    assert targets.of(adapters("a"), lull, 10, 1.0) == {"a": 10}
    assert targets.of(adapters("a"), lull, 10, SHRINK_AFTER_S) == {"a": 10}
    assert targets.of(adapters("a"), lull, 10, 1.0 + SHRINK_AFTER_S) == {"a": 2}


def test_a_burst_within_the_lull_starts_it_anew() -> None:
    targets, hot = Targets(), Demand(rates={"a": 5.0}, total=10.0)
    for at_s, demand, wanted in (
        (0, hot, 10),
        (1, Demand(), 10),
        (100, hot, 10),
        (130, Demand(), 10),
        (249, Demand(), 10),
    ):
        assert targets.of(adapters("a"), demand, 10, float(at_s)) == {"a": wanted}
    assert targets.of(adapters("a"), Demand(), 10, 130 + SHRINK_AFTER_S) == {"a": 0}


def test_a_constant_stream_is_shown_as_its_rate_and_then_forgotten() -> None:
    meter = DemandMeter()
    for second in range(int(6 * TIME_CONSTANT_S)):
        meter.take("r1", DemandReport({"a": 4 * (second + 1), "": 2 * (second + 1)}), float(second))
    demand = meter.demand(["a"], 6 * TIME_CONSTANT_S)
    assert demand.rate("a") == pytest.approx(4.0, rel=0.03)
    assert demand.total == pytest.approx(6.0, rel=0.03)
    assert not meter.demand(["a"], 20 * TIME_CONSTANT_S).is_asked("a")


def test_reports_of_several_replicas_add_up_and_a_repeated_one_counts_once() -> None:
    meter = DemandMeter()
    for _ in range(3):
        meter.take("r1", DemandReport({"a": 60}), 0.0)
        meter.take("r2", DemandReport({"a": 60}), 0.0)
    assert meter.demand(["a"], 0.0).rate("a") == pytest.approx(120 / TIME_CONSTANT_S)


def test_counts_of_before_the_controllers_restart_are_no_burst() -> None:
    meter = DemandMeter()
    meter.take("r1", DemandReport({"a": 1_000_000}), 0.0, counts_all=False)
    assert not meter.demand(["a"], 0.0).is_asked("a")
    meter.take("r1", DemandReport({"a": 1_000_060}), 1.0, counts_all=False)
    assert meter.demand(["a"], 1.0).rate("a") == pytest.approx(60 / TIME_CONSTANT_S)


def test_waiting_is_forgotten_when_it_is_not_repeated() -> None:
    meter = DemandMeter()
    meter.take("r1", DemandReport({}, ("a",)), 0.0, mark="1")
    meter.take("r1", DemandReport({}, ("a",)), WAITING_S - 1, mark="1")
    assert meter.demand(["a"], WAITING_S - 1).waiting == {"a": 0.0}
    assert not meter.demand(["a"], WAITING_S).waiting


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_slots_hold_pins_hold_and_every_waiting_adapter_gets_its_turn(seed: int) -> None:
    """Zipf demand over more adapters than slots, engines that come and go: 200 ticks of 5 s."""
    chance = random.Random(seed)
    names = [f"a{i}" for i in range(20)]
    fleet = [Adapter("pin", pinned=True, replicas_min=1), *adapters(*names)]
    present, targets = hosts(4, 2), Targets()
    waited: dict[str, float] = {}
    for tick in range(200):
        now_s = 5.0 * tick
        if chance.random() < 0.05 and len(present) > 2:
            present = present[1:]
        elif chance.random() < 0.05:
            present = [*present, Host(f"n{tick}", chance.choice((1, 2, 3)))]
        loaded = {name for host in present for name in host.held}
        asked = set(chance.choices(names, weights=[1 / (i + 1) for i in range(20)], k=5))
        waited = {name: waited.get(name, now_s) for name in (asked | waited.keys()) - loaded}
        demand = Demand(dict.fromkeys(asked, 1.0), 5.0, waited)
        placement = place(fleet, present, targets.of(fleet, demand, len(present), now_s), demand, now_s)
        assert all(len(placement[host.key]) <= host.slots for host in present), f"seed {seed}"
        assert where(placement, "pin"), f"seed {seed}: the pinned adapter is nowhere at {now_s} s"
        assert now_s - min(waited.values(), default=now_s) <= 200, f"seed {seed}: {waited}"
        present = again(placement, present, now_s)
