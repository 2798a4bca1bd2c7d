"""Issuers' public keys, read over HTTP ahead of need: no request ever waits for an issuer.

Keys are read at the start, every `jwks_refresh_s`, and at once (within a rate limit) when a token names a key that is
not known. While an issuer is away its last keys stay.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from hekla.platform.base.clock import Clock
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.identity.bearer_tokens import KeySet, key_set_of
from hekla.routing.identity.settings import IdentitySettings, JwtSettings

logger = logging.getLogger(__name__)

DISCOVERY = "/.well-known/openid-configuration"
RETRY_S = 5.0
"""Wait after a failed read while there are no keys at all."""

Fetch = Callable[[str], Awaitable[bytes]]
"""The page at a URL. Raises Unavailable."""


class IssuerKeys:
    """The keys of one issuer. `keys` is None until they have been read once."""

    def __init__(self, issuer: JwtSettings, settings: IdentitySettings, fetch: Fetch, clock: Clock) -> None:
        self._issuer, self._settings, self._fetch, self._clock = issuer, settings, fetch, clock
        self._wanted = asyncio.Event()
        self._read_s: float | None = None
        self._document: Any = None
        self.keys: KeySet | None = None
        self.version = 0
        """Grows when the keys change."""
        self.is_reading = False
        self.reads = self.failures = 0

    async def stay_current(self) -> None:
        """For ever."""
        while True:
            await self._read()
            pause_s = self._settings.jwks_refresh_s if self.keys is not None else RETRY_S
            await self._pause(pause_s)

    def miss(self) -> bool:
        """A token names a key that is not known. True when the keys are being read, or soon will be, because of that."""
        if self.is_reading:
            return True
        since_s = self._clock.monotonic() - (self._read_s if self._read_s is not None else -1e9)
        if since_s < self._settings.jwks_unknown_key_s:
            return False
        self.is_reading = True
        self._wanted.set()
        return True

    async def _read(self) -> None:
        self.is_reading, self._read_s = True, self._clock.monotonic()
        self.reads += 1
        try:
            document = msgspec.json.decode(await self._fetch(await self._url()))
            if document != self._document:
                self.keys, self.version = key_set_of(document), self.version + 1
                self._document = document
        except Exception as error:  # noqa: BLE001 -- whatever an issuer answers, it must not end the reading
            self.failures += 1
            logger.warning("the keys of %s can't be read (%s); the last ones stay", self._issuer.issuer, error)
        finally:
            self.is_reading = False

    async def _url(self) -> str:
        if self._issuer.jwks_url:
            return self._issuer.jwks_url
        page: Any = msgspec.json.decode(await self._fetch(self._issuer.issuer.rstrip("/") + DISCOVERY))
        if not isinstance(page, dict) or page.get("issuer") != self._issuer.issuer:
            raise ValueError(f"the discovery page is not of the issuer {self._issuer.issuer!r}")
        url = page.get("jwks_uri")
        if not isinstance(url, str) or not url.startswith(("https://", "http://")):
            raise ValueError(f"jwks_uri is {url!r}; allowed: an http or https URL")
        if self._issuer.issuer.startswith("https://") and not url.startswith("https://"):
            raise ValueError(f"jwks_uri is {url!r}; allowed: https, as the issuer's")
        return url

    async def _pause(self, seconds: float) -> None:
        """`seconds`, or until keys are wanted."""
        owner = TaskOwner("jwks-pause")
        sleeping = owner.spawn(self._clock.sleep(seconds), "sleep")
        wanted = owner.spawn(self._wanted.wait(), "wanted")
        try:
            await asyncio.wait({sleeping, wanted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._wanted.clear()
            await owner.stop()


class Jwks:
    """The keys of all issuers."""

    def __init__(self, settings: IdentitySettings, fetch: Fetch, clock: Clock) -> None:
        self._tasks = TaskOwner("jwks")
        self.issuers = {item.issuer: IssuerKeys(item, settings, fetch, clock) for item in settings.jwt}

    async def start(self) -> None:
        for name, issuer in self.issuers.items():
            self._tasks.spawn(issuer.stay_current(), name)

    async def stop(self) -> None:
        await self._tasks.stop()

    @property
    def version(self) -> int:
        """Grows when the keys of any issuer change."""
        return sum(issuer.version for issuer in self.issuers.values())
