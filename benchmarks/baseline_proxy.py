"""The bare proxy that the ingress is measured against: Starlette in front, aiohttp behind, nothing between.

It parses no body, chooses no engine and counts nothing; it forwards every request to one upstream and streams the
answer back. Run: ``python benchmarks/baseline_proxy.py http://127.0.0.1:9000 9001``.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


def build(upstream: str) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
        ) as session:
            app.state.session = session
            yield

    async def forward(request: Request) -> Response:
        response = await request.app.state.session.request(
            request.method,
            upstream + request.url.path,
            data=await request.body(),
            headers={"content-type": "application/json"},
        )

        async def chunks() -> AsyncIterator[bytes]:
            try:
                async for chunk in response.content.iter_any():
                    yield chunk
            finally:
                response.close()

        return StreamingResponse(chunks(), response.status, media_type=response.headers.get("content-type"))

    return Starlette(routes=[Route("/{path:path}", forward, methods=["GET", "POST"])], lifespan=lifespan)


if __name__ == "__main__":
    uvicorn.run(
        build(sys.argv[1]),
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
