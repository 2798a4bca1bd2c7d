"""KV events over ZeroMQ as vLLM sends them: PUB frames `[topic, sequence (8 bytes, big-endian), batch]`, and a ROUTER that
replays past batches from a sequence number on, ending with sequence -1."""

from __future__ import annotations

import logging
import socket
from collections import deque

import msgspec
import zmq
import zmq.asyncio

from hekla.deployments.simengine.events import Event, EventBatch
from hekla.platform.base.clock import Clock
from hekla.platform.base.tasks import TaskOwner

logger = logging.getLogger(__name__)
END_OF_REPLAY = (-1).to_bytes(8, "big", signed=True)


class KvEventsConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The JSON of `--kv-events-config`; sizes count batches."""

    enable_kv_cache_events: bool = False
    publisher: str = "zmq"
    endpoint: str = "tcp://*:5557"
    replay_endpoint: str | None = None
    buffer_steps: int = 10_000
    hwm: int = 100_000
    max_queue_size: int = 100_000
    topic: str = ""


class KvEventPublisher:
    """Raises zmq.ZMQError when an endpoint can't be bound. `close` frees the sockets."""

    def __init__(self, config: KvEventsConfig, clock: Clock) -> None:
        self._clock = clock
        self._topic = config.topic.encode()
        self._sequence = 0
        self._past: deque[tuple[int, bytes]] = deque(maxlen=config.buffer_steps)
        self._encoder = msgspec.msgpack.Encoder()
        self._context = zmq.asyncio.Context()
        self._pub = zmq.Socket(self._context, zmq.PUB)
        self._pub.set_hwm(config.hwm)
        self._router: zmq.asyncio.Socket | None = None
        config = msgspec.structs.replace(config, endpoint=_attach(self._pub, config.endpoint))
        if config.replay_endpoint:
            self._router = self._context.socket(zmq.ROUTER)
            config = msgspec.structs.replace(config, replay_endpoint=_attach(self._router, config.replay_endpoint))
        self.config = config
        """As given, port 0 replaced by the port in use."""

    def publish(self, events: list[Event]) -> None:
        batch = self._encoder.encode(EventBatch(self._clock.now(), events, 0))
        self._past.append((self._sequence, batch))
        try:
            self._pub.send_multipart((self._topic, self._sequence.to_bytes(8, "big"), batch), zmq.NOBLOCK)
        except zmq.Again:
            logger.warning("KV event batch %d dropped: no room to send", self._sequence)
        self._sequence += 1

    def serve_replays(self, tasks: TaskOwner) -> None:
        if self._router is not None:
            tasks.spawn(self._replays(self._router), "kv-event-replay")

    async def _replays(self, router: zmq.asyncio.Socket) -> None:
        while True:
            frames = await router.recv_multipart()
            if len(frames) != 3 or len(frames[2]) != 8:
                logger.warning(
                    "replay request of %d frames ignored: [client, empty, 8-byte sequence] is needed", len(frames)
                )
                continue
            client, first = frames[0], int.from_bytes(frames[2], "big")
            for sequence, batch in list(self._past):
                if sequence >= first:
                    await router.send_multipart((client, b"", self._topic, sequence.to_bytes(8, "big"), batch))
            await router.send_multipart((client, b"", b"", END_OF_REPLAY, b""))

    def close(self) -> None:
        self._pub.close(linger=0)
        if self._router is not None:
            self._router.close(linger=0)
        self._context.term()


def _attach(sock: zmq.Socket[bytes] | zmq.asyncio.Socket, endpoint: str) -> str:
    """Bind a wildcard or local endpoint, connect to any other; the endpoint others can reach."""
    if "*" not in endpoint and "::" not in endpoint and not endpoint.startswith(("ipc://", "inproc://")):
        sock.connect(endpoint)
        return endpoint
    sock.bind(endpoint)
    if not endpoint.endswith(":0"):
        return endpoint
    port = sock.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1]
    return f"tcp://{own_address()}:{port}"


def own_address() -> str:
    """This host's address for other machines; the loopback one when there is no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a UDP connect sends nothing; it only picks the route
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
