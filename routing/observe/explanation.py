"""The explanation of one request: what it matched, what held for it, who could have served it and who did. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from hekla.routing.exchange import Exchange
from hekla.routing.identity.interface import Caller
from hekla.routing.observe.settings import ExplainScope
from hekla.routing.observe.story import Explainable

HEADER = b"x-hekla-explain"
IN_HEADER, DRY_RUN = "1", "body"
"""What a request may ask for: the explanation beside its answer, or instead of one."""
REASON_CHARS_MAX = 200

Json = dict[str, Any]


def asked_for(exchange: Exchange, scope: ExplainScope) -> str:
    """`IN_HEADER`, `DRY_RUN` or empty: nothing asked, or nothing the caller may ask."""
    value = exchange.header(HEADER)
    if value is None or not may_see(exchange.caller, scope):
        return ""
    return {b"1": IN_HEADER, b"true": IN_HEADER, b"body": DRY_RUN}.get(value.strip().lower(), "")


def may_see(caller: Caller, scope: ExplainScope) -> bool:
    return scope != "off" and caller.has_scope(scope)


def explanation(exchange: Exchange, now_s: float) -> Json:
    """All that is known by now. Milliseconds where a name ends in `_ms`, seconds where it ends in `_s`."""
    story = exchange.story
    told: Json = {
        "request_id": exchange.request_id,
        "model": exchange.model,
        "match": _match(exchange),
        "limits": [standing.explain() for standing in story.limits],
        "queue": _queue(exchange),
        "tries": [
            {
                "engine": one.engine,
                "after_ms": round((one.began_s - exchange.started_s) * 1000, 3),
                **({"failed": one.outcome[:REASON_CHARS_MAX]} if one.outcome else {}),
            }
            for one in story.tries
        ],
        "took_ms": round((now_s - exchange.started_s) * 1000, 3),
    }
    if exchange.caller.tenant:
        told["tenant"] = exchange.caller.tenant
    if story.tries:
        told["decision"] = decision(story.tries[-1].plan)
    return told


def decision(plan: Explainable) -> Json:
    return {name: _rounded(inner) for name, inner in plan.explain().items()}


def header_value(told: Json, bytes_max: int) -> bytes:
    """Plain ASCII JSON within the bound: what says least goes first, the candidates from the worst on."""
    for smaller in _ever_smaller(told):
        data = _ascii(smaller)
        if len(data) <= bytes_max:
            return data
    return _ascii({"request_id": told.get("request_id", ""), "truncated": True})[:bytes_max]


def _ever_smaller(told: Json) -> Iterator[Json]:
    yield told
    found = told.get("decision")
    if found:
        candidates = found.get("candidates", [])
        for count in (32, 16, 8, 4, 2, 1):
            if count < len(candidates):
                left_out = found.get("candidates_left_out_of_this_list", 0) + len(candidates) - count
                excluded = dict(list(found.get("excluded", {}).items())[:count])
                smaller = {"candidates": candidates[:count], "candidates_left_out_of_this_list": left_out}
                yield {**told, "truncated": True, "decision": {**found, **smaller, "excluded": excluded}}
        yield {**told, "truncated": True, "decision": {"chosen": found.get("chosen", "")}}
    few = {"limits": told.get("limits", [])[:4], "tries": told.get("tries", [])[-4:]}
    yield {**told, **few, "truncated": True, "decision": {"chosen": (found or {}).get("chosen", "")}}


def _match(exchange: Exchange) -> Json | None:
    match = exchange.match
    if match is None:
        return None
    targets = match.rule.targets
    return {
        "route": match.route.key,
        "rule": match.rule.name,
        "target": match.target.name,
        "external": match.target.external,
        "weights": {target.name: target.weight for target in targets},
        "server": match.server.name if match.server is not None else None,
        "by_session": bool(match.session),
        "is_failover": match.is_failover,
        "is_adapter": match.is_adapter,
    }


def _queue(exchange: Exchange) -> Json:
    story = exchange.story
    waited_ms = None if story.queue_wait_s is None else round(story.queue_wait_s * 1000, 3)
    return {"waiting_ahead": story.queue_length, "waited_ms": waited_ms}


def _rounded(value: Any) -> Any:
    """Six digits say enough, and fit into a header."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


def _ascii(value: Any) -> bytes:
    text = msgspec.json.encode(value).decode()
    return text.encode("ascii", "backslashreplace") if text.isascii() else _escaped(text)


def _escaped(text: str) -> bytes:
    """JSON's own escapes for what is not ASCII: two of them beyond the basic plane."""
    units = (char if char.isascii() else "".join(f"\\u{unit:04x}" for unit in _utf16(char)) for char in text)
    return "".join(units).encode("ascii")


def _utf16(char: str) -> Iterator[int]:
    data = char.encode("utf-16-be", "surrogatepass")
    yield from (int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
