"""Tells the resource API what this replica's clients ask of a ModelServer's adapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import aiohttp
import msgspec

from hekla.platform.api.meta import Json
from hekla.platform.api.registry import kind_named
from hekla.platform.base.errors import Unavailable
from hekla.routing.backend import ServerKey

TIMEOUT_S = 10.0
MERGE_PATCH = "application/merge-patch+json"


class DemandSink(Protocol):
    async def tell(self, server: ServerKey, replica: str, report: Json) -> None:
        """Merge into the ModelServer's `status.loraDemand`. Raises Unavailable; a server that is gone is no error."""


class HttpDemandSink:
    def __init__(
        self, session: Callable[[], aiohttp.ClientSession], url: Callable[[], str | None], token: Callable[[], str]
    ) -> None:
        self._session, self._url, self._token = session, url, token

    async def tell(self, server: ServerKey, replica: str, report: Json) -> None:
        base, kind, token = self._url(), kind_named("ModelServer"), self._token()
        if base is None:
            raise Unavailable("the platform has no address yet")
        namespace, name = server
        path = f"/apis/{kind.api_version}/namespaces/{namespace}/{kind.plural}/{name}/status"
        headers = {"content-type": MERGE_PATCH, **({"authorization": f"Bearer {token}"} if token else {})}
        body = msgspec.json.encode({"status": {"loraDemand": {replica: report}}})
        try:
            async with self._session().patch(
                base.rstrip("/") + path, data=body, headers=headers, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)
            ) as answer:
                detail = await answer.content.read(512)
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"demand for {name}'s adapters: {error or type(error).__name__}") from error
        if answer.status not in (200, 404):
            raise Unavailable(f"demand for {name}'s adapters: {answer.status} {detail!r}")


class FakeDemandSink:
    """Keeps the latest report of each replica; `is_away` makes it unreachable."""

    def __init__(self) -> None:
        self.reports: dict[ServerKey, dict[str, Json]] = {}
        self.is_away = False

    async def tell(self, server: ServerKey, replica: str, report: Json) -> None:
        if self.is_away:
            raise Unavailable("the fake sink is away")
        self.reports.setdefault(server, {})[replica] = report
