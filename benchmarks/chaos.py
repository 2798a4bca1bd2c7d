"""Benchmark: streams through the ingress while engines are killed (kill -9) at random and replaced.

Simulated engines in processes of their own, the ingress in this one. Every answer is compared with what an engine
that nobody kills says to the same request: the claims are no error, no missing answer, no wrong character.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import uvloop
from report import Report

from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SystemIds
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.app import Ingress, build_ingress
from hekla.routing.config import AccessLogSettings, GossipSettings, RoutingSettings
from hekla.routing.server import serve
from hekla.routing.source import FakeObjectSource

MODEL = "chaos"
READY_S = 60.0
ANSWER_S = 240.0
"""Longest an answer may take: far above what the worst luck needs."""
WORDS = ["river", "mountain", "copper", "violin", "harvest", "lantern", "orchard", "meadow", "thunder", "canvas"]
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "x", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
}


@dataclass
class Answer:
    text: str = ""
    finish: str | None = None
    usage: tuple[int, int] = (0, 0)
    error: str = ""
    pause_s: float = field(default=0.0, compare=False)
    """Longest wait between two events."""


class Engine:
    """One simulated engine process."""

    def __init__(self, name: str, options: tuple[str, ...]) -> None:
        self.name, self._options = name, options
        self.url = ""
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns when it answers."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = int(sock.getsockname()[1])
        command = ["-m", "hekla.deployments.simengine", MODEL, "--host", "127.0.0.1", "--port", str(port)]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *command, *self._options, stdout=asyncio.subprocess.DEVNULL
        )
        self.url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession() as session, asyncio.timeout(READY_S):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self.url}/health") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    def described(self) -> dict[str, Any]:
        return {
            "apiVersion": "hekla.io/v1alpha1",
            "kind": "Engine",
            "metadata": {"name": self.name, "namespace": "default", "labels": {"app": MODEL}},
            "spec": {"serving": MODEL, "group": 0, "role": "server", "roleReplica": 0, "index": 0},
            "status": {"phase": "Ready", "address": self.url, "models": [MODEL]},
        }


SERVER = {
    "apiVersion": "networking.serving.volcano.sh/v1alpha1",
    "kind": "ModelServer",
    "metadata": {"name": MODEL, "namespace": "default"},
    "spec": {
        "model": MODEL,
        "inferenceEngine": "vLLM",
        "workloadSelector": {"matchLabels": {"app": MODEL}},
        "workloadPort": {"port": 8000, "protocol": "http"},
    },
}
ROUTE = {
    "apiVersion": "networking.serving.volcano.sh/v1alpha1",
    "kind": "ModelRoute",
    "metadata": {"name": MODEL, "namespace": "default"},
    "spec": {"modelName": MODEL, "rules": [{"name": "all", "targetModels": [{"modelServerName": MODEL}]}]},
}


def request(number: int, tokens: int) -> tuple[str, dict[str, Any]]:
    """The n-th request: chats and completions, greedy and seeded, with stop strings and with structured output."""
    chance = random.Random(number)
    prompt = " ".join(chance.choices(WORDS, k=chance.randint(5, 60)))
    body: dict[str, Any] = {"model": MODEL, "stream": True, "stream_options": {"include_usage": True}}
    body |= {"max_tokens": chance.randint(tokens // 2, tokens)}
    body |= {"temperature": 0.8, "seed": number + 1} if number % 4 == 1 else {"temperature": 0}
    if number % 5 == 2:
        body["stop"] = ["zab keb", "mim"]
    if number % 10 == 3:
        body["response_format"] = SCHEMA
    if number % 2:
        return "/v1/completions", body | {"prompt": prompt}
    return "/v1/chat/completions", body | {"messages": [{"role": "user", "content": prompt}]}


async def ask(session: aiohttp.ClientSession, url: str, path: str, body: dict[str, Any]) -> Answer:
    answer, heard_s = Answer(), time.perf_counter()
    try:
        async with asyncio.timeout(ANSWER_S), session.post(url + path, json=body) as response:
            if response.status != 200:
                answer.error = f"{response.status}: {(await response.text())[:200]}"
                return answer
            done = False
            async for line in response.content:
                if line.startswith(b"data: "):
                    answer.pause_s = max(answer.pause_s, time.perf_counter() - heard_s)
                    heard_s = time.perf_counter()
                    done = done or line.startswith(b"data: [DONE]")
                    if not done:
                        _take(answer, json.loads(line[6:]))
            answer.error = answer.error or ("" if done else "the stream stopped before its end")
    except (aiohttp.ClientError, TimeoutError) as error:
        answer.error = f"{type(error).__name__}: {error}"
    return answer


def _take(answer: Answer, chunk: dict[str, Any]) -> None:
    if "error" in chunk:
        answer.error = chunk["error"]["message"]
        return
    if usage := chunk.get("usage"):
        answer.usage = (usage["prompt_tokens"], usage["completion_tokens"])
    for choice in chunk["choices"]:
        answer.text += choice.get("text") or (choice.get("delta") or {}).get("content") or ""
        answer.finish = choice.get("finish_reason") or answer.finish


@contextlib.asynccontextmanager
async def site(engines: list[Engine]) -> AsyncIterator[tuple[Ingress, FakeObjectSource, str]]:
    settings = RoutingSettings(
        access_log=AccessLogSettings(enabled=False), gossip=GossipSettings(host="127.0.0.1")
    )  # fmt: skip
    source = FakeObjectSource(ROUTE, SERVER, *(engine.described() for engine in engines))
    ingress = build_ingress(settings, source, clock=SystemClock(), ids=SystemIds())
    await ingress.start()
    await ingress.keeper.wait_synced()
    listener = await serve(ingress.app, "127.0.0.1", 0)
    try:
        yield ingress, source, f"http://127.0.0.1:{listener.port}"
    finally:
        await listener.stop()
        await ingress.stop()


async def kill_at_random(
    engines: list[Engine], source: FakeObjectSource, every_s: float, chance: random.Random, killed: list[str]
) -> None:
    """Until cancelled. The routing table hears of a death only when the replacement is ready: nobody tells it earlier."""
    while True:
        await asyncio.sleep(every_s * (0.5 + chance.random()))
        victim = chance.choice(engines)
        await victim.kill()
        killed.append(victim.name)
        await victim.start()
        source.put(victim.described())


@dataclass
class Run:
    streams: int
    seconds: float
    engines: int
    kill_every_s: float
    tokens: int
    step_ms: float
    seed: int


async def chaos(report: Report, run: Run) -> None:
    same = ("--mean-output-tokens", "400", "--max-num-seqs", "512")
    calm = Engine("calm", (*same, "--time-scale", "0"))
    engines = [Engine(f"e{i}", (*same, "--step-ms-base", str(run.step_ms))) for i in range(run.engines)]
    try:
        await asyncio.gather(calm.start(), *(engine.start() for engine in engines))
        async with (
            site(engines) as (ingress, source, url),
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
            ) as session,
        ):
            await _measure(report, run, engines, calm, ingress, source, url, session)
    finally:
        await asyncio.gather(calm.kill(), *(engine.kill() for engine in engines))


async def _measure(
    report: Report, run: Run, engines: list[Engine], calm: Engine, ingress: Ingress, source: FakeObjectSource,
    url: str, session: aiohttp.ClientSession,
) -> None:  # fmt: skip
    killed: list[str] = []
    answers: dict[int, Answer] = {}
    deadline_s = time.perf_counter() + run.seconds

    async def client(first: int) -> None:
        number = first
        while time.perf_counter() < deadline_s:
            answers[number] = await ask(session, url, *request(number, run.tokens))
            number += run.streams

    async with TaskOwner("chaos") as tasks:
        tasks.spawn(kill_at_random(engines, source, run.kill_every_s, random.Random(run.seed), killed), "killer")
        await asyncio.gather(*(client(number) for number in range(run.streams)))
    wrong: Counter[str] = Counter()
    for number, answer in answers.items():
        expected = await ask(session, calm.url, *request(number, run.tokens))
        if answer.error:
            wrong["errors"] += 1
            report.say(f"request {number}: {answer.error}")
        elif answer != expected:
            wrong["mismatches"] += 1
            report.say(f"request {number}: {answer} instead of {expected}")
    _tell(report, run, ingress, answers, killed, wrong)


def _tell(
    report: Report, run: Run, ingress: Ingress, answers: dict[int, Answer], killed: list[str], wrong: Counter[str]
) -> None:
    pauses = sorted(answer.pause_s for answer in answers.values())
    ways = {
        sample.labels["way"]: int(sample.value)
        for family in ingress.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "hekla_router_continuations_total"
    }
    report.add(
        streams=run.streams, engines=run.engines, kills=len(killed), answers=len(answers), errors=wrong["errors"],
        mismatches=wrong["mismatches"], longest_pause_p50_s=round(pauses[len(pauses) // 2], 3),
        longest_pause_p99_s=round(pauses[int(0.99 * len(pauses))], 3), **{f"continued_by_{k}": v for k, v in ways.items()},
    )  # fmt: skip
    report.at_most("client-visible errors", wrong["errors"], 0)
    report.at_most("answers that differ from an undisturbed run", wrong["mismatches"], 0)
    report.at_least("engines killed", len(killed), 1)
    report.at_least("streams continued", sum(ways.values()), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--streams", type=int, default=200, help="concurrent streams")
    parser.add_argument("--seconds", type=float, default=60.0, help="new streams are begun this long")
    parser.add_argument("--engines", type=int, default=4)
    parser.add_argument("--kill-every", type=float, default=4.0, help="mean seconds between kills")
    parser.add_argument("--tokens", type=int, default=100, help="most tokens of an answer")
    parser.add_argument("--step-ms", type=float, default=150.0, help="time per token of an engine")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    report = Report("chaos")
    run = Run(
        options.streams, options.seconds, options.engines, options.kill_every, options.tokens, options.step_ms,
        options.seed,
    )  # fmt: skip
    uvloop.run(chaos(report, run))
    report.finish(options.json)


if __name__ == "__main__":
    main()
