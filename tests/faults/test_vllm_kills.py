"""kill -9 of a real vLLM engine, and of its supervisor: it is replaced, nothing of it is left, and it answers again."""

from __future__ import annotations

import os
import signal
from typing import Any

import httpx
import psutil
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.timeout(420)]


def tree_of(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


@pytest.mark.parametrize("victim", ["pid", "supervisorPid"])
def test_a_killed_engine_is_replaced_and_answers_again(live: Any, vllm_model: Any, victim: str) -> None:
    live.client.wait_ready("ModelBooster", "quickstart", timeout_s=240)
    (engine,) = live.engines_of("quickstart")
    tree = tree_of(engine["status"]["pid"])
    assert len(tree) > 1, "vLLM runs its engine core in a process of its own"
    os.kill(engine["status"][victim], signal.SIGKILL)
    live.until(lambda: not any(process.is_running() for process in tree), "no process of it is left")

    def is_replaced() -> bool:
        found = live.engines_of("quickstart")
        return [one["status"]["phase"] for one in found] == ["Ready"] and found[0]["status"]["pid"] != tree[0].pid

    live.until(is_replaced, "another engine is ready", seconds=240)
    body = {"model": vllm_model.name, "prompt": "One, two, three, four,", "max_tokens": 6, "temperature": 0}
    answer = httpx.post(f"{live.endpoint}/v1/completions", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    assert "five" in answer.json()["choices"][0]["text"]
