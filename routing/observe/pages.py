"""`/debug/…`: what this replica knows now, as JSON. For an admin, or while callers are not asked for keys for this machine.

/debug/config_dump/{modelroutes,modelservers,pods}           as Kthena has them
/debug/config_dump/namespaces/{namespace}/{kind}/{name}      one of them
/debug/config_dump/{loads,rates,breakers,…}                  what was learned and counted
/debug/decisions?count=20&request_id=…&model=…               the latest decisions, newest first
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec

from hekla.routing.exchange import Exchange
from hekla.routing.observe.decisions import Decisions
from hekla.routing.observe.plain import plain
from hekla.routing.refusal import Refusal

ROOT = "/debug"
DUMP = "/debug/config_dump"
DECISIONS = "/debug/decisions"
DECISIONS_SHOWN = 20

Page = Callable[[], Any]
Objects = Callable[[], Mapping[str, Any]]
"""By `namespace/name`."""


def is_debug_path(path: str) -> bool:
    return path == ROOT or path.startswith(ROOT + "/")


def is_from_here(exchange: Exchange) -> bool:
    """Whether a client on this machine asks, and not through a proxy on it."""
    client = exchange.scope.get("client")
    if not client or exchange.header(b"x-forwarded-for") or exchange.header(b"forwarded"):
        return False
    try:
        return ip_address(client[0]).is_loopback
    except ValueError:
        return False


class DebugPages:
    """`objects` by Kthena's names of kinds, `pages` by ours; all are read when asked for."""

    def __init__(self, objects: Mapping[str, Objects], pages: Mapping[str, Page], decisions: Decisions) -> None:
        self._objects, self._pages, self._decisions = objects, pages, decisions

    @property
    def paths(self) -> list[str]:
        return [DECISIONS, *(f"{DUMP}/{name}" for name in (*self._objects, *self._pages))]

    async def answer(self, exchange: Exchange) -> None:
        """The caller may see it. Raises Refusal 404."""
        exchange.path_label = ROOT  # names of objects must not become a metric's label
        told = plain(self._of(exchange))
        await exchange.answer(200, msgspec.json.encode(told))

    def _of(self, exchange: Exchange) -> Any:
        path = exchange.path.rstrip("/")
        if path in (ROOT, DUMP):
            return {"paths": self.paths}
        if path == DECISIONS:
            return {"decisions": self._latest(exchange)}
        parts = [unquote(part) for part in path.removeprefix(DUMP + "/").split("/")]
        if path.startswith(DUMP + "/"):
            if len(parts) == 1 and parts[0] in self._objects:
                return {parts[0]: [{"name": name, **_as_object(it)} for name, it in self._objects[parts[0]]().items()]}
            if len(parts) == 1 and parts[0] in self._pages:
                return {parts[0]: self._pages[parts[0]]()}
            if len(parts) == 4 and parts[0] == "namespaces" and parts[2] in self._objects:
                return self._one(parts[1], parts[2], parts[3])
        raise Refusal(404, f"there is no {path[:256]}; {ROOT} lists what is", kind="request_parsing", code="not_found")

    def _one(self, namespace: str, kind: str, name: str) -> Any:
        key = f"{namespace}/{name}"
        found = self._objects[kind]()
        if key not in found:
            raise Refusal(404, f"there is no {kind} {key[:256]!r}", kind="request_parsing", code="not_found")
        return {"name": key, **_as_object(found[key])}

    def _latest(self, exchange: Exchange) -> list[dict[str, Any]]:
        query = parse_qs(exchange.scope.get("query_string", b"").decode("latin-1"))
        asked = query.get("count", [str(DECISIONS_SHOWN)])[0]
        if not asked.isascii() or not asked.isdigit() or not 1 <= int(asked[:9]) <= 10_000:
            message = f"count is {asked[:32]!r}; allowed: 1 to 10000"
            raise Refusal(400, message, kind="request_parsing", code="invalid_query", param="count")
        return self._decisions.latest(
            int(asked), request_id=query.get("request_id", [""])[0], model=query.get("model", [""])[0]
        )


def _as_object(value: Any) -> dict[str, Any]:
    told = plain(value)
    return told if isinstance(told, dict) else {"value": told}
