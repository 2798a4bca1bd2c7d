"""The cluster in memory: nodes are numbers, actors are objects in this process.

Held to the same contract as Ray (`tests/contracts/test_cluster.py`): resources are counted exactly, arguments and
answers are copied by pickling, and names, limits and refusals are the same. An actor's `env` is recorded, not set.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import Unavailable
from hekla.platform.base.tasks import TaskOwner
from hekla.platform.cluster.actor_shell import Answer, RemoteError, call_method, failed, load_target
from hekla.platform.cluster.checks import check_name, checked_bundles, checked_kwargs
from hekla.platform.cluster.fake_room import Ledger
from hekla.platform.cluster.interface import ActorGone, ActorSpec, Bundle, Node, NoRoom


@dataclass
class _Group:
    bundles: list[Bundle]
    holders: dict[int, str] = field(default_factory=dict)
    """Which actor holds a bundle; an actor holds its bundle whole."""


@dataclass
class _Actor:
    spec: ActorSpec
    kwargs: dict[str, Any]
    subject: Any = None
    death: str = ""
    """Why it died; empty while it lives."""
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    calls: set[asyncio.Task[Any]] = field(default_factory=set)


class FakeCluster:
    """`Cluster` in memory. `kill_actor`, `add_node` and `remove_node` are the world's doings, for tests and simulation.

    Call `close` at the end: it ends the calls still running. An object with a `killed()` method hears of its actor's
    death, so that what would die with a process can be let go.
    """

    def __init__(self, nodes: Iterable[Node], clock: Clock) -> None:
        self._clock = clock
        self._ledger = Ledger(nodes)
        self._groups: dict[str, _Group] = {}
        self._actors: dict[str, _Actor] = {}
        self._last_words: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._tasks = TaskOwner("fake-cluster")

    async def nodes(self) -> list[Node]:
        return self._ledger.nodes()

    async def create_placement_group(self, name: str, bundles: list[Bundle], timeout_s: float) -> None:
        check_name(name)
        asked = [
            replace(bundle, resources=resources)
            for bundle, resources in zip(bundles, checked_bundles(bundles), strict=True)
        ]
        if name in self._groups:
            raise ValueError(f"a placement group named {name!r} exists")
        deadline = self._clock.monotonic() + timeout_s
        while not self._ledger.take(asked):
            left = deadline - self._clock.monotonic()
            if left <= 0:
                raise NoRoom(f"placement group {name}: no room within {timeout_s} s for {asked}")
            change = self._tasks.spawn(self._changed.wait(), f"room for {name}")
            await self._within(left, change)
            change.cancel()
        if name in self._groups:
            self._ledger.give_back(asked)
            raise ValueError(f"a placement group named {name!r} exists")
        self._groups[name] = _Group(asked)

    async def remove_placement_group(self, name: str) -> None:
        group = self._groups.pop(name, None)
        if group is None:
            return
        for actor in [held for held, one in self._actors.items() if one.spec.placement_group == name]:
            self._end(actor, "its placement group was removed")
        self._ledger.give_back(group.bundles)
        self._wake()

    async def placement_groups(self) -> set[str]:
        return set(self._groups)

    async def start_actor(self, spec: ActorSpec) -> None:
        check_name(spec.name)
        kwargs = checked_kwargs(spec)
        group = self._groups.get(spec.placement_group)
        if group is None:
            raise ValueError(f"actor {spec.name!r}: there is no placement group {spec.placement_group!r}")
        if not 0 <= spec.bundle < len(group.bundles):
            raise ValueError(f"actor {spec.name!r}: bundle {spec.bundle} given, 0 to {len(group.bundles) - 1} allowed")
        if spec.name in self._actors:
            raise ValueError(f"actor {spec.name!r}: the name is taken")
        actor = _Actor(spec, kwargs)
        self._actors[spec.name] = actor
        self._last_words.pop(spec.name, None)
        self._tasks.spawn(self._come_up(actor), f"start {spec.name}")

    async def _come_up(self, actor: _Actor) -> None:
        """Wait until the bundle is free and its node alive, then build the object."""
        name, index = actor.spec.name, actor.spec.bundle
        group = self._groups[actor.spec.placement_group]
        while not actor.death and (index in group.holders or not self._ledger.has(group.bundles[index].node_id)):
            await self._changed.wait()
        if actor.death:
            return
        group.holders[index] = name
        try:
            actor.subject = load_target(actor.spec.target)(**actor.kwargs)
        except Exception as error:  # noqa: BLE001 (the actor's end, told to its callers)
            self._end(name, f"its constructor raised {type(error).__name__}: {error}")
        else:
            actor.ready.set()

    async def stop_actor(self, name: str) -> None:
        self._end(name, "it was stopped")

    async def actors(self) -> set[str]:
        return set(self._actors)

    async def call(self, name: str, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        actor = self._actors.get(name)
        if actor is None:
            reason = self._last_words.get(name, "there is no actor of that name")
            raise ActorGone(f"actor {name} is gone: {reason}")
        call = self._tasks.spawn(_run(actor, method, pickle.dumps(args)), f"{name}.{method}")
        actor.calls.add(call)
        call.add_done_callback(actor.calls.discard)
        if not await self._within(timeout_s, call):
            raise Unavailable(f"actor {name}: {method} gave no answer within {timeout_s} s")
        if call.cancelled():
            raise ActorGone(f"actor {name} is gone: {actor.death or 'the cluster was closed'}")
        return pickle.loads(call.result()).open()

    async def _within(self, timeout_s: float | None, task: asyncio.Task[Any]) -> bool:
        """Wait for the task at most that long; it runs on when the time is over."""
        if timeout_s is None:
            await asyncio.wait({task})
            return True
        timer = self._tasks.spawn(self._clock.sleep(timeout_s), "deadline")
        try:
            await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        return task.done()

    def add_node(self, node: Node) -> None:
        """A node joins."""
        self._ledger.add(node)
        self._wake()

    def remove_node(self, node_id: str) -> None:
        """A node dies, and its actors with it; its placement groups remain, as on Ray, until they are removed."""
        self._ledger.remove(node_id)
        for name, actor in list(self._actors.items()):
            if self._groups[actor.spec.placement_group].bundles[actor.spec.bundle].node_id == node_id:
                self._end(name, f"its node {node_id} died")

    def kill_actor(self, name: str, reason: str = "its process was killed") -> None:
        """An actor's process dies."""
        if name not in self._actors:
            raise ValueError(f"there is no actor {name!r}; actors: {', '.join(sorted(self._actors)) or 'none'}")
        self._end(name, reason)

    def subject(self, name: str) -> Any:
        """The object behind an actor, for tests to look into; None while it is not built."""
        return self._actors[name].subject

    def spec(self, name: str) -> ActorSpec:
        """What the actor was started with."""
        return self._actors[name].spec

    async def close(self) -> None:
        """End every actor and every call."""
        for name in list(self._actors):
            self._end(name, "the cluster was closed")
        await self._tasks.stop()

    def _end(self, name: str, reason: str) -> None:
        actor = self._actors.pop(name, None)
        if actor is None:
            return
        actor.death = reason
        self._last_words[name] = reason
        for call in list(actor.calls):
            call.cancel()
        group = self._groups.get(actor.spec.placement_group)
        if group is not None and group.holders.get(actor.spec.bundle) == name:
            del group.holders[actor.spec.bundle]
        if (killed := getattr(actor.subject, "killed", None)) is not None:
            killed()
        self._wake()

    def _wake(self) -> None:
        """Everyone who waits for room looks again."""
        waiting, self._changed = self._changed, asyncio.Event()
        waiting.set()

    def check(self) -> None:
        """Assert what must always hold: exact accounts, and only living actors hold bundles."""
        self._ledger.check()
        for name, group in self._groups.items():
            for index, holder in group.holders.items():
                spec = self._actors[holder].spec
                assert (spec.placement_group, spec.bundle) == (name, index), f"{holder} holds {name}[{index}]"

    def __repr__(self) -> str:
        return f"FakeCluster(nodes={len(self._ledger.nodes())}, groups={sorted(self._groups)}, actors={sorted(self._actors)})"


async def _run(actor: _Actor, method: str, packed_args: bytes) -> bytes:
    """One call as the shell in a Ray actor would run it; the answer is pickled, so nothing is shared."""
    await actor.ready.wait()
    try:
        value = await call_method(actor.subject, method, pickle.loads(packed_args))
    except Exception as error:  # noqa: BLE001 (it is raised again at the caller)
        return pickle.dumps(failed(error))
    try:
        return pickle.dumps(Answer(value=value))
    except Exception as error:  # noqa: BLE001 (a class may raise anything while it is packed)
        return pickle.dumps(
            failed(RemoteError(f"actor {actor.spec.name}: the answer of {method} can't be sent: {error}"))
        )
