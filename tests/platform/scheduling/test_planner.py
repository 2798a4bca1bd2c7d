"""The gang planner: examples of what it prefers, and properties that hold for every cluster and gang."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hekla.platform.cluster.interface import Node
from hekla.platform.scheduling.model import UNITS_PER_ONE, BundleAsk, ClusterSnapshot, Gang, GroupAsk, Placement, units
from hekla.platform.scheduling.planner import plan
from hekla.platform.scheduling.shortage import Shortage


def node(name: str, free: dict[str, float] | None = None, labels: dict[str, str] | None = None, **total: float) -> Node:
    return Node(name, name, "10.0.0.1", total, {**total, **(free or {})}, labels or {})


def snapshot(*nodes: Node) -> ClusterSnapshot:
    return ClusterSnapshot.of(nodes)


def gang(*groups: Sequence[Mapping[str, float]], **labels: str) -> Gang:
    return Gang(
        "g", tuple(GroupAsk(f"r{i}", tuple(BundleAsk(b, labels) for b in bundles)) for i, bundles in enumerate(groups))
    )


def placed(snap: ClusterSnapshot, wanted: Gang) -> dict[str, tuple[str, ...]]:
    found = plan(snap, wanted)
    assert isinstance(found, Placement), found.explain()
    return dict(found.nodes)


def short(snap: ClusterSnapshot, wanted: Gang) -> Shortage:
    found = plan(snap, wanted)
    assert isinstance(found, Shortage), found
    return found


def test_a_group_goes_to_one_node_when_one_has_room_for_it() -> None:
    snap = snapshot(node("a", CPU=2), node("b", CPU=4), node("c", CPU=8))
    assert placed(snap, gang([{"CPU": 2}, {"CPU": 2}])) == {"r0": ("b", "b")}


def test_a_group_spans_as_few_nodes_as_it_must() -> None:
    snap = snapshot(*(node(name, CPU=8, GPU=4) for name in "abc"))
    found = placed(snap, gang([{"GPU": 2}] * 4))
    assert Counter(found["r0"]) == {"a": 2, "b": 2}


def test_the_best_fit_leaves_the_large_node_whole() -> None:
    snap = snapshot(node("a", CPU=64, GPU=8), node("b", CPU=64, GPU=8, free={"GPU": 2.0}))
    assert placed(snap, gang([{"GPU": 2, "CPU": 4}])) == {"r0": ("b",)}


def test_work_without_accelerators_keeps_off_nodes_that_have_them() -> None:
    snap = snapshot(node("a", CPU=4, GPU=8), node("b", CPU=64))
    assert placed(snap, gang([{"CPU": 4}])) == {"r0": ("b",)}
    assert placed(snap, gang([{"CPU": 4}], [{"CPU": 64}]))["r0"] == ("a",)


def test_work_for_one_accelerator_keeps_off_nodes_with_another() -> None:
    snap = snapshot(node("a", CPU=8, GPU=1, NPU=8), node("b", CPU=8, GPU=8))
    assert placed(snap, gang([{"GPU": 1}])) == {"r0": ("b",)}


def test_labels_decide_which_nodes_come_into_question() -> None:
    snap = snapshot(node("a", CPU=8), node("b", CPU=8, labels={"zone": "z2"}))
    assert placed(snap, gang([{"CPU": 1}], zone="z2")) == {"r0": ("b",)}
    refused = short(snap, gang([{"CPU": 1}], zone="z3"))
    assert refused.never
    assert "labels zone=z3; 2 nodes, none has them" in refused.explain()


def test_a_bundle_is_never_split_over_nodes_and_the_shortage_says_so() -> None:
    snap = snapshot(node("a", GPU=8, free={"GPU": 1.0}), node("b", GPU=8, free={"GPU": 0.0}))
    refused = short(snap, gang([{"GPU": 2}]))
    assert not refused.never
    assert (refused.resource, refused.missing) == ("GPU", 10_000)
    assert refused.explain() == (
        "gang g does not fit now: bundle 0 of group r0 needs 2 GPU in one bundle; "
        "node a has 1 free of 8, node b has 0 free of 8; cluster total free 1"
    )


def test_what_no_empty_cluster_could_hold_never_fits() -> None:
    refused = short(snapshot(node("a", CPU=8, GPU=8), node("b", CPU=8)), gang([{"GPU": 9}]))
    assert refused.never
    assert "will never fit this cluster" in refused.explain()


def test_a_cluster_without_nodes_never_fits_anything() -> None:
    assert short(snapshot(), gang([{"CPU": 1}])).explain().endswith("there are no nodes; cluster total free 0")


def test_a_gang_whose_second_group_finds_no_room_is_refused_whole() -> None:
    refused = short(snapshot(node("a", CPU=4, GPU=1)), gang([{"GPU": 1}], [{"GPU": 1}]))
    assert refused.never
    assert "beside 1 other bundles of the gang" in refused.explain()


def test_the_scarce_memory_is_told_in_gibibytes() -> None:
    refused = short(snapshot(node("a", CPU=4, memory=8 * 2**30)), gang([{"CPU": 1, "memory": 16 * 2**30}]))
    assert "needs 16 GiB memory in one bundle; node a has 8 GiB free of 8 GiB" in refused.explain()


def test_an_explanation_names_a_bounded_number_of_nodes() -> None:
    refused = short(snapshot(*(node(f"n{i:03}", CPU=1) for i in range(100))), gang([{"CPU": 2}]))
    assert refused.explain().count("node n") == 8
    assert "and 92 more nodes" in refused.explain()


def test_fractions_add_up_exactly() -> None:
    assert placed(snapshot(node("a", GPU=1)), gang([{"GPU": 0.1}] * 10)) == {"r0": ("a",) * 10}
    assert isinstance(plan(snapshot(node("a", GPU=1)), gang([{"GPU": 0.1}] * 11)), Shortage)


@pytest.mark.parametrize("resources", [{}, {"CPU": 0.0}, {"CPU": -1.0}, {"GPU": 1.5}, {"CPU": float("nan")}])
def test_a_bundle_that_makes_no_sense_is_refused(resources: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="resources"):
        BundleAsk(resources)


def test_groups_of_a_gang_have_different_names_and_at_least_one_bundle() -> None:
    one = GroupAsk("r", (BundleAsk({"CPU": 1}),))
    with pytest.raises(ValueError, match="must differ"):
        Gang("g", (one, one))
    with pytest.raises(ValueError, match="without a bundle"):
        Gang("g", (GroupAsk("r", ()),))


def test_a_placement_that_greedy_choices_miss_is_found_by_matching() -> None:
    """The best fit of the bundle that is placed first is the only node of the other."""
    snap = snapshot(node("a", CPU=4, memory=3), node("b", CPU=5, memory=1), node("c", memory=100))
    assert placed(snap, gang([{"CPU": 4, "memory": 3}], [{"CPU": 4}])) == {"r0": ("a",), "r1": ("b",)}


amounts = st.fixed_dictionaries(
    {"CPU": st.integers(1, 8)}, optional={"GPU": st.integers(1, 4), "memory": st.integers(1, 64)}
)
clusters = st.lists(
    st.fixed_dictionaries(
        {"CPU": st.integers(0, 16), "GPU": st.integers(0, 8), "memory": st.integers(0, 128), "busy": st.floats(0, 1)}
    ),
    max_size=6,
).map(
    lambda rows: snapshot(
        *(
            Node(
                f"n{i}",
                f"n{i}",
                "10.0.0.1",
                {name: row[name] for name in ("CPU", "GPU", "memory")},
                {name: int(row[name] * (1 - row["busy"])) for name in ("CPU", "GPU", "memory")},
            )
            for i, row in enumerate(rows)
        )
    )
)
gangs = st.lists(st.lists(amounts, min_size=1, max_size=4), min_size=1, max_size=4).map(lambda groups: gang(*groups))


@given(clusters, gangs)
def test_no_plan_commits_more_than_a_node_has_and_none_is_partial(snap: ClusterSnapshot, wanted: Gang) -> None:
    found = plan(snap, wanted)
    if isinstance(found, Shortage):
        assert found.explain()
        return
    taken: dict[str, Counter[str]] = {node.node_id: Counter() for node in snap.nodes}
    for group in wanted.groups:
        assert len(found.nodes[group.name]) == len(group.bundles)
        for ask, node_id in zip(group.bundles, found.nodes[group.name], strict=True):
            taken[node_id].update(units(ask.resources))
    for room in snap.nodes:
        assert all(amount <= room.free.get(name, 0) for name, amount in taken[room.node_id].items())


@given(clusters, gangs)
def test_the_same_snapshot_gives_the_same_plan_in_any_order_of_nodes(snap: ClusterSnapshot, wanted: Gang) -> None:
    turned = ClusterSnapshot.of(
        Node(n.node_id, n.name, "", plain(n.total), plain(n.free)) for n in reversed(snap.nodes)
    )
    assert plan(turned, wanted) == plan(snap, wanted)


def plain(counted: Mapping[str, int]) -> dict[str, float]:
    return {name: amount / UNITS_PER_ONE for name, amount in counted.items()}


@given(clusters, st.lists(amounts, min_size=1, max_size=4))
def test_a_placement_is_found_whenever_each_bundle_can_have_a_node_of_its_own(
    snap: ClusterSnapshot, bundles: list[dict[str, float]]
) -> None:
    def fits(bundle: dict[str, float], room_index: int) -> bool:
        free = snap.nodes[room_index].free
        return all(amount <= free.get(name, 0) for name, amount in units(bundle).items())

    one_each = any(
        all(fits(bundle, index) for bundle, index in zip(bundles, chosen, strict=True))
        for chosen in itertools.permutations(range(len(snap.nodes)), len(bundles))
    )
    if one_each:
        assert isinstance(plan(snap, gang(bundles)), Placement)


@given(clusters, gangs)
def test_a_shortage_names_a_bundle_of_the_gang_and_a_resource_that_it_asks_for(
    snap: ClusterSnapshot, wanted: Gang
) -> None:
    found = plan(snap, wanted)
    if isinstance(found, Shortage):
        [group] = [group for group in wanted.groups if group.name == found.group]
        assert found.ask == group.bundles[found.bundle]
        assert 0 < found.missing <= units(found.ask.resources)[found.resource]


def test_a_large_cluster_is_planned_in_a_bounded_number_of_steps() -> None:
    """No wall clock here: the planner would need hours if it tried combinations."""
    snap = snapshot(*(node(f"n{i:04}", CPU=64, GPU=8, free={"GPU": float(i % 8)}) for i in range(500)))
    found = placed(snap, gang(*[[{"GPU": 7}, {"GPU": 4}]] * 20))
    assert len({node_id for pair in found.values() for node_id in pair}) == 40
