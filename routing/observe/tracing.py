"""Spans of one request as the request path knows them, whoever records them. Without a recorder they cost nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from hekla.routing.headers import RawHeaders

Value = str | int | float | bool
EngineHeaders = list[tuple[str, str]]
PROPAGATED = ("traceparent", "tracestate")


class Span(Protocol):
    def set(self, name: str, value: Value) -> None: ...
    def event(self, name: str) -> None: ...


class Trace(Protocol):
    """One request's."""

    def span(self, name: str) -> AbstractContextManager[Span]:
        """A part of the request, from here to the context's end; an exception in it is its status."""

    def event(self, name: str) -> None:
        """Something happened in the innermost span that is open."""

    def to_engine(self, headers: EngineHeaders) -> EngineHeaders:
        """The headers, with the innermost open span as the parent of what the engine does."""

    def end(self, status: int, error_kind: str, attributes: Callable[[], dict[str, Value]]) -> None:
        """The request is over."""


class Tracer(Protocol):
    def begin(self, headers: RawHeaders, method: str, path: str) -> Trace:
        """A request has come; its headers may name the span it is part of."""

    def stop(self) -> None:
        """Sends what is pending, for a bounded time; may block."""


class NoSpan:
    def set(self, name: str, value: Value) -> None:
        pass

    def event(self, name: str) -> None:
        pass


_NO_SPAN = contextlib.nullcontext(NoSpan())


class NoTrace:
    """Nobody records: the client's own `traceparent` passes to the engine as it came."""

    def span(self, name: str) -> AbstractContextManager[Span]:
        return _NO_SPAN

    def event(self, name: str) -> None:
        pass

    def to_engine(self, headers: EngineHeaders) -> EngineHeaders:
        return headers

    def end(self, status: int, error_kind: str, attributes: Callable[[], dict[str, Value]]) -> None:
        pass


NO_TRACE = NoTrace()


class NoTracer:
    def begin(self, headers: RawHeaders, method: str, path: str) -> Trace:
        return NO_TRACE

    def stop(self) -> None:
        pass
