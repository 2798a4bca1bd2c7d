"""Listens to the KV events of all engines, in one thread of its own: sockets, decoding and hashing stay off the event loop.

What comes out is handed over in order, in portions short enough that no request waits for them. When the event loop does
not keep up, the thread stops reading; ZeroMQ then buffers, and in the end drops, which the streams notice as gaps.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import zmq

from hekla.platform.base.clock import Clock
from hekla.routing.prefix.events import MalformedBatch, decode_batch
from hekla.routing.prefix.hashing import BlockHasher
from hekla.routing.prefix.settings import EventSettings
from hekla.routing.prefix.stream import AskReplay, Begin, Deliver, EventStream, Instruction, State, StreamCounts

logger = logging.getLogger(__name__)

POLL_MS = 200
FIRST_PROBE_S = 1.0
"""A subscription takes a moment to reach the publisher; what it says meanwhile is asked for after this."""
PORTION = 16
"""Batches applied before other work of the event loop gets its turn: about a millisecond."""
READ_AT_ONCE = 256
"""Messages of one engine read before the next one's."""
END_OF_REPLAY = b"\xff" * 8


class EventSource(NamedTuple):
    """Where one data-parallel rank of an engine publishes."""

    rank: int
    endpoint: str
    replay_endpoint: str = ""


class Heard(NamedTuple):
    engine: str
    rank: int
    news: Begin | Deliver


class KvEventSubscriber:
    """`take` is called on the event loop with every piece of news, in each engine's order."""

    def __init__(
        self, settings: EventSettings, hasher: BlockHasher, take: Callable[[Heard], None], *, clock: Clock
    ) -> None:
        self.settings, self.hasher, self.clock, self._take = settings, hasher, clock, take
        self.counts = StreamCounts()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._thread: threading.Thread | None = None
        self.orders: deque[tuple[str, Sequence[EventSource]] | None] = deque()
        self._bell: zmq.Socket[bytes] | None = None
        self._news: deque[Heard] = deque()
        self._followed: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_taking = False
        self._room = threading.Event()

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = zmq.Context()
        self._bell = self._context.socket(zmq.PAIR)
        self._bell.linger = 0
        self._bell.bind("inproc://orders")
        self._thread = threading.Thread(target=self._run, name="kv-events", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        if self._thread is None or self._bell is None or self._context is None:
            return
        self._order(None)
        await asyncio.to_thread(self._thread.join)
        self._bell.close()
        self._context.destroy(linger=0)  # the thread closed its sockets, unless it failed
        self._thread = self._bell = self._context = None
        self._news.clear()
        self._followed.clear()

    def follow(self, engine: str, sources: Sequence[EventSource]) -> None:
        """From now on; in place of the sources it was followed at so far."""
        self._followed.add(engine)
        self._order((engine, tuple(sources)))

    def drop(self, engine: str) -> None:
        """Nothing more is told of it, not even what has been heard already."""
        self._followed.discard(engine)
        self._order((engine, ()))

    @property
    def waiting(self) -> int:
        """Batches heard that the index does not have yet."""
        return len(self._news)

    def _order(self, order: tuple[str, Sequence[EventSource]] | None) -> None:
        self.orders.append(order)
        if self._bell is not None:
            self._bell.send(b"", zmq.NOBLOCK)

    def _run(self) -> None:
        assert self._context is not None
        try:
            _Ears(self, self._context).listen()
        except Exception:
            logger.exception("listening to KV events failed: prefixes are known approximately from now on")

    def tell(self, heard: Heard) -> None:
        """From the thread."""
        self._news.append(heard)
        if not self._is_taking and self._loop is not None:
            self._is_taking = True
            try:
                self._loop.call_soon_threadsafe(self._take_some)
            except RuntimeError:
                self._news.clear()  # the loop is closed: nobody is left to know

    def wait_for_room(self) -> None:
        """In the thread: until the event loop has taken some of what waits, or a little while."""
        self._room.clear()
        self._room.wait(POLL_MS / 1000)

    def _take_some(self) -> None:
        self._room.set()
        for _ in range(PORTION):
            if not self._news:
                self._is_taking = False
                if self._news and self._loop is not None:  # the thread added one and saw us still at work
                    self._is_taking = True
                    self._loop.call_soon(self._take_some)
                return
            heard = self._news.popleft()
            if heard.engine in self._followed:
                self._take(heard)
        if self._loop is not None:
            self._loop.call_soon(self._take_some)


class _Line:
    """One source: its subscription, its stream, and a replay under way."""

    def __init__(self, engine: str, source: EventSource, sub: zmq.Socket[bytes], stream: EventStream) -> None:
        self.engine, self.source, self.sub, self.stream = engine, source, sub, stream
        self.replay: zmq.Socket[bytes] | None = None
        self.replay_until_s = 0.0
        self.probe_at_s = 0.0


class _Ears:
    """The thread's side; nothing here is touched by another thread."""

    def __init__(self, owner: KvEventSubscriber, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._owner, self._context, self._settings = owner, context, owner.settings
        self._now_s = owner.clock.monotonic
        self._poller = zmq.Poller()
        self._lines: dict[str, list[_Line]] = {}
        self._of: dict[zmq.Socket[bytes], _Line] = {}

    def listen(self) -> None:
        bell = self._context.socket(zmq.PAIR)
        bell.linger = 0
        bell.connect("inproc://orders")
        self._poller.register(bell, zmq.POLLIN)
        try:
            while True:
                ready = dict(self._poller.poll(POLL_MS))
                if ready.pop(bell, None) and not self._obey(bell):
                    return
                self._read(list(ready))
                self._look_at_the_time()
        finally:
            for engine in list(self._lines):
                self._forget(engine)
            bell.close()

    def _obey(self, bell: zmq.Socket[bytes]) -> bool:
        """False when it is time to stop."""
        while bell.poll(0):
            bell.recv()
            order = self._owner.orders.popleft()
            if order is None:
                return False
            engine, sources = order
            self._forget(engine)
            for source in sources:
                try:
                    self._follow(engine, source)
                except (zmq.ZMQError, ValueError) as error:
                    logger.warning("KV events of %s at %s can't be followed: %s", engine, source.endpoint, error)
        return True

    def _follow(self, engine: str, source: EventSource) -> None:
        sub = self._socket(zmq.SUB)
        sub.rcvhwm = self._settings.receive_batches_max
        sub.maxmsgsize = self._settings.message_bytes_max
        sub.reconnect_ivl, sub.reconnect_ivl_max = 100, 5000
        sub.subscribe(b"")
        stream = EventStream(
            can_replay=bool(source.replay_endpoint),
            held_max=self._settings.held_batches_max,
            counts=self._owner.counts,
        )
        line = _Line(engine, source, sub, stream)
        try:
            sub.connect(source.endpoint)
        except zmq.ZMQError:
            sub.close()
            raise
        self._lines.setdefault(engine, []).append(line)
        self._of[sub] = line
        self._poller.register(sub, zmq.POLLIN)
        line.probe_at_s = self._now_s() + min(FIRST_PROBE_S, self._settings.probe_s)
        self._do(line, stream.probe())

    def _forget(self, engine: str) -> None:
        for line in self._lines.pop(engine, []):
            self._end_replay(line)
            self._poller.unregister(line.sub)
            del self._of[line.sub]
            line.sub.close(linger=0)

    def _read(self, ready: Sequence[zmq.Socket[bytes]]) -> None:
        for sock in ready:
            line = self._of.get(sock)
            for _ in range(READ_AT_ONCE):
                if line is None or self._of.get(sock) is not line:
                    break  # its replay has ended
                if self._owner.waiting >= self._settings.pending_batches_max:
                    self._owner.wait_for_room()
                    return
                try:
                    frames = sock.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                self._message(line, frames, is_replay=sock is line.replay)

    def _message(self, line: _Line, frames: list[bytes], *, is_replay: bool) -> None:
        number, payload = frames[-2:] if len(frames) > 1 else (b"", b"")
        if is_replay and number == END_OF_REPLAY:
            self._end_replay(line)
            self._do(line, line.stream.replay_ended())
            return
        try:
            if len(number) != 8:
                raise MalformedBatch(f"a message of {len(frames)} frames without a number of 8 bytes")
            batch = decode_batch(payload, self._owner.hasher)
        except MalformedBatch as error:
            logger.warning("KV events of %s: %s", line.engine, error)
            self._end_replay(line)
            self._do(line, line.stream.malformed())
            return
        sequence, now_s = int.from_bytes(number, "big"), self._now_s()
        if is_replay:
            line.replay_until_s = now_s + self._settings.replay_timeout_s
            self._do(line, line.stream.replayed(sequence, batch))
        else:
            line.probe_at_s = max(line.probe_at_s, now_s + self._settings.probe_s)
            self._do(line, line.stream.heard(sequence, batch))

    def _do(self, line: _Line, instructions: Sequence[Instruction]) -> None:
        for instruction in instructions:
            if isinstance(instruction, AskReplay):
                self._ask(line, instruction.first)
            else:
                self._owner.tell(Heard(line.engine, line.source.rank, instruction))

    def _ask(self, line: _Line, first: int) -> None:
        """On a socket of its own: what is left of an earlier replay must not be taken for this one."""
        self._end_replay(line)
        line.replay = self._socket(zmq.DEALER)
        line.replay.maxmsgsize = self._settings.message_bytes_max
        line.replay_until_s = self._now_s() + self._settings.replay_timeout_s
        self._of[line.replay] = line
        self._poller.register(line.replay, zmq.POLLIN)
        try:
            line.replay.connect(line.source.replay_endpoint)
            line.replay.send_multipart((b"", first.to_bytes(8, "big")), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            logger.warning("%s can't be asked for past KV events: %s", line.engine, error)
            self._end_replay(line)
            self._do(line, line.stream.replay_failed())

    def _end_replay(self, line: _Line) -> None:
        if line.replay is not None:
            self._poller.unregister(line.replay)
            del self._of[line.replay]
            line.replay.close(linger=0)
            line.replay = None

    def _look_at_the_time(self) -> None:
        now_s = self._now_s()
        for lines in self._lines.values():
            for line in lines:
                if line.replay is not None and now_s >= line.replay_until_s:
                    self._end_replay(line)
                    self._do(line, line.stream.replay_failed())
                elif line.stream.state is State.LIVE and now_s >= line.probe_at_s:
                    line.probe_at_s = now_s + self._settings.probe_s
                    self._do(line, line.stream.probe())

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        sock = self._context.socket(kind)
        sock.linger = 0
        return sock
