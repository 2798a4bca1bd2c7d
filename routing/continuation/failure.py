"""An engine that fails may still say so inside the stream: vLLM's server outlives its engine core by a moment. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from hekla.routing.sse import data_of, split_events

MARKS = (b'{"error"', b'"abort"')
"""Neither can occur inside a JSON string, where the quotes would be escaped; one of them is in each failure."""


def failure_at(chunk: bytes) -> tuple[bytes, str]:
    """The events before the failure, and what the engine said of it; empty: there is none."""
    before: list[bytes] = []
    for event in split_events(chunk):
        data = data_of(event)
        if any(mark in data for mark in MARKS) and (reason := _read(data)):
            return b"".join(before), reason
        before.append(event)
    return chunk, ""


def _read(data: bytes) -> str:
    try:
        return failure_in(msgspec.json.decode(data))
    except (ValueError, RecursionError):
        return ""


def failure_in(event: Any) -> str:
    """What an engine says of its own failure inside a stream; empty: nothing. Mistakes of the request are not meant."""
    if not isinstance(event, dict):
        return ""
    error = event.get("error")
    if isinstance(error, dict):
        code = error.get("code")
        return "" if isinstance(code, int) and code < 500 else f"it said: {str(error.get('message'))[:256]}"
    choices = event.get("choices")
    aborted = isinstance(choices, list) and any(
        isinstance(one, dict) and one.get("finish_reason") == "abort" for one in choices
    )
    return "it aborted the request" if aborted else ""
