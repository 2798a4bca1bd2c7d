"""kill -9, one part at a time, while requests are under way: what is not yet answered is answered, and all comes back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import httpx
import psutil
import pytest
from openai import OpenAI

from hekla.platform.sdk import Client

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def model(live: Any) -> Iterator[Any]:
    """Two simulated engines that take a while to answer, so that a kill finds requests on them."""
    with live.serving(
        "kill-target", replicas=2, config={"time-scale": "1.0", "hardware": "L4", "max-model-len": "8192"}
    ) as served:
        yield served


class Load:
    """Keeps requests going from several threads and remembers every answer's status."""

    def __init__(self, url: str, model: str, retries: int = 0) -> None:
        self._client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=retries, timeout=60)
        self._model = model
        self._stop = threading.Event()
        self.answers: list[str] = []
        self.errors: list[str] = []

    def _ask(self, worker: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                answer = self._client.completions.create(
                    model=self._model, prompt=f"request {worker} {number}", max_tokens=20
                )
                self.answers.append(answer.choices[0].text)
            except Exception as error:  # noqa: BLE001 -- every error counts
                self.errors.append(f"{type(error).__name__}: {error}")

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(6)
        self._work = [self._pool.submit(self._ask, worker) for worker in range(6)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True)

    def has_more_than(self, count: int) -> Callable[[], bool]:
        return lambda: len(self.answers) > count


def engines_of(client: Client, name: str) -> list[Any]:
    return client.list("Engine", labels={"modelserving.volcano.sh/name": f"{name}-engine"})


def ready_engines(client: Client, name: str) -> list[Any]:
    return [engine for engine in engines_of(client, name) if engine.get("status", {}).get("phase") == "Ready"]


def is_replaced(ready: list[Any], uid: str, pid: int) -> bool:
    """By another engine, or by another process of the same one."""
    uids, pids = {engine["metadata"]["uid"] for engine in ready}, {engine["status"]["pid"] for engine in ready}
    return len(ready) == 2 and (uid not in uids or pid not in pids)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("victim", ["pid", "supervisorPid"])
def test_an_engine_or_its_actor_dies_and_no_request_is_lost(live: Any, model: Any, victim: str) -> None:
    before = {engine["metadata"]["uid"]: engine["status"] for engine in ready_engines(live.client, model.name)}
    assert len(before) == 2
    uid, status = next(iter(before.items()))
    with Load(live.endpoint, model.model) as load:
        live.until(load.has_more_than(5), "requests flow")
        os.kill(status[victim], signal.SIGKILL)
        live.until(lambda: is_replaced(ready_engines(live.client, model.name), uid, status["pid"]), "it is replaced")
        live.until(load.has_more_than(len(load.answers) + 5), "requests flow again")
    assert load.errors == []
    live.until(lambda: not alive(status["pid"]) and not alive(status["supervisorPid"]), "nothing of it is left")


def test_an_ingress_replica_dies_and_the_endpoint_stays(live: Any, model: Any) -> None:
    pids = live.ingress_pids()
    assert len(pids) == 2
    with Load(live.endpoint, model.model, retries=3) as load:
        live.until(load.has_more_than(5), "requests flow")
        os.kill(min(pids), signal.SIGKILL)
        live.until(
            lambda: len(live.ingress_pids()) == 2 and min(pids) not in live.ingress_pids(), "a new replica listens"
        )
        live.until(load.has_more_than(len(load.answers) + 5), "requests flow again")
    assert load.errors == []


def test_the_platform_actor_dies_and_objects_and_engines_stay(live: Any, model: Any) -> None:
    engines = {e["metadata"]["uid"]: e["status"]["pid"] for e in ready_engines(live.client, model.name)}
    booster = live.client.get("ModelBooster", model.name)
    platform = live.client.status()["platform"]["pid"]
    with Load(live.endpoint, model.model) as load:
        live.until(load.has_more_than(5), "requests flow")
        os.kill(platform, signal.SIGKILL)
        live.until(lambda: live.platform_pid() not in (0, platform), "the platform is back")
        live.until(load.has_more_than(len(load.answers) + 5), "requests flow")
    assert load.errors == []
    assert live.client.get("ModelBooster", model.name)["metadata"]["uid"] == booster["metadata"]["uid"]
    live.client.wait_ready("ModelBooster", model.name, timeout_s=60)
    assert {e["metadata"]["uid"]: e["status"]["pid"] for e in ready_engines(live.client, model.name)} == engines
    # And it is a working platform, not only a reachable one: a change is carried out.
    live.client.scale("ModelServing", f"{model.name}-engine", 1)
    live.until(lambda: len(engines_of(live.client, model.name)) == 1, "the change is carried out")
    live.client.scale("ModelServing", f"{model.name}-engine", 2)
    live.until(lambda: len(ready_engines(live.client, model.name)) == 2, "and the next")


def test_an_engine_that_stops_answering_health_is_replaced(live: Any, model: Any) -> None:
    victim = ready_engines(live.client, model.name)[0]
    os.kill(victim["status"]["pid"], signal.SIGSTOP)
    live.until(lambda: victim["status"]["pid"] not in
               [e["status"].get("pid") for e in engines_of(live.client, model.name)], "it is given up", seconds=90)  # fmt: skip
    live.until(lambda: len(ready_engines(live.client, model.name)) == 2, "it is replaced")
    assert not alive(victim["status"]["pid"])


def test_a_stream_whose_engine_dies_is_carried_on_by_another_to_its_end(live: Any, model: Any) -> None:
    body = {"model": model.model, "prompt": "tell", "max_tokens": 200, "stream": True, "ignore_eos": True}
    body["stream_options"] = {"include_usage": True}
    with httpx.stream("POST", f"{live.endpoint}/v1/completions", json=body, timeout=60) as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line).startswith("data: ")
        for engine in ready_engines(live.client, model.name):
            if busy(engine["status"]["address"]):
                os.kill(engine["status"]["pid"], signal.SIGKILL)
        rest = [line for line in lines if line]
    assert not any('"error"' in line for line in rest)
    assert rest[-1] == "data: [DONE]"
    assert '"completion_tokens":200' in rest[-2].replace(" ", "")
    live.until(lambda: len(ready_engines(live.client, model.name)) == 2, "the engine is replaced")


def busy(address: str) -> bool:
    metrics = httpx.get(f"{address}/metrics", timeout=10).text.splitlines()
    return any(line.startswith("vllm:num_requests_running{") and float(line.split()[-1]) > 0 for line in metrics)
