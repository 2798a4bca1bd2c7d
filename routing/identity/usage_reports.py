"""Tells the resource API what this replica's callers have spent, every few seconds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import aiohttp
import msgspec

from hekla.platform.api.meta import Json
from hekla.platform.api.registry import kind_named
from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import NotFound, Unavailable
from hekla.routing.identity.budgets import Ledger
from hekla.routing.identity.interface import Subject

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0
MERGE_PATCH = "application/merge-patch+json"


class UsageSink(Protocol):
    async def merge_usage(self, subject: Subject, usage: Json) -> None:
        """Merge into the object's `status.usage`. Raises NotFound and Unavailable."""


class HttpUsageSink:
    def __init__(
        self, session: Callable[[], aiohttp.ClientSession], url: Callable[[], str | None], token: Callable[[], str]
    ) -> None:
        self._session, self._url, self._token = session, url, token

    async def merge_usage(self, subject: Subject, usage: Json) -> None:
        base, kind, token = self._url(), kind_named(subject.kind), self._token()
        if base is None:
            raise Unavailable("the platform has no address yet")
        path = f"/apis/{kind.api_version}/namespaces/{subject.namespace}/{kind.plural}/{subject.name}/status"
        headers = {"content-type": MERGE_PATCH, **({"authorization": f"Bearer {token}"} if token else {})}
        body, timeout = msgspec.json.encode({"status": {"usage": usage}}), aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with self._session().patch(
                base.rstrip("/") + path, data=body, headers=headers, timeout=timeout
            ) as answer:
                detail = await answer.content.read(512)
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"usage of {subject}: {error or type(error).__name__}") from error
        if answer.status == 404:
            raise NotFound(f"{subject} is gone")
        if answer.status != 200:
            raise Unavailable(f"usage of {subject}: {answer.status} {detail!r}")


class FakeUsageSink:
    """Keeps what it is told as the resource API would; `is_away` makes it unreachable."""

    def __init__(self) -> None:
        self.usage: dict[Subject, Json] = {}
        self.is_away = False
        self.gone: set[Subject] = set()

    async def merge_usage(self, subject: Subject, usage: Json) -> None:
        if self.is_away:
            raise Unavailable("the fake sink is away")
        if subject in self.gone:
            raise NotFound(f"{subject} is gone")
        kept = self.usage.setdefault(subject, {})
        kept.update(usage)
        for replica in [name for name, entries in kept.items() if entries is None]:
            del kept[replica]


class UsageReporter:
    def __init__(self, ledger: Ledger, sink: UsageSink, clock: Clock, period_s: float) -> None:
        self._ledger, self._sink, self._clock, self._period_s = ledger, sink, clock, period_s

    async def report_for_ever(self) -> None:
        while True:
            await self._clock.sleep(self._period_s)
            await self.report()

    async def report(self) -> None:
        """Tell all there is to tell. What does not arrive is told again next time."""
        for subject, usage in self._ledger.untold().items():
            self._ledger.told(subject)
            try:
                await self._sink.merge_usage(subject, usage)
            except NotFound as error:
                logger.info("%s; what was spent of its budgets is forgotten", error)
            except Unavailable as error:
                self._ledger.failed(subject)
                logger.info("%s; told again later", error)
