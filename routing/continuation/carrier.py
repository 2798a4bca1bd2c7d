"""Carries a broken stream on: finds an engine, asks it in the right way, and tells the client plainly when none can.

The request keeps its one exchange, its one account and the way every request goes (plan, load, connector, metrics);
only its body, its path and what its events go through are exchanged while another engine answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import aiohttp
import msgspec

from hekla.platform.base.clock import Clock
from hekla.routing.backend import ModelServer, ServerKey
from hekla.routing.body import Body
from hekla.routing.call import Call
from hekla.routing.continuation.decision import COMPLETIONS, CannotContinue, Close, Extend, Way, way_of
from hekla.routing.continuation.extension import Extension, extension_body
from hekla.routing.continuation.record import Delivered
from hekla.routing.continuation.replay import Replay
from hekla.routing.continuation.second import DONE, SecondStream
from hekla.routing.continuation.settings import ContinuationSettings
from hekla.routing.disaggregation import AllTried, Plan
from hekla.routing.metrics import RouterMetrics
from hekla.routing.refusal import Refusal, stream_error
from hekla.routing.relay import note_lost
from hekla.routing.upstream import AttemptFailed, StreamBroken, Upstream, url_of
from hekla.routing.usage import Usage

DETOKENIZE_BYTES_MAX = 16 * 2**20
DETOKENIZE_S = 10.0
"""Longest wait for the text of token ids: a dictionary look-up for each."""

Planner = Callable[[Call], Plan]
"""Raises AllTried, Refusal."""
Attempt = Callable[[Call, Plan], Awaitable[None]]
"""Raises AttemptFailed, StreamBroken."""


class Continuation:
    """`server_now` gives the ModelServer as the routing table has it now: engines may have come since the request."""

    def __init__(
        self, settings: ContinuationSettings, upstream: Upstream, *, plan: Planner, attempt: Attempt,
        server_now: Callable[[ServerKey], ModelServer | None], metrics: RouterMetrics, clock: Clock,
    ) -> None:  # fmt: skip
        self._settings, self._upstream, self._plan, self._attempt = settings, upstream, plan, attempt
        self._server_now, self._metrics, self._clock = server_now, metrics, clock

    def use(self, settings: ContinuationSettings) -> None:
        self._settings = settings

    async def carry_on(self, call: Call, broken: StreamBroken) -> None:
        """Ends the client's stream, in good order or with an error event."""
        exchange, body, target = call.exchange, call.view.body, call.target
        began_s, first_byte_s = exchange.upstream_started_s, exchange.first_byte_s
        losses = Losses(self._settings)
        try:
            while True:
                losses.note(_tokens(_delivered(call)))
                self._avoid(call, broken.engine)
                try:
                    await self._once(call, body, target)
                    return
                except StreamBroken as again:
                    broken = again
        except (CannotContinue, Refusal) as reason:  # a refusal can't be told as one: the answer has begun
            await self._cut_off(call, broken, str(reason))
        finally:
            exchange.upstream_started_s, exchange.first_byte_s = began_s, first_byte_s

    def _avoid(self, call: Call, engine: str) -> None:
        call.tried.add(engine)
        # With no other left, what answers at its address now is another process.
        call.unreached.add(engine)

    async def _once(self, call: Call, body: Body, target: str) -> None:
        """Raises StreamBroken, CannotContinue."""
        delivered = _delivered(call)
        way = way_of(call.exchange.path, body, delivered)
        call.exchange.story.continuations += 1
        self._metrics.child(
            self._metrics.continuations, call.view.model, call.server.name, type(way).__name__.lower()
        ).inc()
        if isinstance(way, Close):
            await self._close(call, body, delivered)
            return
        deadline_s = self._clock.monotonic() + self._settings.wait_s
        while True:
            plan = await self._find(call, deadline_s)
            try:
                await self._on(call, plan, way, body, target)
                return
            except AttemptFailed as failure:
                if self._clock.monotonic() >= deadline_s:
                    raise CannotContinue(f"no engine went on with it; the last: {failure}") from failure
                self._note_failure(call, failure)
                await self._clock.sleep(self._settings.wait_step_s)

    def _note_failure(self, call: Call, failure: AttemptFailed) -> None:
        if failure.status == 400:
            raise CannotContinue(f"the engine that was to go on refused it: {failure}")
        call.tried.add(failure.engine)
        if failure.unreached:
            call.unreached.add(failure.engine)

    async def _find(self, call: Call, deadline_s: float) -> Plan:
        """Waits for an engine: after a crash of all of them the first to come back goes on."""
        while True:
            call.server = self._server_now(call.server.key) or call.server
            try:
                return self._plan(call)
            except (AllTried, Refusal) as error:
                if self._clock.monotonic() >= deadline_s:
                    waited_s = self._settings.wait_s
                    raise CannotContinue(f"no engine was ready within {waited_s:g} s (continuation.wait_s)") from error
                call.tried.clear()
                await self._clock.sleep(self._settings.wait_step_s)

    async def _on(self, call: Call, plan: Plan, way: Way, body: Body, target: str) -> None:
        """One engine goes on. Raises AttemptFailed, StreamBroken, CannotContinue."""
        path, delivered, translator = call.exchange.path, _delivered(call), None
        if isinstance(way, Extend):
            asked = extension_body(path, body, delivered, way)
            text = await self._text_up_to(plan, body, delivered, way) if way.needs_text else None
            translator = Extension(path, body, delivered, way, text=text)
        call.events = SecondStream(
            translator or Replay(delivered), delivered, hide_usage=call.hides_usage, hide_ids=call.hides_ids,
            held_bytes_max=DETOKENIZE_BYTES_MAX,
        )  # fmt: skip
        if isinstance(way, Extend):
            call.view.body, call.target = asked, COMPLETIONS
        call.exchange.upstream_attempts += 1
        try:
            await self._attempt(call, plan)
        finally:
            call.view.body, call.target = body, target

    async def _text_up_to(self, plan: Plan, body: Body, delivered: Delivered, way: Extend) -> str:
        """What the delivered ids stand for. Raises AttemptFailed."""
        backend = plan.server.backend
        ids = list(delivered.choices[way.choice].tokens[: way.tokens])
        asked = msgspec.json.encode({"model": body.get("model"), "tokens": ids})
        headers, timeout = {"content-type": "application/json"}, aiohttp.ClientTimeout(total=DETOKENIZE_S)
        try:
            async with self._upstream.session.post(
                url_of(f"{backend.url}/detokenize"), data=asked, headers=headers, timeout=timeout
            ) as response:
                answer = await response.read()
                if response.status == 200:
                    return str(msgspec.json.decode(answer)["prompt"])
                reason = f"/detokenize answered {response.status}"
        except (aiohttp.ClientError, OSError) as error:
            raise AttemptFailed(backend.key, str(error) or type(error).__name__, unreached=True) from error
        except (ValueError, TypeError, KeyError) as error:
            reason = f"/detokenize answered what can't be read: {error}"
        raise CannotContinue(f"{backend.key}: {reason}, and stop strings need the text of the ids")

    async def _close(self, call: Call, body: Body, delivered: Delivered) -> None:
        """Every token had come: tell usage, and end."""
        told = _tokens(delivered)
        is_known = bool(delivered.prompt) and not any(choice.untold for choice in delivered.choices.values())
        usage = Usage(len(delivered.prompt), told) if is_known else None
        call.exchange.usage = usage or call.exchange.usage
        end = DONE
        options = body.get("stream_options")
        if usage and not delivered.has_usage and not call.hides_usage and (options or {}).get("include_usage"):
            counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": told}
            event = {
                **delivered.head, "choices": [], "usage": {**counts, "total_tokens": usage.prompt_tokens + told}
            }  # fmt: skip
            end = b"data: " + msgspec.json.encode(event) + b"\n\n" + DONE
        await call.exchange.finish(end)

    async def _cut_off(self, call: Call, broken: StreamBroken, reason: str) -> None:
        exchange, tokens = call.exchange, call.events.events
        note_lost(call, self._metrics, f"{broken.engine} was lost: {broken.reason}; not continued: {reason}")
        message = (
            f"the engine serving this request was lost after {tokens} tokens, and no other could continue: {reason}"
        )
        await exchange.finish(stream_error(exchange.path, message))


class Losses:
    """Counts the engines one stream lost: a request that kills what it meets is not passed on for ever. Pure."""

    def __init__(self, settings: ContinuationSettings) -> None:
        self._settings = settings
        self._all = self._in_a_row = self._tokens = 0

    def note(self, tokens: int) -> None:
        """One more, with `tokens` delivered by now. Raises CannotContinue when it was one too many."""
        most, most_in_all = self._settings.attempts_max, self._settings.losses_max
        self._in_a_row = 1 if tokens - self._tokens >= self._settings.progress_tokens else self._in_a_row + 1
        self._all, self._tokens = self._all + 1, tokens
        if self._in_a_row > most:
            raise CannotContinue(f"{self._in_a_row} engines in a row were lost with it (continuation.attempts_max)")
        if self._all > most_in_all:
            raise CannotContinue(f"it lost {self._all} engines (continuation.losses_max)")


def _tokens(delivered: Delivered) -> int:
    return sum(len(choice.tokens) for choice in delivered.choices.values())


def _delivered(call: Call) -> Delivered:
    """Raises CannotContinue."""
    if call.record is None:
        raise CannotContinue(f"streams of {call.exchange.path} are not continued")
    delivered = call.record.read()
    if call.record.lost:
        raise CannotContinue(call.record.lost)
    return delivered
