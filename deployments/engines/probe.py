"""Asks an engine over HTTP: is it healthy, what does it serve, is it idle."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import aiohttp

BODY_BYTES_MAX = 4 * 2**20
"""Of a probe's answer: metrics of a busy engine with many adapters take some 100 KiB."""

_WORK = re.compile(
    r"^(?:vllm:num_requests_(?:running|waiting)|sglang:num_(?:running|queue)_reqs)(?:\{[^}]*\})? (\S+)", re.MULTILINE
)


class ProbeFailed(Exception):
    """The engine didn't give the answer expected; the text says what happened instead."""


@dataclass(frozen=True)
class Served:
    models: tuple[str, ...]
    max_model_len: int


class EngineProbe:
    """One HTTP session to one engine. Close it."""

    def __init__(self, address: str, health_path: str, timeout_s: float) -> None:
        self._address = address
        self._health_path = health_path
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s))
        self._timeout_s = timeout_s

    async def check_health(self) -> None:
        """Returns when healthy; raises ProbeFailed."""
        await self._get(self._health_path)

    async def served(self, fallback: str) -> Served:
        """What `/v1/models` lists; a program without that page serves the model it was launched for."""
        try:
            listed = await self._get("/v1/models")
            return _read_models(listed)
        except (ProbeFailed, ValueError, KeyError, TypeError, AttributeError):
            return Served((fallback,) if fallback else (), 0)

    async def requests_in_work(self) -> float | None:
        """Running and waiting requests; None when the engine's metrics don't tell."""
        try:
            found = _WORK.findall((await self._get("/metrics")).decode(errors="replace"))
        except ProbeFailed:
            return None
        return sum(float(value) for value in found) if found else None

    async def close(self) -> None:
        await self._session.close()

    async def _get(self, path: str) -> bytes:
        try:
            async with self._session.get(self._address + path) as answer:
                body = await answer.content.read(BODY_BYTES_MAX) if answer.ok else b""
                while answer.ok and len(body) < BODY_BYTES_MAX and (more := await answer.content.read(BODY_BYTES_MAX)):
                    body += more
        except TimeoutError:
            raise ProbeFailed(f"{path} did not answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ProbeFailed(f"{path}: {error}") from error
        if not answer.ok:
            raise ProbeFailed(f"{path} answered {answer.status}")
        return body


def _read_models(body: bytes) -> Served:
    cards: list[dict[str, Any]] = json.loads(body)["data"]
    lengths = [int(card.get("max_model_len") or 0) for card in cards]
    return Served(tuple(str(card["id"]) for card in cards), max(lengths, default=0))
