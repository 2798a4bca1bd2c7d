"""Benchmark: an ingress process under everything clients do wrong, for minutes: does it leak, hang or outgrow its limit?

All at once: more load than the engines carry, malformed requests, clients that drip their body or never read their
answer, storms of disconnects, names nobody knows, large prompts, and bodies of 100 MB. A probe asks one small question a second throughout. The
ingress states its memory limit by its settings (bodies held at once) and a base for the process; its memory, sockets and
requests in flight are read before, during and after.

A process whose caches and heap have found their size stays there; one that leaks grows with what it is asked. So the claims are
a peak below the limit, what is kept when all is over, and the growth per request in the run's second half.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import socket
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import uvloop
from chaos import MODEL, ROUTE, SERVER, Engine
from report import Report

from hekla.platform.base.tasks import TaskOwner

INGRESS = Path(__file__).parent / "side_by_side" / "ingress_process.py"
BODIES_MIB = 256
BASE_MIB = 384
"""The interpreter with all modules, per-request state and buffers of 512 requests, and what malloc keeps."""
SETTINGS = {
    "limits": {"bodies_bytes_max": BODIES_MIB * 2**20, "requests_in_flight_max": 512, "body_read_timeout_s": 5.0}
}
PROBE_TIMEOUT_S = 10.0
SETTLE_S = 90.0
"""Longest wait for everything to be given back: above the listener's keep-alive time."""
HUGE_BYTES = 100 * 2**20
PIECE = b"x" * 2**16


class Site:
    """The ingress process and where it listens."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, seen: Counter[str]) -> None:
        self.pid, self.port, self.seen = process.pid, port, seen
        self.url = f"http://127.0.0.1:{port}"
        self._process = psutil.Process(process.pid)

    def rss_mib(self) -> float:
        return float(self._process.memory_info().rss) / 2**20

    def sockets(self) -> int:
        return len(self._process.net_connections("tcp"))

    def files(self) -> int:
        return int(self._process.num_fds())

    async def active(self) -> float:
        """Requests in flight; nan when it does not answer in time."""
        try:
            return await self._active()
        except (aiohttp.ClientError, TimeoutError):
            return float("nan")

    async def _active(self) -> float:
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"{self.url}/metrics") as response:
            found = re.search(r"^hekla_router_active_requests (\S+)", await response.text(), re.MULTILINE)
            return float(found.group(1)) if found else float("nan")


@contextlib.asynccontextmanager
async def started() -> AsyncIterator[Site]:
    engines = [Engine(f"e{i}", ("--step-ms-base", "20", "--max-num-seqs", "16")) for i in range(2)]
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    process = None
    try:
        await asyncio.gather(*(engine.start() for engine in engines))
        objects = [ROUTE, SERVER, *(engine.described() for engine in engines)]
        job = {"host": "127.0.0.1", "port": port, "settings": SETTINGS, "objects": objects}
        process = await asyncio.create_subprocess_exec(sys.executable, str(INGRESS), json.dumps(job))
        site = Site(process, port, Counter())
        await _healthy(site)
        yield site
    finally:
        if process is not None and process.returncode is None:
            process.terminate()
            await process.wait()
        await asyncio.gather(*(engine.kill() for engine in engines))


async def _healthy(site: Site) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{site.url}/health") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.1)


def asked(stream: bool, tokens: int, prompt: str = "tell me") -> bytes:
    body = {"model": MODEL, "prompt": prompt, "stream": stream, "max_tokens": tokens, "ignore_eos": True}
    return json.dumps(body).encode()


def head(length: int | None, path: str = "/v1/completions") -> bytes:
    size = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    return b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n%b\r\n\r\n" % (path.encode(), size)


@contextlib.asynccontextmanager
async def connected(site: Site) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=2**16)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def status_of(reader: asyncio.StreamReader) -> str:
    async with asyncio.timeout(60):
        line = await reader.readline()
    return line.split(b" ")[1].decode() if line.count(b" ") > 1 else "closed"


# -- what clients do, one round each -----------------------------------------------------------------------------


async def load(site: Site, chance: random.Random) -> None:
    """A request like any other; there are more of them at once than the engines carry."""
    async with connected(site) as (reader, writer):
        body = asked(chance.random() < 0.7, chance.randint(5, 40))
        writer.write(head(len(body)) + body)
        site.seen[f"load {await status_of(reader)}"] += 1
        with contextlib.suppress(asyncio.IncompleteReadError):
            async with asyncio.timeout(60):
                await reader.readuntil(b"0\r\n\r\n")


MALFORMED: tuple[bytes, ...] = (
    b"", b"{", b"[]", b"null", b'{"model": 3}', b'{"model":"%s"' % MODEL.encode(), b"\xff\xfe" * 100,
    b'{"model":"chaos","prompt":' + b"[" * 20_000 + b"]" * 20_000 + b"}", b'{"model":"chaos","messages":"\\ud800"}',
    b'{"model":"chaos","prompt":"x","stream":true,"stream_options":[1]}', b'{"model":"chaos","prompt":{"a":1e999}}',
    b'{"model":"' + b"m" * 500_000 + b'","prompt":"x"}', b'{"model":"chaos","prompt":"x","n":1e9,"stream":true}',
)  # fmt: skip


async def malformed(site: Site, chance: random.Random) -> None:
    """Bodies that are no request, heads that are no HTTP."""
    async with connected(site) as (reader, writer):
        kind = chance.randrange(4)
        if kind == 0:
            writer.write(os.urandom(2000) + b"\r\n\r\n")
        elif kind == 1:
            writer.write(b"POST /v1/completions HTTP/1.1\r\n" + b"x-junk: " + b"y" * 200_000 + b"\r\n\r\n")
        else:
            body = chance.choice(MALFORMED)
            writer.write(head(len(body)) + body)
        site.seen[f"malformed {await status_of(reader)}"] += 1
    await asyncio.sleep(0.02)


async def drip(site: Site, chance: random.Random) -> None:
    """A body that comes a byte at a time, or stops coming."""
    async with connected(site) as (reader, writer):
        writer.write(head(10_000))
        for _ in range(chance.randint(0, 60)):
            writer.write(b" ")
            await asyncio.sleep(0.25)
        site.seen[f"drip {await status_of(reader)}"] += 1


async def never_read(site: Site, chance: random.Random) -> None:
    """Asks for a long stream and does not read it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", site.port))
        body = asked(True, 4000)
        await asyncio.get_running_loop().sock_sendall(sock, head(len(body)) + body)
        await asyncio.sleep(chance.uniform(5, 20))
        site.seen["never read"] += 1
    finally:
        sock.close()


async def disconnects(site: Site, chance: random.Random) -> None:
    """A hundred clients ask and leave at about the same moment."""

    async def one() -> None:
        async with connected(site) as (_, writer):
            body = asked(True, 100)
            writer.write(head(len(body)) + body[: chance.choice((5, len(body), len(body)))])
            await asyncio.sleep(chance.uniform(0, 0.3))

    await asyncio.gather(*(one() for _ in range(100)), return_exceptions=True)
    site.seen["disconnected"] += 100
    await asyncio.sleep(chance.uniform(0.5, 2))


async def huge(site: Site, chance: random.Random) -> None:
    """100 MB, said in advance or not; and bodies just within the limit, several at once."""
    told = chance.choice((HUGE_BYTES, None, 30 * 2**20))
    async with connected(site) as (reader, writer):
        writer.write(head(told))
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < (told or HUGE_BYTES) and not reader._buffer:  # type: ignore[attr-defined]  # an answer is there
                writer.write(PIECE if told else b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
                sent += len(PIECE)
                async with asyncio.timeout(60):
                    await writer.drain()
        site.seen[f"{'chunked' if told is None else told // 2**20} MiB {await status_of(reader)}"] += 1
    await asyncio.sleep(chance.uniform(0.2, 1))


async def large(site: Site, chance: random.Random) -> None:
    """Prompts of megabytes, which engines then refuse for their length; some clients leave meanwhile."""
    async with connected(site) as (reader, writer):
        body = asked(
            chance.random() < 0.5, 5, f"{chance.random()} " + "so much to tell " * chance.randint(50_000, 400_000)
        )
        writer.write(head(len(body)) + body)
        if chance.random() < 0.8:
            site.seen[f"large {await status_of(reader)}"] += 1
    await asyncio.sleep(chance.uniform(0.2, 1))


async def names(site: Site, chance: random.Random) -> None:
    """Models, paths, sessions and request ids that never come again: nothing may be kept of each."""
    word = f"{chance.getrandbits(64):x}"
    body = json.dumps({"model": chance.choice((MODEL, word)), "prompt": word, "max_tokens": 1, "user": word}).encode()
    head_lines = b"x-session-id: %b\r\nx-request-id: %b\r\nauthorization: Bearer %b" % ((word.encode(),) * 3)
    path = chance.choice(("/v1/completions", f"/v1/models/{word}", f"/{word}"))
    async with connected(site) as (reader, writer):
        writer.write(head(len(body), path).replace(b"host: x", b"host: x\r\n" + head_lines) + body)
        site.seen[f"names {await status_of(reader)}"] += 1
    await asyncio.sleep(0.1)


Round = Callable[[Site, random.Random], Awaitable[None]]
CLIENTS: dict[Round, int] = {
    load: 48, malformed: 8, drip: 16, never_read: 24, disconnects: 1, huge: 6, large: 2, names: 4,
}  # fmt: skip
"""How many of each at the same time."""


async def repeat(once: Round, site: Site, chance: random.Random) -> None:
    """Until cancelled. What the ingress does to a bad client is not an error here."""
    while True:
        try:
            await once(site, chance)
        except (OSError, TimeoutError, ValueError, asyncio.LimitOverrunError) as error:
            site.seen[f"{once.__name__} {type(error).__name__}"] += 1
            await asyncio.sleep(0.1)


async def probe(site: Site, latencies_s: list[float], statuses: Counter[str]) -> None:
    """A small question a second, until cancelled."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)) as session:
        while True:
            began = time.perf_counter()
            try:
                async with session.get(f"{site.url}/v1/models") as response:
                    await response.read()
                    statuses[str(response.status)] += 1
            except (aiohttp.ClientError, TimeoutError) as error:
                statuses[type(error).__name__] += 1
            latencies_s.append(time.perf_counter() - began)
            await asyncio.sleep(max(0.0, 1 - latencies_s[-1]))


Reading = tuple[int, float]
"""Requests so far, and MiB."""
READINGS_PER_S = 4


async def watch_memory(site: Site, readings: list[Reading]) -> None:
    while True:
        readings.append((site.seen.total(), site.rss_mib()))
        await asyncio.sleep(1 / READINGS_PER_S)


def growth(readings: list[Reading]) -> float:
    """MiB per 1000 requests: the slope, by least squares, of the lowest reading of every ten seconds.

    Bodies come and go between single readings; what a leak lifts is the lowest of many.
    """
    size = 10 * READINGS_PER_S
    lowest = [min(readings[i : i + size], key=lambda reading: reading[1]) for i in range(0, len(readings), size)]
    if len(lowest) < 2 or lowest[0][0] == lowest[-1][0]:
        return float("nan")
    thousands, mib = [count / 1000 for count, _ in lowest], [one for _, one in lowest]
    return statistics.linear_regression(thousands, mib).slope


async def settled(report: Report, site: Site, sockets: int) -> float:
    """Seconds until nothing is in flight and the sockets are as before; at most SETTLE_S."""
    began = time.perf_counter()
    while time.perf_counter() - began < SETTLE_S:
        if await site.active() == 0 and site.sockets() <= sockets:
            break
        await asyncio.sleep(0.5)
    took_s = time.perf_counter() - began
    report.say(f"settled after {took_s:.1f} s: {await site.active():g} requests, {site.sockets()} sockets")
    return took_s


async def attack(site: Site, seconds: float, seed: int, share: float = 1.0) -> None:
    async with TaskOwner("clients") as tasks:
        for once, count in CLIENTS.items():
            for number in range(max(1, int(count * share))):
                chance = random.Random(f"{seed} {once.__name__} {number}")
                tasks.spawn(repeat(once, site, chance), once.__name__)
        await asyncio.sleep(seconds)


async def soak(report: Report, minutes: float, seed: int) -> None:
    async with started() as site:
        await attack(site, min(20.0, 60 * minutes / 3), seed)  # until caches and pools have their size
        site.seen.clear()
        quiet_sockets = site.sockets() if await settled(report, site, 8) < SETTLE_S else 8
        before = {"rss_mib": round(site.rss_mib(), 1), "sockets": quiet_sockets, "files": site.files()}
        latencies_s: list[float] = []
        statuses: Counter[str] = Counter()
        readings: list[Reading] = []
        async with TaskOwner("observers") as tasks:
            tasks.spawn(probe(site, latencies_s, statuses), "probe")
            tasks.spawn(watch_memory(site, readings), "memory")
            await attack(site, 60 * minutes, seed + 1)
        settle_s = await settled(report, site, quiet_sockets + 2)
        after = {"rss_mib": round(site.rss_mib(), 1), "sockets": site.sockets(), "files": site.files()}
        report.add(minutes=minutes, before=before, after=after, peak_rss_mib=round(max(mib for _, mib in readings), 1),
                   settled_after_s=round(settle_s, 1), active_requests=await site.active())  # fmt: skip
        _tell(report, site, before, after, readings, settle_s, latencies_s, statuses)


def _tell(  # the claims
    report: Report, site: Site, before: dict[str, Any], after: dict[str, Any], readings: list[Reading], settle_s: float,
    latencies_s: list[float], statuses: Counter[str],
) -> None:  # fmt: skip
    ordered = sorted(latencies_s)
    report.add(probes=len(ordered), statuses=dict(statuses), p50_ms=round(1000 * ordered[len(ordered) // 2], 1),
               p99_ms=round(1000 * ordered[int(0.99 * len(ordered))], 1))  # fmt: skip
    report.add(clients=dict(sorted(site.seen.items())))
    report.at_most("peak memory, MiB, against the stated limit", max(mib for _, mib in readings), BODIES_MIB + BASE_MIB)
    report.at_most("memory kept afterwards, MiB above before", after["rss_mib"] - before["rss_mib"], 32)
    second_half = readings[len(readings) // 2 :]
    report.at_most("growth in the second half, MiB per 1000 requests", growth(second_half), 0.25)
    resets = sum(
        count for what, count in site.seen.items() if what in ("huge ConnectionResetError", "huge BrokenPipeError")
    )
    report.at_most(
        "too large bodies whose client saw no answer, per 100", 100 * resets / max(1, _huge(site) + resets), 1
    )
    report.at_most("sockets kept afterwards", after["sockets"] - before["sockets"], 4)
    report.at_most("seconds until everything was given back", settle_s, SETTLE_S)
    report.at_most("probes not answered with 200", len(ordered) - statuses["200"], 0)
    report.at_most("p99 of the probe, ms", 1000 * ordered[int(0.99 * len(ordered))], 2000)
    report.at_most("answers of 500", sum(count for what, count in site.seen.items() if what.endswith(" 500")), 0)


def _huge(site: Site) -> int:
    return sum(count for what, count in site.seen.items() if " MiB " in what)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    report = Report("soak")
    uvloop.run(soak(report, options.minutes, options.seed))
    report.finish(options.json)


if __name__ == "__main__":
    main()
