"""Loads and unloads adapters on one engine over HTTP, and asks which are in use."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp

from hekla.deployments.launch import EngineType
from hekla.platform.base.errors import HeklaError, Permanent, Temporary

LOAD_TIMEOUT_S = 300.0
"""Weights are read from disk and copied to the accelerator; a slow disk takes a minute for a large adapter."""
ASK_TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 4 * 2**20
ERROR_CHARS_MAX = 512

_PREFIX: dict[EngineType, str] = {"vLLM": "/v1", "Simulated": "/v1", "SGLang": ""}
_INFO = re.compile(r'^vllm:lora_requests_info\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\} (\S+)', re.MULTILINE)
_WORK = re.compile(r"^vllm:num_requests_(?:running|waiting)(?:\{[^}]*\})? (\S+)", re.MULTILINE)
_USED = re.compile(r'(?:running|waiting)_lora_adapters="([^"]*)"')


class AdapterApi(Protocol):
    """What `AdapterKeeper` needs of an engine."""

    async def load(self, name: str, path: str) -> None:
        """Returns when the engine serves it. An adapter that is loaded already is no error. Raises HeklaError."""

    async def unload(self, name: str) -> None:
        """No error when there is none. Requests that have begun are finished. Raises HeklaError."""

    async def in_use(self) -> frozenset[str]:
        """Adapters with requests in work or waiting there. Raises HeklaError."""


class HttpAdapterApi:
    """vLLM's endpoints (the simulated engine has them too) and SGLang's."""

    def __init__(self, engine: EngineType, address: str, session: aiohttp.ClientSession) -> None:
        self._engine, self._address, self._session = engine, address, session

    async def load(self, name: str, path: str) -> None:
        status, text = await self._post("load_lora_adapter", {"lora_name": name, "lora_path": path})
        if status != 200 and "already" not in text:
            raise Permanent(f"the engine refused it ({status}): {said(text)}")

    async def unload(self, name: str) -> None:
        status, text = await self._post("unload_lora_adapter", {"lora_name": name})
        if status not in (200, 404):
            raise Permanent(f"the engine did not unload it ({status}): {said(text)}")

    async def in_use(self) -> frozenset[str]:
        if self._engine == "SGLang":
            return frozenset()  # it waits for an adapter's requests itself before it unloads it
        timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        try:
            async with self._session.get(f"{self._address}/metrics", timeout=timeout) as answer:
                page = (await answer.read())[:ANSWER_BYTES_MAX].decode(errors="replace")
        except (aiohttp.ClientError, OSError) as error:
            raise _away(error) from error
        return adapters_in_use(page)

    async def _post(self, verb: str, body: dict[str, str]) -> tuple[int, str]:
        path = f"{self._address}{_PREFIX.get(self._engine, '/v1')}/{verb}"
        timeout = aiohttp.ClientTimeout(total=LOAD_TIMEOUT_S)
        try:
            async with self._session.post(path, json=body, timeout=timeout) as answer:
                return answer.status, (await answer.content.read(ANSWER_BYTES_MAX)).decode(errors="replace")
        except (aiohttp.ClientError, OSError) as error:
            raise _away(error) from error


def adapters_in_use(page: str) -> frozenset[str]:
    """From a metrics page. An engine without any request uses none, whatever it said of its last ones."""
    work = [float(value) for value in _WORK.findall(page)]
    told = _INFO.findall(page)
    if (work and not sum(work)) or not told:
        return frozenset()
    labels, _ = max(told, key=lambda sample: float(sample[1]))
    names = [name.strip() for found in _USED.findall(labels) for name in found.split(",")]
    return frozenset(name for name in names if name)


def said(text: str) -> str:
    """The message within an engine's error answer."""
    try:
        found = json.loads(text)
    except ValueError:
        return text.strip()[:ERROR_CHARS_MAX]
    found = found.get("error", found) if isinstance(found, dict) else found
    message = found.get("message", found) if isinstance(found, dict) else found
    return str(message)[:ERROR_CHARS_MAX]


def _away(error: Exception) -> HeklaError:
    return Temporary(f"the engine does not answer: {error or type(error).__name__}")


@dataclass
class FakeAdapterApi:
    """An engine's adapters in memory. `refused` names those it will not load, and why; `using` those in use."""

    loaded: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    using: set[str] = field(default_factory=set)
    unloaded_in_use: list[str] = field(default_factory=list)
    most_loaded: int = 0

    async def load(self, name: str, path: str) -> None:
        if name in self.refused:
            raise Permanent(f"the engine refused it (400): {self.refused[name]}")
        self.loaded[name] = path
        self.most_loaded = max(self.most_loaded, len(self.loaded))

    async def unload(self, name: str) -> None:
        if name in self.using:
            self.unloaded_in_use.append(name)
        self.loaded.pop(name, None)

    async def in_use(self) -> frozenset[str]:
        return frozenset(self.using)
