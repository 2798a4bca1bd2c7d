"""What the in-memory cluster does beyond the contract: deaths, nodes that come and go, virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hekla.platform.base.clock import VirtualClock, settle
from hekla.platform.base.errors import Unavailable
from hekla.platform.cluster.fake import FakeCluster
from hekla.platform.cluster.interface import ActorGone, ActorSpec, Bundle, Node, NoRoom

SCRIPTED = "hekla.platform.cluster.scripted:ScriptedActor"


def node(name: str, **resources: float) -> Node:
    return Node(name, name, "10.0.0.1", resources, resources)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def cluster(clock: VirtualClock) -> AsyncIterator[FakeCluster]:
    fake = FakeCluster([node("n1", CPU=4, GPU=2), node("n2", CPU=4)], clock)
    yield fake
    fake.check()
    await fake.close()


async def start(cluster: FakeCluster, name: str, node_id: str = "n1") -> None:
    await cluster.create_placement_group(name, [Bundle({"CPU": 1}, node_id)], 0)
    await cluster.start_actor(ActorSpec(name, SCRIPTED, {}, name, env={"A": "b"}))


async def test_a_killed_actor_is_gone_with_the_reason_and_its_calls_end(cluster: FakeCluster) -> None:
    await start(cluster, "a")
    waiting = asyncio.gather(cluster.call("a", "wait_told"), return_exceptions=True)
    await settle()
    cluster.kill_actor("a", "out of memory")
    [outcome] = await waiting
    assert isinstance(outcome, ActorGone)
    with pytest.raises(ActorGone, match="out of memory"):
        await cluster.call("a", "add", 1)
    assert await cluster.actors() == set()
    assert await cluster.placement_groups() == {"a"}


async def test_killing_an_actor_that_is_not_there_says_which_are(cluster: FakeCluster) -> None:
    await start(cluster, "a")
    with pytest.raises(ValueError, match="no actor 'b'; actors: a"):
        cluster.kill_actor("b")


async def test_a_dead_node_takes_its_actors_and_leaves_its_groups_to_be_removed(cluster: FakeCluster) -> None:
    await start(cluster, "a", "n1")
    await start(cluster, "b", "n2")
    cluster.remove_node("n1")
    assert [one.node_id for one in await cluster.nodes()] == ["n2"]
    assert await cluster.actors() == {"b"}
    assert await cluster.placement_groups() == {"a", "b"}
    with pytest.raises(ActorGone, match="node n1 died"):
        await cluster.call("a", "add", 1)
    await cluster.remove_placement_group("a")
    assert await cluster.placement_groups() == {"b"}


async def test_a_group_over_two_nodes_gives_back_what_the_living_one_had(cluster: FakeCluster) -> None:
    await cluster.create_placement_group("g", [Bundle({"CPU": 3}, "n1"), Bundle({"CPU": 3}, "n2")], 0)
    cluster.remove_node("n1")
    await cluster.remove_placement_group("g")
    [left] = await cluster.nodes()
    assert left.available["CPU"] == 4


async def test_an_actor_on_a_node_that_died_before_it_started_waits_until_its_group_is_removed(
    cluster: FakeCluster,
) -> None:
    await cluster.create_placement_group("g", [Bundle({"CPU": 1}, "n1")], 0)
    cluster.remove_node("n1")
    await cluster.start_actor(ActorSpec("a", SCRIPTED, {}, "g"))
    await settle()
    assert cluster.subject("a") is None
    waiting = asyncio.gather(cluster.call("a", "add", 1), return_exceptions=True)
    await settle()
    await cluster.remove_placement_group("g")
    [outcome] = await waiting
    assert isinstance(outcome, ActorGone)


async def test_a_group_waits_for_a_node_to_join(cluster: FakeCluster, clock: VirtualClock) -> None:
    waiting = asyncio.gather(cluster.create_placement_group("g", [Bundle({"GPU": 8}, "n3")], 60))
    await clock.advance(59)
    assert await cluster.placement_groups() == set()
    cluster.add_node(node("n3", GPU=8))
    await waiting
    assert await cluster.placement_groups() == {"g"}


async def test_a_group_gives_up_exactly_at_its_deadline(cluster: FakeCluster, clock: VirtualClock) -> None:
    waiting = asyncio.gather(
        cluster.create_placement_group("g", [Bundle({"GPU": 8}, "n1")], 60), return_exceptions=True
    )
    await clock.advance(59.9)
    assert not waiting.done()
    await clock.advance(0.1)
    [outcome] = await waiting
    assert isinstance(outcome, NoRoom)


async def test_a_call_times_out_in_the_clocks_time(cluster: FakeCluster, clock: VirtualClock) -> None:
    await start(cluster, "a")
    waiting = asyncio.gather(cluster.call("a", "wait_told", timeout_s=3600), return_exceptions=True)
    await clock.advance(3599)
    assert not waiting.done()
    await clock.advance(1)
    [outcome] = await waiting
    assert isinstance(outcome, Unavailable)


async def test_fractions_of_a_device_add_up_exactly(cluster: FakeCluster) -> None:
    for index in range(20):
        await cluster.create_placement_group(f"g{index}", [Bundle({"GPU": 0.1}, "n1")], 0)
    with pytest.raises(NoRoom):
        await cluster.create_placement_group("one-more", [Bundle({"GPU": 0.1}, "n1")], 0)


async def test_a_test_can_look_at_an_actors_object_and_at_what_it_was_started_with(cluster: FakeCluster) -> None:
    await start(cluster, "a")
    await cluster.call("a", "add", 2)
    assert await cluster.subject("a").add(0) == 2
    assert cluster.spec("a").env == {"A": "b"}


async def test_a_node_joins_once(cluster: FakeCluster) -> None:
    with pytest.raises(ValueError, match="'n1' is there already"):
        cluster.add_node(node("n1"))
    with pytest.raises(ValueError, match="no node 'n9'; nodes: n1, n2"):
        cluster.remove_node("n9")
