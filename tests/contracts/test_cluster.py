"""What a cluster is. Every implementation passes the same tests; the shipped fake is one of them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from hekla.platform.base.clock import SystemClock
from hekla.platform.base.errors import Temporary, Unavailable
from hekla.platform.cluster.actor_shell import RemoteError
from hekla.platform.cluster.fake import FakeCluster
from hekla.platform.cluster.interface import ActorGone, ActorSpec, Bundle, Cluster, Node, NoRoom

SCRIPTED = "hekla.platform.cluster.scripted:ScriptedActor"
DEADLINE_S = 60.0
_serial = itertools.count()


@pytest.fixture(params=["fake", pytest.param("ray", marks=pytest.mark.ray)])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    """A cluster of one node with 4 CPUs, nothing on it."""
    if request.param == "fake":
        node = Node("n1", "one", "127.0.0.1", {"CPU": 4.0, "memory": 2.0**30}, {"CPU": 4.0, "memory": 2.0**30})
        fake = FakeCluster([node], SystemClock())
        yield fake
        fake.check()
        await fake.close()
        return
    request.getfixturevalue("ray_session")
    from hekla.platform.cluster.ray_cluster import RayCluster

    ray_cluster = RayCluster(namespace=f"contract-{next(_serial)}")
    yield ray_cluster
    for name in await ray_cluster.placement_groups():
        await ray_cluster.remove_placement_group(name)
    await eventually(lambda: cpu_free_is(ray_cluster, 4.0))


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not await holds():
        assert time.monotonic() < deadline, "did not come true"
        await asyncio.sleep(0.02)


async def cpu_free_is(cluster: Cluster, cpus: float) -> bool:
    [node] = await cluster.nodes()
    return node.available["CPU"] == cpus


async def bundle(cluster: Cluster, **resources: float) -> Bundle:
    [node] = await cluster.nodes()
    return Bundle(resources, node.node_id)


async def start(cluster: Cluster, name: str = "a", group: str = "g", **kwargs: Any) -> None:
    """A scripted actor in a one-CPU group of its own."""
    if group not in await cluster.placement_groups():
        await cluster.create_placement_group(group, [await bundle(cluster, CPU=1)], 30)
    await cluster.start_actor(ActorSpec(name, SCRIPTED, kwargs, group))


async def test_a_node_says_what_it_has_and_what_is_free(cluster: Cluster) -> None:
    [node] = await cluster.nodes()
    assert node.total["CPU"] == 4.0
    assert node.available["CPU"] == 4.0
    assert node.total["memory"] > 0
    assert all("group" not in name and not name.startswith("node:") for name in node.total)


async def test_a_group_reserves_its_bundles_and_gives_them_back(cluster: Cluster) -> None:
    await cluster.create_placement_group("g", [await bundle(cluster, CPU=1), await bundle(cluster, CPU=1.5)], 30)
    assert await cluster.placement_groups() == {"g"}
    await eventually(lambda: cpu_free_is(cluster, 1.5))
    await cluster.remove_placement_group("g")
    assert await cluster.placement_groups() == set()
    await eventually(lambda: cpu_free_is(cluster, 4.0))


async def test_a_group_that_does_not_fit_leaves_nothing_and_says_what_it_waited_for(cluster: Cluster) -> None:
    with pytest.raises(NoRoom, match=r"too-big.*CPU"):
        await cluster.create_placement_group("too-big", [await bundle(cluster, CPU=9)], 0.3)
    assert await cluster.placement_groups() == set()
    await cluster.create_placement_group("too-big", [await bundle(cluster, CPU=1)], 30)


async def test_a_group_is_placed_whole_or_not_at_all(cluster: Cluster) -> None:
    with pytest.raises(NoRoom):
        await cluster.create_placement_group("g", [await bundle(cluster, CPU=3), await bundle(cluster, CPU=3)], 0.3)
    assert await cpu_free_is(cluster, 4.0)


async def test_a_group_pinned_to_an_unknown_node_finds_no_room(cluster: Cluster) -> None:
    with pytest.raises(NoRoom, match="f" * 56):
        await cluster.create_placement_group("g", [Bundle({"CPU": 1}, "f" * 56)], 0.3)


async def test_a_group_waits_for_room_until_its_deadline(cluster: Cluster) -> None:
    await cluster.create_placement_group("first", [await bundle(cluster, CPU=4)], 30)
    waiting = asyncio.gather(cluster.create_placement_group("second", [await bundle(cluster, CPU=4)], DEADLINE_S))
    await asyncio.sleep(0)
    await cluster.remove_placement_group("first")
    await waiting
    assert await cluster.placement_groups() == {"second"}


async def test_a_cancelled_group_leaves_nothing(cluster: Cluster) -> None:
    await cluster.create_placement_group("first", [await bundle(cluster, CPU=4)], 30)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(
            cluster.create_placement_group("second", [await bundle(cluster, CPU=4)], DEADLINE_S), timeout=0.5
        )
    assert await cluster.placement_groups() == {"first"}
    await cluster.remove_placement_group("first")
    await eventually(lambda: cpu_free_is(cluster, 4.0))


async def test_a_second_group_of_a_name_is_refused(cluster: Cluster) -> None:
    await cluster.create_placement_group("g", [await bundle(cluster, CPU=1)], 30)
    with pytest.raises(ValueError, match="'g' exists"):
        await cluster.create_placement_group("g", [await bundle(cluster, CPU=1)], 30)
    assert await cluster.placement_groups() == {"g"}


@pytest.mark.parametrize("resources", [{}, {"CPU": 0.0}, {"CPU": -1.0}, {"CPU": float("nan")}])
async def test_a_bundle_must_ask_for_something(cluster: Cluster, resources: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"bundles\[0\]\.resources"):
        await cluster.create_placement_group("g", [await bundle(cluster, **resources)], 1)


async def test_a_group_needs_a_bundle_and_a_plain_name(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="bundles: 0 given"):
        await cluster.create_placement_group("g", [], 1)
    with pytest.raises(ValueError, match="name 'a b'"):
        await cluster.create_placement_group("a b", [await bundle(cluster, CPU=1)], 1)


async def test_removing_and_stopping_what_is_not_there_is_no_error(cluster: Cluster) -> None:
    await cluster.remove_placement_group("nothing")
    await cluster.stop_actor("nothing")


async def test_an_actor_keeps_state_between_calls(cluster: Cluster) -> None:
    await start(cluster, start=10)
    assert await cluster.actors() == {"a"}
    assert await cluster.call("a", "add", 1) == 11
    assert await cluster.call("a", "add", 2, timeout_s=30) == 13


async def test_an_actor_runs_calls_side_by_side(cluster: Cluster) -> None:
    await start(cluster, start=7)
    waiting = asyncio.gather(*(cluster.call("a", "wait_told") for _ in range(20)))
    await cluster.call("a", "tell")
    assert await waiting == [7] * 20


async def test_arguments_and_answers_are_copies(cluster: Cluster) -> None:
    await start(cluster)
    sent = {"list": [1, 2], "bytes": b"\x00", "none": None}
    received = await cluster.call("a", "echo", sent)
    assert received == sent
    assert received is not sent


async def test_what_a_method_raises_arrives_as_itself(cluster: Cluster) -> None:
    await start(cluster)
    with pytest.raises(Temporary, match="not yet") as caught:
        await cluster.call("a", "refuse", "not yet", 2.5)
    assert type(caught.value) is Temporary
    assert str(caught.value) == "not yet"
    assert caught.value.delay_s == 2.5
    assert await cluster.call("a", "add", 1) == 1


async def test_an_error_that_can_not_be_pickled_arrives_as_text(cluster: Cluster) -> None:
    await start(cluster)
    with pytest.raises(RemoteError, match="_Unpicklable: the socket broke"):
        await cluster.call("a", "refuse_unpicklably", "the socket broke")


async def test_an_answer_that_can_not_be_pickled_is_an_error_of_that_call_only(cluster: Cluster) -> None:
    await start(cluster)
    with pytest.raises(RemoteError, match="can't be sent"):
        await cluster.call("a", "unpicklable")
    assert await cluster.call("a", "add", 1) == 1


@pytest.mark.parametrize("method", ["missing", "_count", "__init__"])
async def test_only_public_methods_can_be_called(cluster: Cluster, method: str) -> None:
    await start(cluster)
    with pytest.raises(AttributeError, match=f"ScriptedActor has no method '{method}'"):
        await cluster.call("a", method)


async def test_a_call_that_takes_too_long_is_unavailable_and_the_actor_lives_on(cluster: Cluster) -> None:
    await start(cluster)
    await cluster.call("a", "add", 5)
    with pytest.raises(Unavailable, match=r"a: wait_told gave no answer within 0\.2 s"):
        await cluster.call("a", "wait_told", timeout_s=0.2)
    assert await cluster.call("a", "add", 1) == 6


async def test_a_call_to_no_actor_says_so(cluster: Cluster) -> None:
    with pytest.raises(ActorGone, match="there is no actor of that name"):
        await cluster.call("nobody", "add", 1)


async def test_a_stopped_actor_is_gone_and_its_name_and_bundle_are_free_at_once(cluster: Cluster) -> None:
    await start(cluster, start=1)
    assert await cluster.call("a", "add", 1) == 2
    await cluster.stop_actor("a")
    assert await cluster.actors() == set()
    with pytest.raises(ActorGone, match="it was stopped"):
        await cluster.call("a", "add", 1)
    await start(cluster, start=100)
    assert await cluster.call("a", "add", 1) == 101


async def test_a_call_under_way_ends_when_its_actor_is_stopped(cluster: Cluster) -> None:
    await start(cluster)
    await cluster.call("a", "add", 1)
    waiting = asyncio.gather(cluster.call("a", "wait_told"), return_exceptions=True)
    await asyncio.sleep(0)
    await cluster.stop_actor("a")
    [outcome] = await waiting
    assert isinstance(outcome, ActorGone)


async def test_a_constructor_that_fails_makes_the_actor_gone_with_its_reason(cluster: Cluster) -> None:
    await start(cluster, fail="no such model")
    with pytest.raises(ActorGone, match="no such model"):
        await cluster.call("a", "add", 1, timeout_s=DEADLINE_S)
    await eventually(lambda: has_no_actors(cluster))
    with pytest.raises(ActorGone, match="no such model"):
        await cluster.call("a", "add", 1)


async def has_no_actors(cluster: Cluster) -> bool:
    return await cluster.actors() == set()


async def test_a_target_that_is_no_class_makes_the_actor_gone_with_its_reason(cluster: Cluster) -> None:
    await cluster.create_placement_group("g", [await bundle(cluster, CPU=1)], 30)
    await cluster.start_actor(ActorSpec("a", "hekla.platform.cluster.scripted:Nothing", {}, "g"))
    with pytest.raises(ActorGone, match="Nothing"):
        await cluster.call("a", "add", 1, timeout_s=DEADLINE_S)


async def test_removing_a_group_removes_its_actors(cluster: Cluster) -> None:
    await start(cluster)
    await cluster.call("a", "add", 1)
    await cluster.remove_placement_group("g")
    with pytest.raises(ActorGone):
        await cluster.call("a", "add", 1)
    await eventually(lambda: has_no_actors(cluster))


async def test_the_name_of_a_living_actor_is_taken(cluster: Cluster) -> None:
    await cluster.create_placement_group("g", [await bundle(cluster, CPU=1), await bundle(cluster, CPU=1)], 30)
    await cluster.start_actor(ActorSpec("a", SCRIPTED, {}, "g", 0))
    with pytest.raises(ValueError, match="actor 'a'"):
        await cluster.start_actor(ActorSpec("a", SCRIPTED, {}, "g", 1))


async def test_a_second_actor_of_a_bundle_waits_for_the_first_to_end(cluster: Cluster) -> None:
    await start(cluster, "first")
    await cluster.call("first", "add", 1)
    await start(cluster, "second")
    with pytest.raises(Unavailable):
        await cluster.call("second", "add", 1, timeout_s=0.5)
    await cluster.stop_actor("first")
    assert await cluster.call("second", "add", 1, timeout_s=DEADLINE_S) > 0


async def test_an_actor_needs_a_group_and_a_bundle_that_exist(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="no placement group 'missing'"):
        await cluster.start_actor(ActorSpec("a", SCRIPTED, {}, "missing"))
    await cluster.create_placement_group("g", [await bundle(cluster, CPU=1)], 30)
    with pytest.raises(ValueError, match="bundle 1 given, 0 to 0 allowed"):
        await cluster.start_actor(ActorSpec("a", SCRIPTED, {}, "g", 1))
    assert await cluster.actors() == set()


async def test_constructor_arguments_must_be_json(cluster: Cluster) -> None:
    await cluster.create_placement_group("g", [await bundle(cluster, CPU=1)], 30)
    with pytest.raises(ValueError, match="kwargs must be JSON"):
        await cluster.start_actor(ActorSpec("a", SCRIPTED, {"start": object()}, "g"))
