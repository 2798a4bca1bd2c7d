"""The two stores, given the same orders, give the same answers: op by op, errors and events included."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hekla.platform.api.meta import Json, Ref, owner_reference
from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.errors import ApiError, NotFound
from hekla.platform.base.ids import SeededIds
from hekla.platform.store.interface import Listing, Store, Watch
from hekla.platform.store.memory import MemoryStore
from hekla.platform.store.sqlite import SqliteStore

names = st.sampled_from(["a", "b", "c", "d"])
kinds = st.sampled_from(["Model", "Child"])
labels = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["x", "y"]), max_size=2)
specs = st.dictionaries(st.sampled_from(["n", "m"]), st.sampled_from([0, 1, True, 1.0, None, "ü\ud800"]), max_size=2)
finalizers = st.lists(st.sampled_from(["one", "two"]), unique=True, max_size=2)
owners = st.lists(st.tuples(kinds, names), unique=True, max_size=2)


class Twins(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="hekla-twins-"))
        self.clock = VirtualClock()
        self.stores: list[Store] = []
        self.watches: list[Watch] = []
        self.transactions: list[ExitStack] = []
        self.versions: list[str] = ["0"]

    @initialize()
    def open(self) -> None:
        sqlite = SqliteStore(self.folder / "store.db", self.clock, SeededIds(7))
        self.stores = [MemoryStore(self.clock, SeededIds(7)), sqlite]
        self.watches = [store.watch((), "0") for store in self.stores]

    def both(self, act: Callable[[Store], Any]) -> Any:
        memory, sqlite = (_outcome(act, store) for store in self.stores)
        assert memory == sqlite
        return memory

    def object(self, kind: str, name: str, **metadata: Any) -> Json:
        owned_by = []
        for owner in metadata.pop("owners", ()):
            try:
                owned_by.append(
                    owner_reference({"apiVersion": "v1", **self.stores[0].get(Ref(owner[0], "default", owner[1]))})
                )
            except NotFound:
                owned_by.append({"kind": owner[0], "name": owner[1], "uid": f"ghost-{owner}"})
        return {"kind": kind, "metadata": {"name": name, "ownerReferences": owned_by, **metadata}}

    @rule(kind=kinds, name=names, labels=labels, spec=specs, finalizers=finalizers, owners=owners)
    def create(self, kind: str, name: str, spec: Json, **metadata: Any) -> None:
        obj = {**self.object(kind, name, **metadata), "spec": spec}
        self.both(lambda store: store.create(obj))

    @rule(kind=kinds, name=names, labels=labels, spec=specs, finalizers=finalizers, owners=owners, data=st.data())
    def update(self, kind: str, name: str, spec: Json, data: st.DataObject, **metadata: Any) -> None:
        obj = {**self.object(kind, name, **metadata), "spec": spec}
        obj["metadata"]["resourceVersion"] = data.draw(st.sampled_from(["", *self.versions[-3:]]))
        self.both(lambda store: store.update(obj))

    @rule(kind=kinds, name=names, status=specs)
    def update_status(self, kind: str, name: str, status: Json) -> None:
        obj = {**self.object(kind, name), "status": status}
        self.both(lambda store: store.update_status(obj))

    @rule(kind=kinds, name=names)
    def delete(self, kind: str, name: str) -> None:
        self.both(lambda store: store.delete(Ref(kind, "default", name)))

    @precondition(lambda self: len(self.transactions) < 3)
    @rule()
    def begin(self) -> None:
        entered = ExitStack()
        for store in self.stores:
            entered.enter_context(store.transaction())
        self.transactions.append(entered)

    @precondition(lambda self: self.transactions)
    @rule()
    def commit(self) -> None:
        self.transactions.pop().close()

    @precondition(lambda self: self.transactions)
    @rule()
    def roll_back(self) -> None:
        try:
            with self.transactions.pop():
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass

    @precondition(lambda self: self.stores)
    @invariant()
    def they_list_the_same(self) -> None:
        for kind in ("Model", "Child"):
            listing = self.both(partial(_list, kind))
            self.versions.append(listing.resource_version)

    @precondition(lambda self: self.stores)
    @invariant()
    def nothing_lives_without_any_of_its_owners_once_they_ended(self) -> None:
        objects = [obj for kind in ("Model", "Child") for obj in self.stores[0].list(kind).items]
        for obj in objects:
            meta = obj["metadata"]
            assert not meta.get("deletionTimestamp") or meta.get("finalizers"), "marked, held by nothing, still here"

    @precondition(lambda self: self.watches and not self.transactions)
    @invariant()
    def they_tell_the_same_and_it_adds_up(self) -> None:
        memory, sqlite = (_drain(watch) for watch in self.watches)
        assert memory == sqlite

    def teardown(self) -> None:
        while self.transactions:
            self.transactions.pop().close()
        if self.stores:
            replayed = self._replayed()
            for store in self.stores:
                store.close()
            reopened = SqliteStore(self.folder / "store.db", self.clock, SeededIds(8))
            for kind in ("Model", "Child"):
                assert reopened.list(kind).items == [obj for ref, obj in sorted(replayed.items()) if ref.kind == kind]
            reopened.close()
        shutil.rmtree(self.folder)

    def _replayed(self) -> dict[Ref, Json]:
        """The objects as a watcher since the beginning knows them."""
        known: dict[Ref, Json] = {}
        last = 0
        for kind, obj in _drain(self.stores[0].watch((), "0")):
            version = int(obj["metadata"]["resourceVersion"])
            assert version == last + 1
            last = version
            ref = Ref(obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])
            assert (ref in known) == (kind != "ADDED")
            if kind == "DELETED":
                del known[ref]
            else:
                known[ref] = obj
        return known


def _list(kind: str, store: Store) -> Listing:
    return store.list(kind)


def _outcome(act: Callable[[Store], Any], store: Store) -> Any:
    try:
        return act(store)
    except ApiError as error:
        return type(error), str(error)


def _drain(watch: Watch) -> list[tuple[str, Json]]:
    async def read() -> list[tuple[str, Json]]:
        events = [await anext(watch) for _ in range(watch.pending)]
        return [(event.type, event.object) for event in events]

    return asyncio.run(read()) if watch.pending else []


TestTwins = Twins.TestCase
TestTwins.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
