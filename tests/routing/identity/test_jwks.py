from __future__ import annotations

import asyncio
import json
from typing import Any, Self

import pytest

from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.errors import Unavailable
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.identity.jwks import IssuerKeys
from hekla.routing.identity.settings import IdentitySettings, JwtSettings


class Pages:
    """An issuer's pages; `asked` are the URLs that were fetched."""

    def __init__(self, **pages: Any) -> None:
        self.pages, self.asked, self.is_away = pages, list[str](), False

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        if self.is_away:
            raise Unavailable("away")
        page = self.pages[url.rpartition("/")[2]]
        return page if isinstance(page, bytes) else json.dumps(page).encode()


class Setting:
    def __init__(self, issuer: Any, pages: Pages, **settings: Any) -> None:
        self.clock, self.pages = VirtualClock(), pages
        trusted = JwtSettings(issuer=issuer.url, jwks_url=settings.pop("jwks_url", "https://i/keys"))
        chosen = IdentitySettings(mode="required", jwt=(trusted,), **settings)
        self.keys = IssuerKeys(trusted, chosen, pages.fetch, self.clock)
        self.tasks = TaskOwner("test")

    async def __aenter__(self) -> Self:
        self.tasks.spawn(self.keys.stay_current(), "keys")
        await self.clock.advance(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tasks.stop()


async def test_keys_are_read_at_once_and_every_five_minutes(issuer: Any) -> None:
    async with Setting(issuer, Pages(keys=issuer.jwks)) as it:
        assert it.keys.keys is not None
        await it.clock.advance(299)
        assert len(it.pages.asked) == 1
        await it.clock.advance(2)
        assert len(it.pages.asked) == 2
        assert it.keys.version == 1, "the same keys again are no change"


async def test_the_last_keys_stay_while_the_issuer_is_away(issuer: Any) -> None:
    async with Setting(issuer, Pages(keys=issuer.jwks)) as it:
        it.pages.is_away = True
        await it.clock.advance(3600)
        assert it.keys.failures >= 10
        assert it.keys.keys is not None
        assert "k1" in it.keys.keys.keys


@pytest.mark.parametrize("page", [b"<html>", {}, {"keys": []}, {"keys": "x"}, [], {"keys": [{"kty": "oct"}]}])
async def test_a_page_that_holds_no_keys_takes_none_away(issuer: Any, page: Any) -> None:
    async with Setting(issuer, Pages(keys=issuer.jwks)) as it:
        it.pages.pages["keys"] = page
        await it.clock.advance(301)
        assert it.keys.failures == 1
        assert it.keys.keys is not None


async def test_an_issuer_that_was_away_from_the_start_is_asked_again_soon(issuer: Any) -> None:
    pages = Pages(keys=issuer.jwks)
    pages.is_away = True
    async with Setting(issuer, pages) as it:
        assert it.keys.keys is None
        pages.is_away = False
        await it.clock.advance(6)
        assert it.keys.keys is not None


async def test_an_unknown_key_is_asked_for_at_once_but_not_for_everyone_who_invents_one(issuer: Any) -> None:
    async with Setting(issuer, Pages(keys=issuer.jwks)) as it:
        assert not it.keys.miss(), "they were read a moment ago"
        await it.clock.advance(10)
        issuer.rotate("k2")
        it.pages.pages["keys"] = issuer.jwks
        assert it.keys.miss()
        assert it.keys.miss(), "while they are being read, everyone may wait for it"
        await it.clock.advance(0)
        assert it.keys.keys is not None
        assert set(it.keys.keys.keys) == {"k2"}
        assert it.keys.version == 2
        assert not any(it.keys.miss() for _ in range(100))
        await it.clock.advance(9)
        assert len(it.pages.asked) == 2


async def test_keys_are_found_by_discovery(issuer: Any) -> None:
    page = {"issuer": issuer.url, "jwks_uri": "https://elsewhere/keys"}
    pages = Pages(**{"openid-configuration": page, "keys": issuer.jwks})
    async with Setting(issuer, pages, jwks_url="") as it:
        assert it.keys.keys is not None
        assert pages.asked == [f"{issuer.url}/.well-known/openid-configuration", "https://elsewhere/keys"]


@pytest.mark.parametrize(
    "page",
    [
        {"issuer": "https://other", "jwks_uri": "https://other/keys"},
        {"issuer": "https://issuer.example", "jwks_uri": "http://plain/keys"},
        {"issuer": "https://issuer.example", "jwks_uri": "file:///etc/passwd"},
        {"issuer": "https://issuer.example"},
        ["https://issuer.example"],
    ],
)
async def test_a_discovery_page_of_someone_else_or_of_less_safety_is_not_followed(issuer: Any, page: Any) -> None:
    pages = Pages(**{"openid-configuration": page, "keys": issuer.jwks})
    async with Setting(issuer, pages, jwks_url="") as it:
        assert it.keys.keys is None
        assert len(pages.asked) == 1


async def test_keys_of_kinds_not_known_here_are_passed_over(issuer: Any) -> None:
    strange = [{"kty": "EC", "crv": "P-999", "kid": "x"}, {"kty": "RSA", "kid": "y"}, {"kid": "z"}, "text"]
    for_encryption = {**issuer.jwks["keys"][0], "kid": "enc", "use": "enc"}
    document = {"keys": [*strange, for_encryption, *issuer.jwks["keys"]]}
    async with Setting(issuer, Pages(keys=document)) as it:
        assert it.keys.keys is not None
        assert set(it.keys.keys.keys) == {"k1"}


async def test_stopping_ends_what_waits(issuer: Any) -> None:
    async with Setting(issuer, Pages(keys=issuer.jwks)):
        before = len(asyncio.all_tasks())
    assert len(asyncio.all_tasks()) < before
