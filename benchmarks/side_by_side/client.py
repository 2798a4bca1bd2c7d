"""Program: sends the requests of a plan and says when each answer's first and last piece came.

A process of its own, so that making and reading requests takes time from no router. It reads a plan from stdin,
`{"concurrency": 8, "requests": [{"url", "body", "group"}]}`, and writes `{"seconds", "records": [Record]}` to stdout.
Closed loop: as many requests as `concurrency` are always under way, in the plan's order.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp
import uvloop

REQUEST_TIMEOUT_S = 300
MARK = b"data: "


@dataclass
class Record:
    """One request; times in seconds since the run began."""

    group: int
    sent_s: float
    first_s: float = 0.0
    end_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    error: str = ""


async def run(plan: dict[str, Any]) -> dict[str, Any]:
    waiting: Iterator[dict[str, Any]] = iter(plan["requests"])
    records: list[Record] = []
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        began = time.perf_counter()

        async def one_after_another() -> None:
            for request in waiting:
                record = Record(request["group"], time.perf_counter() - began)
                records.append(record)
                await _ask(session, request, record, began)

        await asyncio.gather(*(one_after_another() for _ in range(plan["concurrency"])))
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "records": [asdict(record) for record in records]}


async def _ask(session: aiohttp.ClientSession, request: dict[str, Any], record: Record, began: float) -> None:
    try:
        async with session.post(request["url"], data=request["body"], headers=HEADERS) as response:
            if response.status != 200:
                record.error = f"{response.status}: {(await response.text())[:300]}"
                return
            async for line in response.content:
                if line.startswith(MARK):
                    _note(line[len(MARK) :], record, began)
        if not record.output_tokens:
            record.error = "the answer has no usage: it is not whole"
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        record.error = f"{type(error).__name__}: {error}"


HEADERS = {"content-type": "application/json"}


def _note(data: bytes, record: Record, began: float) -> None:
    record.end_s = time.perf_counter() - began
    record.first_s = record.first_s or record.end_s
    if b'"usage"' not in data:
        return
    usage = json.loads(data).get("usage") or {}
    record.prompt_tokens = usage.get("prompt_tokens", record.prompt_tokens)
    record.output_tokens = usage.get("completion_tokens", record.output_tokens)
    record.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or record.cached_tokens


if __name__ == "__main__":
    json.dump(uvloop.run(run(json.load(sys.stdin))), sys.stdout)
