"""The cluster on Ray. Works in a driver and inside an async Ray actor alike; never starts or stops Ray itself.

Everything it makes is detached and carries its namespace in its name, so that a restarted platform finds what it made
before: `placement_groups()` and `actors()` ask Ray, not memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import ray
from ray.exceptions import (
    ActorPlacementGroupRemoved,
    ActorUnavailableError,
    ActorUnschedulableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from hekla.platform.base.errors import Unavailable
from hekla.platform.cluster import ray_private
from hekla.platform.cluster.actor_shell import ActorShell, Answer, RemoteError
from hekla.platform.cluster.checks import check_name, checked_bundles, checked_kwargs
from hekla.platform.cluster.interface import ActorGone, ActorSpec, Bundle, Node, NoRoom

ACTOR_CALLS_MAX = 64
"""Calls one actor runs at a time; long polls hold one each, so the limit must be well above the pollers."""

CONTROL_THREADS = 8
"""Threads for Ray's blocking requests to its head; each takes milliseconds."""

_LAST_WORDS_MAX = 1000
_GONE_WAIT_S = 10.0
_GONE_POLL_S = 0.05
_GONE = (
    RayActorError,
    ActorUnschedulableError,
    ActorPlacementGroupRemoved,
    RuntimeEnvSetupError,
    NodeDiedError,
    OutOfMemoryError,
    WorkerCrashedError,
)
"""What Ray raises when an actor will not answer again; `ActorUnavailableError` is caught before."""
_NODE_ID = "ray.io/node-id"

T = TypeVar("T")


class RayCluster:
    """`Cluster` on an initialised Ray. `namespace` separates platforms that share one Ray cluster."""

    def __init__(self, namespace: str = "hekla") -> None:
        check_name(namespace)
        self._namespace = namespace
        self._group_prefix = f"{namespace}.group."
        self._actor_prefix = f"{namespace}.actor."
        self._handles: dict[str, Any] = {}
        self._last_words: dict[str, str] = {}
        self._threads = ThreadPoolExecutor(CONTROL_THREADS, thread_name_prefix="hekla-cluster")

    async def nodes(self) -> list[Node]:
        return await self._blocking(_nodes)

    async def create_placement_group(self, name: str, bundles: list[Bundle], timeout_s: float) -> None:
        check_name(name)
        resources = checked_bundles(bundles)
        if name in await self.placement_groups():
            raise ValueError(f"a placement group named {name!r} exists")
        group = await self._blocking(lambda: self._request_group(name, resources, bundles))
        try:
            await asyncio.wait_for(asyncio.wrap_future(group.ready().future()), timeout_s)
        except BaseException as error:
            await self.remove_placement_group(name)
            if isinstance(error, TimeoutError | RayError):
                raise NoRoom(_no_room(name, resources, bundles, timeout_s)) from error
            raise

    def _request_group(self, name: str, resources: list[dict[str, float]], bundles: list[Bundle]) -> PlacementGroup:
        return ray.util.placement_group(
            bundles=resources,
            strategy="PACK",
            name=self._group_prefix + name,
            lifetime="detached",
            bundle_label_selector=[{_NODE_ID: bundle.node_id} for bundle in bundles],
        )

    async def remove_placement_group(self, name: str) -> None:
        def remove() -> None:
            for group_id in self._groups().get(name, {}):
                ray.util.remove_placement_group(ray_private.group_handle(group_id))

        await self._blocking(remove)
        await self._until(lambda: name not in self._groups(), f"placement group {name} was not removed")

    async def placement_groups(self) -> set[str]:
        return set(await self._blocking(self._groups))

    def _groups(self) -> dict[str, dict[str, Any]]:
        """This platform's groups: name to id to entry."""
        found: dict[str, dict[str, Any]] = {}
        for group_id, entry in ray_private.group_table().items():
            if entry["state"] != "REMOVED" and entry["name"].startswith(self._group_prefix):
                found.setdefault(entry["name"].removeprefix(self._group_prefix), {})[group_id] = entry
        return found

    async def start_actor(self, spec: ActorSpec) -> None:
        check_name(spec.name)
        kwargs = checked_kwargs(spec)
        handle = await self._blocking(lambda: self._request_actor(spec, kwargs))
        self._handles[spec.name] = handle
        self._last_words.pop(spec.name, None)

    def _request_actor(self, spec: ActorSpec, kwargs: dict[str, Any]) -> Any:
        entries = self._groups().get(spec.placement_group)
        if not entries:
            raise ValueError(f"actor {spec.name!r}: there is no placement group {spec.placement_group!r}")
        [(group_id, entry)] = entries.items()
        resources = ray_private.bundle_resources(entry, spec.bundle)
        if resources is None:
            count = len(entry["bundles"])
            raise ValueError(f"actor {spec.name!r}: bundle {spec.bundle} given, 0 to {count - 1} allowed")
        options = _actor_options(resources)
        if spec.env:
            options["runtime_env"] = {"env_vars": dict(spec.env)}
        shell = ray.remote(ActorShell).options(
            name=self._actor_prefix + spec.name,
            namespace=self._namespace,
            lifetime="detached",
            max_restarts=0,
            max_concurrency=ACTOR_CALLS_MAX,
            enable_task_events=False,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                placement_group=ray_private.group_handle(group_id), placement_group_bundle_index=spec.bundle
            ),
            **options,
        )
        try:
            return shell.remote(spec.target, kwargs)
        except ValueError as error:
            raise ValueError(f"actor {spec.name!r}: {error}") from error

    async def stop_actor(self, name: str) -> None:
        def kill() -> None:
            try:
                handle = self._handles.pop(name, None) or self._find(name)
            except ValueError:
                return
            ray.kill(handle, no_restart=True)

        await self._blocking(kill)
        await self._until(lambda: name not in self._actors(), f"actor {name} did not end")
        self._remember_end(name, "it was stopped")

    async def actors(self) -> set[str]:
        return await self._blocking(self._actors)

    def _actors(self) -> set[str]:
        return {
            entry["name"].removeprefix(self._actor_prefix)
            for entry in ray.util.list_named_actors(all_namespaces=True)
            if entry["namespace"] == self._namespace and entry["name"].startswith(self._actor_prefix)
        }

    async def call(self, name: str, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        """As the interface says. After a timeout the method runs on: a call is abandoned, not undone."""
        handle = await self._handle(name)
        try:
            reply = handle.call.remote(method, args)
            answer: Answer = await asyncio.wait_for(asyncio.wrap_future(reply.future()), timeout_s)
        except TimeoutError as error:
            raise Unavailable(f"actor {name}: {method} gave no answer within {timeout_s} s") from error
        except ActorUnavailableError as error:
            raise Unavailable(f"actor {name} can't be reached: {error}") from error
        except _GONE as error:
            self._handles.pop(name, None)
            self._remember_end(name, str(error))
            raise ActorGone(f"actor {name} is gone: {error}") from error
        except RayTaskError as error:  # the shell catches what methods raise; this is an answer that does not pickle
            raise RemoteError(f"actor {name}: the answer of {method} can't be sent: {error}") from error
        except RayError as error:
            raise Unavailable(f"actor {name}: {method}: {error}") from error
        return answer.open()

    async def _handle(self, name: str) -> Any:
        if (known := self._handles.get(name)) is not None:
            return known
        try:
            handle = await self._blocking(lambda: self._find(name))
        except ValueError as error:
            reason = self._last_words.get(name, "there is no actor of that name")
            raise ActorGone(f"actor {name} is gone: {reason}") from error
        self._handles[name] = handle
        return handle

    def _find(self, name: str) -> Any:
        return ray.get_actor(self._actor_prefix + name, namespace=self._namespace)

    def _remember_end(self, name: str, reason: str) -> None:
        self._last_words[name] = reason
        while len(self._last_words) > _LAST_WORDS_MAX:
            self._last_words.pop(next(iter(self._last_words)))

    async def _until(self, holds: Callable[[], bool], otherwise: str) -> None:
        """Removals are only requests to Ray's head: poll until done, so that a name can be used again at once."""
        for _ in range(int(_GONE_WAIT_S / _GONE_POLL_S)):
            if await self._blocking(holds):
                return
            await asyncio.sleep(_GONE_POLL_S)
        raise Unavailable(f"{otherwise} within {_GONE_WAIT_S} s")

    async def _blocking(self, request: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, request)

    def __repr__(self) -> str:
        return f"RayCluster(namespace={self._namespace!r}, actors_known={len(self._handles)})"


def _nodes() -> list[Node]:
    free = ray_private.available_by_node()
    found = [
        Node(
            node_id=node["NodeID"],
            name=node["NodeManagerHostname"] or node["NodeManagerAddress"],
            address=node["NodeManagerAddress"],
            total=ray_private.quantities(node["Resources"]),
            # A resource that is used up is missing from Ray's answer rather than zero.
            available={
                name: free.get(node["NodeID"], {}).get(name, 0.0) for name in ray_private.quantities(node["Resources"])
            },
            labels=dict(node["Labels"]),
            is_head=ray_private.is_head(node["Resources"]),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(found, key=lambda node: node.node_id)


def _actor_options(resources: dict[str, float]) -> dict[str, Any]:
    """The whole bundle: only an actor that holds a device sees it in CUDA_VISIBLE_DEVICES or its like."""
    custom = {name: amount for name, amount in resources.items() if name not in ("CPU", "GPU", "memory")}
    options: dict[str, Any] = {"num_cpus": resources.get("CPU", 0), "num_gpus": resources.get("GPU", 0)}
    if memory := resources.get("memory"):
        options["memory"] = int(memory)
    if custom:
        options["resources"] = custom
    return options


def _no_room(name: str, resources: list[dict[str, float]], bundles: list[Bundle], timeout_s: float) -> str:
    asked = "; ".join(
        f"{', '.join(f'{amount:g} {resource}' for resource, amount in sorted(bundle.items()))} on node {pinned.node_id}"
        for bundle, pinned in zip(resources, bundles, strict=True)
    )
    return f"placement group {name}: no room within {timeout_s} s for {asked}"
