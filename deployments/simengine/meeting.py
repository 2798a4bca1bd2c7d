"""Where the two halves of a request that run at the same time meet: what they call it, and the server that tells where.

Mooncake's halves share `transfer_id`; its bootstrap server answers `GET /query` with every rank's engine id and
worker addresses. SGLang's share `bootstrap_room`; its bootstrap server answers `GET /route` with a rank's address.
Here both name the engine's side channel, over which the pull then goes as it does for NIXL.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from hekla.deployments.simengine.refusal import Refusal
from hekla.deployments.simengine.sequence import RemoteKv

logger = logging.getLogger(__name__)
HEAD_BYTES_MAX = 64 * 1024
ROOM_MAX = 2**63
MEETING_S_MAX = 30.0
"""How long a decode engine waits for the prefill; SGLang's and Mooncake's own limits are minutes."""


def mooncake(params: dict[str, Any], prompt_tokens: int) -> tuple[RemoteKv | None, str]:
    """(what a decode request pulls, the name under which a prefill request holds); neither without a `transfer_id`."""
    name = params.get("transfer_id")
    if not isinstance(name, str) or not name:
        logger.warning("kv_transfer_params without a transfer_id: nothing is handed over")
        return None, ""
    if not params.get("do_remote_prefill"):
        return None, name if params.get("do_remote_decode") else ""
    address, engine = params.get("remote_bootstrap_addr"), params.get("remote_engine_id")
    if not isinstance(address, str) or not isinstance(engine, str):
        logger.warning("kv_transfer_params without remote_bootstrap_addr or remote_engine_id: nothing is handed over")
        return None, ""
    return RemoteKv(engine, name, "", 0, prompt_tokens, address + "/query"), ""


def sglang(mode: str, told: tuple[str | None, int | None, int | None], default_port: int, prompt_tokens: int) -> (
    tuple[RemoteKv | None, str]
):  # fmt: skip
    """The same for an engine started with `--disaggregation-mode`; `told` is host, port and room. Raises Refusal."""
    host, port, room = told
    if room is None or not 0 <= room < ROOM_MAX:
        raise Refusal(f"bootstrap_room: a number from 0 to 2**63 - 1 is needed, got {room}", param="bootstrap_room")
    if mode == "prefill":
        return None, str(room)
    if not host:
        raise Refusal("bootstrap_host: the prefill engine's address is needed", param="bootstrap_host")
    place = f"[{host}]" if ":" in host else host
    return RemoteKv(
        "", str(room), "", 0, prompt_tokens, f"http://{place}:{port or default_port}/route?engine_rank=0"
    ), ""


class Bootstrap:
    """A small HTTP server beside the engine's own."""

    def __init__(self, engine_id: str, side_channel: Callable[[], tuple[str, int]]) -> None:
        self._engine_id, self._side_channel = engine_id, side_channel
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=HEAD_BYTES_MAX)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), MEETING_S_MAX)
            found = self._page(head.split(b" ", 2)[1].split(b"?")[0])
            body = msgspec.json.encode(found if found is not None else {"error": "not found"})
            status = b"200 OK" if found is not None else b"404 Not Found"
            writer.write(
                b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (status, len(body), body)
            )
            await writer.drain()
        except (OSError, TimeoutError, IndexError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            logger.warning("bootstrap server: %s", error)
        finally:
            writer.close()

    def _page(self, path: bytes) -> dict[str, Any] | None:
        host, port = self._side_channel()
        if path == b"/query":
            return {"0": {"engine_id": self._engine_id, "worker_addr": {"0": {"0": f"tcp://{host}:{port}"}}}}
        return {"rank_ip": host, "rank_port": port} if path == b"/route" else None


class _Rank(msgspec.Struct):
    engine_id: str
    worker_addr: dict[str, dict[str, str]]


class _Route(msgspec.Struct):
    rank_ip: str
    rank_port: int


async def meet(remote: RemoteKv) -> RemoteKv:
    """With the side channel's address, as the bootstrap server tells it. Raises OSError, ValueError."""
    url = urlsplit(remote.bootstrap)
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=HEAD_BYTES_MAX)
    try:
        target = url.path + (f"?{url.query}" if url.query else "")
        writer.write(f"GET {target} HTTP/1.1\r\nhost: {url.netloc}\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise ValueError(f"{remote.bootstrap} answered {head[:64]!r}")
    if url.path == "/route":
        route = msgspec.json.decode(body, type=_Route)
        return RemoteKv("", remote.request_id, route.rank_ip, route.rank_port, remote.tokens)
    ranks = msgspec.json.decode(body, type=dict[str, _Rank])
    rank = next((rank for rank in ranks.values() if rank.engine_id == remote.engine_id), None)
    if rank is None:
        raise ValueError(f"remote engine_id {remote.engine_id} not found from bootstrap server {remote.bootstrap}")
    address = urlsplit(rank.worker_addr["0"]["0"])
    return RemoteKv(remote.engine_id, remote.request_id, address.hostname or "", address.port or 0, remote.tokens)
