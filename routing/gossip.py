"""Tells the other ingress replicas what load this one puts on each engine, and hears theirs. UDP.

Every change goes out at once (gathered for `coalesce_ms`), and everything again each second. Each engine's entry
carries a sequence number, so late and repeated datagrams do no harm; entries not repeated expire, so a dead peer's
load goes away. When all of it is lost a replica still knows its own load.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import msgspec

from hekla.platform.base.clock import Clock
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.config import GossipSettings
from hekla.routing.limits.sharing import Entry
from hekla.routing.load import Counts, LoadBook
from hekla.routing.prefix.sharing import Told
from hekla.routing.traffic.sticky import MovedSession

logger = logging.getLogger(__name__)

Address = tuple[str, int]
SIGNATURE_BYTES = 16
_ENVELOPE_BYTES = 96
"""Room for sender, sequence number and signature in a datagram."""
_EJECTION_BYTES = 12
_SESSION_BYTES = 150
"""A `MovedSession`, with an engine's name of a Kubernetes name's usual length twice over."""
_BUDGET_BYTES = 28
"""An `Entry`: three numbers of nine bytes, and the list's own."""


WIRE_VERSION = 3
"""Of the datagram. A replica of another version is not understood, and knows only its own load, until it is replaced."""


class Datagram(msgspec.Struct, array_like=True):
    version: int
    sender: str
    sequence: int
    counts: dict[str, tuple[int, int, int, int, int]]
    """By engine, the fields of `Counts`."""
    budgets: list[Entry] = []
    """What the sender has taken of limits that all replicas share."""
    routes: list[Told] = []
    """Blocks of prompts' text that the sender has lately sent to engines."""
    ejected: dict[str, float] = {}
    """Engines that the sender has ejected for failures, and for how many seconds still."""
    sessions: list[MovedSession] = []
    """Sticky sessions that the sender has sent away from their home."""


_decoder = msgspec.msgpack.Decoder(Datagram)
_encoder = msgspec.msgpack.Encoder()


def pack(sender: str, sequence: int, counts: dict[str, Counts], settings: GossipSettings) -> Iterator[bytes]:
    """Datagrams of at most `datagram_bytes_max` that carry the counts; the first has `sequence`, each next one more."""
    room, size = settings.datagram_bytes_max - _ENVELOPE_BYTES, 0
    part: dict[str, tuple[int, int, int, int, int]] = {}
    for engine, count in counts.items():
        cost = len(engine.encode()) + 36
        if part and size + cost > room:
            yield _sealed(Datagram(WIRE_VERSION, sender, sequence, part), settings.key)
            sequence, part, size = sequence + 1, {}, 0
        part[engine] = count
        size += cost
    if part:
        yield _sealed(Datagram(WIRE_VERSION, sender, sequence, part), settings.key)


def unpack(data: bytes, settings: GossipSettings) -> Datagram:
    """Raises ValueError when it is not a datagram of ours."""
    signature, payload = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(payload, settings.key)):
        raise ValueError("the signature does not fit")
    try:
        datagram = _decoder.decode(payload)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(str(error)) from error
    if datagram.version != WIRE_VERSION:
        raise ValueError(f"its version is {datagram.version}, not {WIRE_VERSION}")
    if any(min(count) < 0 for count in datagram.counts.values()):
        raise ValueError("a count is negative")
    if not all(math.isfinite(entry.total) and math.isfinite(entry.used) for entry in datagram.budgets):
        raise ValueError("a budget's number is none")
    if not all(
        math.isfinite(left_s) for left_s in (*datagram.ejected.values(), *(s.left_s for s in datagram.sessions))
    ):
        raise ValueError("the time of an ejection or a session is none")
    return datagram


def _sealed(datagram: Datagram, key: str) -> bytes:
    payload = _encoder.encode(datagram)
    return _signature(payload, key) + payload


def _signature(payload: bytes, key: str) -> bytes:
    return hmac.digest(key.encode() or b"hekla", payload, "sha256")[:SIGNATURE_BYTES]


class Sharing(Protocol):
    """What else is told: `hekla.routing.limits.sharing.Ledger`."""

    replicas: int

    def news(self, now_s: float, count_max: int) -> list[Entry]: ...
    def repeat(self, now_s: float, count_max: int) -> list[Entry]: ...
    def hear(self, sender: str, entries: Iterable[Entry], now_s: float) -> None: ...


class Routes(Protocol):
    """`hekla.routing.prefix.sharing.RouteSharing`."""

    def news(self, now_s: float, room: int) -> list[Told]: ...
    def hear(self, entries: Iterable[Told], now_s: float) -> None: ...


class Sessions(Protocol):
    """`hekla.routing.traffic.sticky.SessionMemory`."""

    def news(self, now_s: float, count_max: int) -> list[MovedSession]: ...
    def hear(self, moved: Iterable[MovedSession], now_s: float) -> None: ...


class Ejections(Protocol):
    """`hekla.routing.traffic.health.HealthBook`."""

    def own_ejections(self, now_s: float) -> dict[str, float]: ...
    def hear(self, engine: str, left_s: float, now_s: float) -> None: ...


class Gossip(asyncio.DatagramProtocol):
    """`peers` gives the other replicas' addresses at any time; an own address among them does no harm."""

    def __init__(
        self, loads: LoadBook, peers: Callable[[], Iterable[Address]], settings: GossipSettings, *,
        clock: Clock, sender: str, count: Callable[[str, str], None] = lambda direction, outcome: None,
    ) -> None:  # fmt: skip
        self._loads, self._peers, self._settings = loads, peers, settings
        self._clock, self._sender, self._count = clock, sender, count
        self._sequence = 0
        self.sharing: Sharing | None = None
        self.routes: Routes | None = None
        self.ejections: Ejections | None = None
        self.sessions: Sessions | None = None
        """These four are set before `start`; what is None is not told of."""
        self._ejected: set[str] = set()
        self._told: dict[str, float] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._tasks = TaskOwner("gossip")

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        address = (self._settings.host, self._settings.port)
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=address)
        self._tasks.spawn(self._tell_changes(), "changes")
        self._tasks.spawn(self._tell_all(), "full-state")

    async def stop(self) -> None:
        await self._tasks.stop()
        if self._transport is not None:
            self._transport.close()

    @property
    def port(self) -> int:
        assert self._transport is not None, "Gossip.start was not awaited"
        return int(self._transport.get_extra_info("sockname")[1])

    def datagram_received(self, data: bytes, addr: Address) -> None:
        try:
            datagram = unpack(data, self._settings)
        except ValueError as error:
            self._count("received", "refused")
            logger.debug("a datagram from %s is refused: %s", addr, error)
            return
        if datagram.sender == self._sender:
            return
        counts = {engine: Counts(*count) for engine, count in datagram.counts.items()}
        self._loads.apply_peer(datagram.sender, datagram.sequence, counts, now_s=self._clock.monotonic())
        if self.sharing is not None:
            self.sharing.hear(datagram.sender, datagram.budgets, self._clock.monotonic())
        if self.routes is not None and datagram.routes:
            self.routes.hear(datagram.routes, self._clock.monotonic())
        if self.sessions is not None and datagram.sessions:
            self.sessions.hear(datagram.sessions, self._clock.monotonic())
        if self.ejections is not None:
            for engine, left_s in datagram.ejected.items():
                self.ejections.hear(engine, left_s, self._clock.monotonic())
        self._count("received", "ok")

    def error_received(self, exc: Exception) -> None:
        self._count("sent", "failed")  # a peer's port is closed: it expires by itself

    async def _tell_changes(self) -> None:
        while True:
            await self._clock.sleep(self._settings.coalesce_ms / 1000)
            if self._loads.changed:
                changed = list(self._loads.changed)
                self._loads.changed.clear()
                self._tell({engine: self._loads.load(engine).own for engine in changed})
            if self.sharing is not None:
                while news := self.sharing.news(self._clock.monotonic(), self._budgets_max):
                    self._tell_budgets(self.sharing, news)
            self._tell_routes()
            self._tell_sessions()
            self._tell_ejections(only_news=True)

    async def _tell_all(self) -> None:
        while True:
            await self._clock.sleep(self._settings.full_state_s)
            now_s = self._clock.monotonic()
            self._loads.expire(now_s - self._settings.expiry_s)
            # Zeros lately told are repeated too: the datagram that said so first may be the one that was lost.
            zeros = [engine for engine, told_s in self._told.items() if told_s > now_s - self._settings.expiry_s]
            self._told = {engine: self._told[engine] for engine in zeros}
            self._tell({**dict.fromkeys(zeros, Counts()), **self._loads.own()}, is_news=False)
            if self.sharing is not None:
                # Even an empty list is a sign of life.
                self._tell_budgets(self.sharing, self.sharing.repeat(now_s, self._budgets_max))
            self._tell_ejections(only_news=False)

    def _tell_routes(self) -> None:
        room = self._settings.datagram_bytes_max - _ENVELOPE_BYTES
        while self.routes is not None and (told := self.routes.news(self._clock.monotonic(), room)):
            self._send(Datagram(WIRE_VERSION, self._sender, 0, {}, [], told))

    def _tell_sessions(self) -> None:
        """One datagram at a time: what does not fit goes with the next, and what waits is bounded."""
        if self.sessions is not None:
            room = self._settings.datagram_bytes_max - _ENVELOPE_BYTES
            if told := self.sessions.news(self._clock.monotonic(), room // _SESSION_BYTES):
                self._send(Datagram(WIRE_VERSION, self._sender, 0, {}, [], [], {}, told))

    def _tell_ejections(self, *, only_news: bool) -> None:
        if self.ejections is None:
            return
        ejected = self.ejections.own_ejections(self._clock.monotonic())
        is_news, self._ejected = bool(ejected.keys() - self._ejected), set(ejected)
        if ejected and (is_news or not only_news):
            room = self._settings.datagram_bytes_max - _ENVELOPE_BYTES
            part: dict[str, float] = {}
            for engine, left_s in ejected.items():
                room -= len(engine.encode()) + _EJECTION_BYTES
                if room < 0:
                    break  # hundreds of engines failing at once: each replica will see for itself
                part[engine] = left_s
            self._send(Datagram(WIRE_VERSION, self._sender, 0, {}, [], [], part))

    @property
    def _budgets_max(self) -> int:
        return (self._settings.datagram_bytes_max - _ENVELOPE_BYTES) // _BUDGET_BYTES

    def _tell_budgets(self, sharing: Sharing, entries: list[Entry]) -> None:
        peers = list(self._peers())
        sharing.replicas = 1 + len(peers)
        self._send(Datagram(WIRE_VERSION, self._sender, 0, {}, entries))

    def _send(self, datagram: Datagram) -> None:
        """To every peer, under the next sequence number."""
        if self._transport is None:
            return
        self._sequence += 1
        datagram.sequence = self._sequence
        sealed = _sealed(datagram, self._settings.key)
        for peer in self._peers():
            self._transport.sendto(sealed, peer)
            self._count("sent", "ok")

    def _tell(self, counts: dict[str, Counts], *, is_news: bool = True) -> None:
        if is_news:
            self._told.update(dict.fromkeys(counts, self._clock.monotonic()))
        peers = list(self._peers())
        if self._transport is None or not peers:
            return
        for datagram in pack(self._sender, self._sequence + 1, counts, self._settings):
            self._sequence += 1
            for peer in peers:
                self._transport.sendto(datagram, peer)
                self._count("sent", "ok")
