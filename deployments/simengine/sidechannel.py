"""The line between a decode engine and the prefill engine whose KV it pulls: one JSON line each way over TCP.

No KV travels, but the question is real: a lease that expired, a request nobody knows or an engine that died is found
out here, as it is with real transfers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from hekla.deployments.simengine.meeting import MEETING_S_MAX, meet
from hekla.deployments.simengine.sequence import RemoteKv
from hekla.platform.base.clock import Clock

logger = logging.getLogger(__name__)
ANSWER_TIMEOUT_S = 5.0
LOOK_S = 0.005
"""How often a decode engine that has come first is looked after."""
LINE_BYTES_MAX = 4096


class PullQuestion(msgspec.Struct):
    engine_id: str
    """Empty: whoever this is."""
    request_id: str
    waits: bool = False
    """The prefill may still be under way."""


class PullAnswer(msgspec.Struct):
    tokens: int | None = None
    error: str = ""


class SideChannel:
    """Serves pulls from this engine: `collect` maps a request id to its held tokens, None for no lease."""

    def __init__(self, engine_id: str, collect: Callable[[str], int | None], clock: Clock) -> None:
        self._engine_id, self._clock = engine_id, clock
        self._collect = collect
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port in use. Raises OSError when it is taken."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=LINE_BYTES_MAX)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), ANSWER_TIMEOUT_S)
            writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
            await writer.drain()
        except (OSError, TimeoutError, ValueError) as error:
            logger.warning("side channel: %s", error)
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> PullAnswer:
        try:
            question = msgspec.json.decode(line, type=PullQuestion)
        except msgspec.DecodeError as error:
            return PullAnswer(error=f"not a pull: {error}")
        if question.engine_id and question.engine_id != self._engine_id:
            return PullAnswer(error=f"this is engine {self._engine_id}, not {question.engine_id}")
        tokens = self._collect(question.request_id)
        looks = int(MEETING_S_MAX / LOOK_S) if question.waits else 0
        while tokens is None and looks > 0:
            looks -= 1
            await self._clock.sleep(LOOK_S)
            tokens = self._collect(question.request_id)
        return PullAnswer(tokens, "" if tokens is not None else "no such lease; it may have expired")


class TcpPeer:
    """The asking side."""

    async def pull(self, remote: RemoteKv) -> int | None:
        try:
            waits = bool(remote.bootstrap)
            met = await asyncio.wait_for(meet(remote), ANSWER_TIMEOUT_S) if waits else remote
            longest_s = ANSWER_TIMEOUT_S + (MEETING_S_MAX if waits else 0.0)
            answer = await asyncio.wait_for(self._ask(met, waits=waits), longest_s)
        except (OSError, TimeoutError, ValueError, KeyError, msgspec.DecodeError) as error:
            logger.warning("pull of %s from %s:%d failed: %s", remote.request_id, remote.host, remote.port, error)
            return None
        if answer.tokens is None:
            logger.warning("pull of %s from %s refused: %s", remote.request_id, remote.engine_id, answer.error)
        return answer.tokens

    async def _ask(self, remote: RemoteKv, *, waits: bool) -> PullAnswer:
        reader, writer = await asyncio.open_connection(remote.host, remote.port, limit=LINE_BYTES_MAX)
        try:
            writer.write(msgspec.json.encode(PullQuestion(remote.engine_id, remote.request_id, waits)) + b"\n")
            await writer.drain()
            return msgspec.json.decode(await reader.readline(), type=PullAnswer)
        finally:
            writer.close()
