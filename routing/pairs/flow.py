"""The two requests of a pair: one after the other, or both at once.

One after the other: the prefill engine's answer tells the decode engine where the KV lies. When the decode engine then refuses,
the answer is kept (`hekla.routing.pairs.handed`) and another decode engine is asked with it while the KV is held.
Both at once: whichever fails first takes the other with it, so that none waits for a partner that will not come.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from hekla.platform.base.clock import Clock
from hekla.platform.base.ids import Ids
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.body import Body
from hekla.routing.call import Call
from hekla.routing.connectors.catalog import CONNECTORS
from hekla.routing.connectors.interface import Connector, HandOver, host_of
from hekla.routing.headers import to_client
from hekla.routing.pairs.bootstrap import Bootstraps
from hekla.routing.pairs.handed import FAILED, HANDED, Handed, handed_of
from hekla.routing.pairs.settings import DisaggregationSettings
from hekla.routing.pairs.transfers import Transfers
from hekla.routing.plan import Plan
from hekla.routing.refusal import Refusal
from hekla.routing.scheduling.interface import Candidate
from hekla.routing.scheduling.priors import kind_of
from hekla.routing.trips import LiveTrip, Trips
from hekla.routing.upstream import AttemptFailed, StreamBroken

RANK_HEADER = "x-data-parallel-rank"
ROOM_BITS = 63
LATE_PREFILL_S = 1.0
"""A prefill engine that has handed over answers at once; after this it is not waited for."""

Use = Callable[[Call, aiohttp.ClientResponse, LiveTrip], Awaitable[None]]


class Ask(Protocol):
    async def __call__(
        self, call: Call, candidate: Candidate, body: Body, trip: LiveTrip, use: Use, *, is_prefill: bool = False
    ) -> None: ...


@dataclass(frozen=True)
class PairParts:
    ask: Ask
    """Sends one request to an engine."""
    relay: Use
    """Hands the decode engine's answer to the client."""
    trips: Trips
    transfers: Transfers
    bootstraps: Bootstraps


class PairFlow:
    """`answer_bytes_max` bounds a prefill engine's answer."""

    def __init__(
        self, settings: DisaggregationSettings, parts: PairParts, *, clock: Clock, ids: Ids, answer_bytes_max: int
    ) -> None:
        self._settings, self._ask, self._relay, self._trips = settings, parts.ask, parts.relay, parts.trips
        self._transfers, self._bootstraps, self._clock, self._ids = parts.transfers, parts.bootstraps, clock, ids
        self._answer_bytes_max, self._tasks = answer_bytes_max, TaskOwner("prefill")

    async def run(self, call: Call, plan: Plan) -> None:
        """Raises AttemptFailed, StreamBroken, Refusal."""
        connector, headers = connector_of(call), call.headers
        handed = handed_of(call.view) if plan.prefill is None else None
        try:
            # The decode engine is chosen now and counts now: who comes during the prefill must see it.
            with self._trips.begin(call, plan.server, decode_only=True) as trip:
                if handed is not None:
                    call.view.memo.pop(HANDED)
                    await self._decode(call, plan.server, connector, _as_before(handed), trip)
                    return
                assert plan.prefill is not None
                hand_over = await self._hand_over(call, plan.prefill, plan.server, connector)
                if connector.is_concurrent and (hand_over.engine_id or not connector.bootstrap_port):
                    await self._together(call, plan, connector, hand_over, trip)
                else:
                    await self._in_turn(call, plan, connector, hand_over, trip)
        except StreamBroken:
            if not call.events.events:
                call.view.memo[FAILED] = True
            raise
        finally:
            call.headers = headers

    async def _hand_over(self, call: Call, prefill: Candidate, decode: Candidate, connector: Connector) -> HandOver:
        backend, rank = prefill.backend, self._pin_rank(call, prefill, decode)
        port = backend.bootstrap_port or connector.bootstrap_port
        engine_id = ""
        if connector.bootstrap_port:
            engine_id = await self._bootstraps.engine_id(backend, port, rank)
        room = int(self._ids.random() * 2**32) << 31 | int(self._ids.random() * 2**31)
        return HandOver(room, self._ids.uid(), host_of(backend.url), port, engine_id)

    def _pin_rank(self, call: Call, prefill: Candidate, decode: Candidate) -> int:
        """The same data-parallel rank on both, where both have the same number; the client's own choice stays."""
        given = call.exchange.header(RANK_HEADER.encode())
        if given is not None:
            return int(given) if given.isdigit() else 0
        ranks = prefill.backend.data_parallel
        if ranks == 1 or decode.backend.data_parallel != ranks:
            return 0
        rank = int(self._ids.random() * ranks)
        call.headers = [*call.headers, (RANK_HEADER, str(rank))]
        return rank

    async def _in_turn(self, call: Call, plan: Plan, connector: Connector, hand_over: HandOver, trip: LiveTrip) -> None:
        exchange, prefill = call.exchange, plan.prefill
        assert prefill is not None
        call.prefill_answer = None
        with self._trips.begin(call, prefill, prefill_only=True) as prefilling:
            body = connector.prefill_body(call.view.body, hand_over)
            await self._ask(call, prefill, body, prefilling, self._keep_or_relay, is_prefill=True)
        answer = call.prefill_answer
        if answer is None:
            return  # the prefill engine refused the request itself, and the client has its answer
        now_s = self._clock.monotonic()
        exchange.prefill_s = now_s - (exchange.upstream_started_s or exchange.started_s)
        handed = Handed(
            prefill.backend.key, answer, hand_over.room, hand_over.transfer_id, now_s + self._settings.lease_s
        )
        await self._decode(call, plan.server, connector, _as_before(handed), trip, handed=handed)

    async def _decode(
        self, call: Call, decode: Candidate, connector: Connector, hand_over: HandOver, trip: LiveTrip,
        *, handed: Handed | None = None,
    ) -> None:  # fmt: skip
        """`handed` is what may be offered to another engine should this one refuse."""
        began_s, exchange = self._clock.monotonic(), call.exchange
        try:
            await self._ask(call, decode, connector.decode_body(call.view.body, hand_over), trip, self._relay)
        except AttemptFailed as failure:
            has_fetched = not failure.unreached and failure.status not in (429, 503)
            if has_fetched:
                call.view.memo[FAILED] = True
            elif handed is not None:
                call.view.memo[HANDED] = handed
            raise
        if not connector.is_concurrent and exchange.is_stream and exchange.first_byte_s is not None:
            seconds = exchange.first_byte_s - began_s
            self._transfers.observe(kind_of(decode.backend), trip.uncached_tokens, seconds)

    # -- both at once --------------------------------------------------------------------------------------------

    async def _together(
        self, call: Call, plan: Plan, connector: Connector, hand_over: HandOver, trip: LiveTrip
    ) -> None:
        prefill, side = plan.prefill, _aside(call)
        assert prefill is not None
        failure: list[AttemptFailed] = []
        try:
            async with asyncio.timeout(None) as cut_off:

                def ended() -> None:
                    """The decode engine waits for nothing: unless it has begun, it is let go."""
                    if (failure or side.refused is not None) and not call.has_begun:
                        cut_off.reschedule(asyncio.get_running_loop().time())

                work = self._prefill_aside(side, prefill, connector.prefill_body(call.view.body, hand_over), failure)
                task = self._tasks.spawn(_then(work, ended), call.exchange.request_id)
                try:
                    await self._decode(call, plan.server, connector, hand_over, trip)
                    await asyncio.wait({task}, timeout=LATE_PREFILL_S)
                finally:
                    task.cancel()
                    await asyncio.wait({task})
        except TimeoutError:
            if side.refused is not None:
                await _answer(call, *side.refused)
                return
            self._bootstraps.forget(prefill.backend, hand_over.bootstrap_port)
            if not failure:
                raise
            raise failure[0] from None
        finally:
            call.rejection = side.rejection or call.rejection
            call.exchange.prefill_s = side.exchange.prefill_s

    async def _prefill_aside(self, side: Aside, prefill: Candidate, body: Body, failure: list[AttemptFailed]) -> None:
        try:
            with self._trips.begin(side, prefill, prefill_only=True) as trip:
                await self._ask(side, prefill, body, trip, self._keep_aside, is_prefill=True)
        except AttemptFailed as error:
            failure.append(error)
            return
        started_s = side.exchange.upstream_started_s or side.exchange.started_s
        side.exchange.prefill_s = self._clock.monotonic() - started_s

    # -- the prefill engine's answer -----------------------------------------------------------------------------

    async def _keep_or_relay(self, call: Call, response: aiohttp.ClientResponse, trip: LiveTrip) -> None:
        if response.status >= 300:
            await self._relay(call, response, trip)
            return
        call.prefill_answer = await self._whole(call, response)

    async def _keep_aside(self, call: Call, response: aiohttp.ClientResponse, trip: LiveTrip) -> None:
        assert isinstance(call, Aside)
        answer = await self._whole(call, response)
        if response.status >= 300:
            call.refused = (response.status, list(response.raw_headers), answer)

    async def _whole(self, call: Call, response: aiohttp.ClientResponse) -> bytes:
        limit, answer = self._answer_bytes_max, bytearray()
        try:
            async for chunk in response.content.iter_any():
                answer += chunk
                if len(answer) > limit:
                    raise AttemptFailed(call.exchange.backend, f"its prefill answer is larger than {limit} bytes")
        except (aiohttp.ClientError, OSError) as error:
            raise AttemptFailed(call.exchange.backend, f"broke off: {error}", unreached=True) from error
        if call.verdict is not None:
            call.verdict.answered(self._clock.monotonic())
        return bytes(answer)


class Aside(Call):
    """A second request beside the one that answers the client: its own exchange, nothing of it is sent."""

    __slots__ = ("refused",)

    refused: tuple[int, list[tuple[bytes, bytes]], bytes] | None


def _aside(call: Call) -> Aside:
    side = Aside(copy.copy(call.exchange), call.server, call.view, call.events)
    side.headers, side.target, side.suspected, side.refused = call.headers, call.target, call.suspected, None
    return side


async def _then(work: Awaitable[None], done: Callable[[], None]) -> None:
    await work
    done()


async def _answer(call: Call, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """The prefill engine refused the request itself: that is the client's to see."""
    if call.has_begun:
        raise AttemptFailed(call.exchange.backend, f"answered {status}", status=400)
    call.exchange.upstream_status = status
    await call.exchange.begin(status, to_client(headers, call.exchange.request_id, resized=False))
    await call.exchange.finish(body)


def _as_before(handed: Handed) -> HandOver:
    return HandOver(handed.room, handed.transfer_id, prefill_answer=handed.answer)


def connector_of(call: Call) -> Connector:
    """Raises Refusal 503."""
    connector = CONNECTORS.get(call.server.connector)
    if connector is None:
        known = ", ".join(sorted(CONNECTORS))
        message = f"the connector {call.server.connector!r} is not supported; known: {known}"
        raise Refusal(503, message, kind="scheduling", code="connector_unsupported")
    return connector
