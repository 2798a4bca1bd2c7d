"""The durable store when things go wrong: kill -9, a second holder, a full disk, a file of another kind."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from hekla.platform.api.meta import Json, Ref
from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.errors import Gone, Permanent, Unavailable
from hekla.platform.base.ids import SystemIds
from hekla.platform.base.limits import WATCH_HISTORY_EVENTS_MAX
from hekla.platform.store.sqlite import SCHEMA_VERSION, SqliteStore

SEED = 20261122
KILLS = 12

PRELUDE = """
import sys
from hekla.platform.api.meta import Ref
from hekla.platform.base.clock import SystemClock
from hekla.platform.base.errors import NotFound, Unavailable
from hekla.platform.base.ids import SystemIds
from hekla.platform.store.sqlite import SqliteStore

def tell(*words):
    print(*words, flush=True)

sys.stdin.readline()
store = SqliteStore(sys.argv[1], SystemClock(), SystemIds())
"""

WRITER = """
# Each transaction writes one number into two objects, and makes and deletes a third.
def pair(number):
    return [{"kind": "Half", "metadata": {"name": name}, "spec": {"number": number}} for name in ("left", "right")]

try:
    number = store.get(Ref("Half", "default", "left"))["spec"]["number"]
except NotFound:
    number = 0
    with store.transaction():
        for half in pair(number):
            store.create(half)
tell("start", number, store.list("Half").resource_version)
while True:
    number += 1
    with store.transaction():
        store.create({"kind": "Brief", "metadata": {"name": "x"}, "spec": {"padding": "x" * (number % 20000)}})
        for half in pair(number):
            store.update(half)
        store.delete(Ref("Brief", "default", "x"))
    tell("done", number, store.list("Half").resource_version)
"""

FULL_DISK = """
import resource

def size_limit(value):
    resource.setrlimit(resource.RLIMIT_FSIZE, (value, resource.RLIM_INFINITY))

def a_big_one(number):
    return {"kind": "Big", "metadata": {"name": f"b{number}"}, "spec": {"padding": "x" * 50_000}}

written = 0
size_limit(600_000)
try:
    while written < 1000:
        with store.transaction():
            store.create(a_big_one(2 * written))
            store.create(a_big_one(2 * written + 1))
        written += 1
except Unavailable as error:
    tell("refused", error)
tell("kept", len(store.list("Big").items) == 2 * written, store.list("Big").resource_version == str(2 * written))
size_limit(resource.RLIM_INFINITY)
tell("next", store.create(a_big_one("next"))["metadata"]["resourceVersion"] == str(2 * written + 1))
store.close()
"""

HOLDER = """
tell("open")
sys.stdin.read()
"""


@contextmanager
def child(program: str, path: Path, *, begins: bool = True) -> Iterator[subprocess.Popen[str]]:
    """A process with the store at `path`. One that doesn't begin has done its imports when `begin` is called."""
    command = [sys.executable, "-c", textwrap.dedent(PRELUDE) + program, str(path)]
    # No environment of ours is needed: the child imports what this process would.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            if begins:
                begin(process)
            yield process
        finally:
            process.kill()


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def open_store(path: Path) -> SqliteStore:
    return SqliteStore(path, VirtualClock(), SystemIds())


def a_model(name: str = "llama") -> Json:
    return {"kind": "Model", "metadata": {"name": name}, "spec": {}}


def read_line(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the child ended before it was killed"
    return line.split()


def test_nothing_acknowledged_is_lost_by_kill_9_and_nothing_is_half_done(tmp_path: Path) -> None:
    path, chance = tmp_path / "store.db", random.Random(SEED)
    number = version = 0
    with ExitStack() as children:
        coming = children.enter_context(child(WRITER, path, begins=False))
        for life in range(KILLS):
            writer, coming = coming, children.enter_context(child(WRITER, path, begins=False))
            begin(writer)
            assert writer.stdout is not None
            word, *start = read_line(writer)
            assert word == "start"
            assert [int(start[0]), int(start[1])] == [number, version or 2], f"life {life}, seed {SEED}"
            acknowledged = [read_line(writer) for _ in range(chance.randrange(1, 40))]
            # How far the child is into its next transaction is up to the machine; this spreads it.
            for _ in range(chance.randrange(20_000)):
                pass
            writer.send_signal(signal.SIGKILL)
            acknowledged += [line.split() for line in writer.stdout.read().splitlines()]
            writer.wait()
            number, version = _check_after_kill(path, acknowledged, number, version)
    assert number > KILLS


def _check_after_kill(path: Path, acknowledged: list[list[str]], number: int, version: int) -> tuple[int, int]:
    store = open_store(path)
    left = store.get(Ref("Half", "default", "left"))["spec"]["number"]
    right = store.get(Ref("Half", "default", "right"))["spec"]["number"]
    now = int(store.list("Half").resource_version)
    assert left == right, f"half a transaction: {left} and {right} (seed {SEED})"
    assert store.list("Brief").items == [], f"half a transaction: its first write is there (seed {SEED})"
    for _, acknowledged_number, acknowledged_version in acknowledged:
        assert int(acknowledged_number) == number + 1, "the child skipped a number: this test is broken"
        number, version = int(acknowledged_number), int(acknowledged_version)
    assert left in (number, number + 1), f"{number} was acknowledged, {left} is there (seed {SEED})"
    assert now >= version
    assert now == 2 + 4 * left, "a version without its transaction, or the other way round"
    # A watch resumes across the kill, without a gap.
    assert store.watch((), str(max(0, now - 100))).pending == min(100, now)
    store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    return left, now


async def test_a_watch_resumes_across_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    store.create(a_model("before"))
    since = store.list("Model").resource_version
    store.create(a_model("after"))
    store.delete(Ref("Model", "default", "before"))
    store.close()
    again = open_store(tmp_path / "store.db")
    watch = again.watch(("Model",), since)
    again.create(a_model("new"))
    events = [await anext(watch) for _ in range(3)]
    assert [(event.type, event.object["metadata"]["name"]) for event in events] == [
        ("ADDED", "after"),
        ("DELETED", "before"),
        ("ADDED", "new"),
    ]
    again.close()


def test_the_history_on_disk_is_bounded_and_says_so_after_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    with store.transaction():
        store.create(a_model())
        for number in range(WATCH_HISTORY_EVENTS_MAX + 9):
            store.update({**a_model(), "spec": {"number": number}})
    store.close()
    again = open_store(tmp_path / "store.db")
    assert again.watch((), "10").pending == WATCH_HISTORY_EVENTS_MAX
    with pytest.raises(Gone):
        again.watch((), "9")
    again.close()


def test_a_second_process_is_refused_and_the_message_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with child(HOLDER, path) as holder:
        assert read_line(holder) == ["open"]
        with pytest.raises(Unavailable, match=r"store\.db is in use by another process \(waited 0\.2 s\)"):
            SqliteStore(path, VirtualClock(), SystemIds(), lock_wait_s=0.2)


def test_a_second_store_in_one_process_is_refused_and_harms_neither(tmp_path: Path) -> None:
    first = open_store(tmp_path / "store.db")
    for _ in range(2):
        with pytest.raises(Unavailable, match="in use"):
            SqliteStore(tmp_path / "store.db", VirtualClock(), SystemIds(), lock_wait_s=0.1)
    first.create(a_model())
    with child(HOLDER, tmp_path / "store.db") as other:
        assert other.poll() is None
        first.close()
        assert read_line(other) == ["open"]


def test_a_killed_holder_leaves_the_file_free(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with child(HOLDER, path) as holder:
        read_line(holder)
        holder.send_signal(signal.SIGKILL)
        open_store(path).close()


def test_a_full_disk_refuses_the_write_keeps_the_rest_and_recovers(tmp_path: Path) -> None:
    with child(FULL_DISK, tmp_path / "store.db") as writer:
        refused, kept, after = (read_line(writer) for _ in range(3))
    assert refused[0] == "refused"
    assert kept == ["kept", "True", "True"]
    assert after == ["next", "True"]


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(Permanent, match=f"schema version {SCHEMA_VERSION + 1}, this hekla reads up to"):
        open_store(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE photos (name)")
    connection.close()
    with pytest.raises(Permanent, match="something else"):
        open_store(tmp_path / "other.db")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("not a database, but long enough to have a header " * 50)
    with pytest.raises(Permanent, match="no store"):
        open_store(tmp_path / "store.db")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=str(tmp_path)):
        open_store(tmp_path)


def test_missing_folders_are_made_and_the_file_is_its_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "store.db"
    store = open_store(path)
    store.create(a_model())
    assert {file.stat().st_mode & 0o077 for file in path.parent.iterdir()} == {0}
    store.close()
