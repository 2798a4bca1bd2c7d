"""The quickstart through `ray job submit` on a Ray cluster that was already running."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.timeout(420)]

ROOT = Path(__file__).parent.parent.parent


def test_the_quickstart_comes_up_through_ray_job_submit(
    ray_head: Any, free_port: Callable[[], int], hekla: Any, tmp_path: Path
) -> None:
    port, home = free_port(), tmp_path / "home"
    # A namespace of its own: another platform lives on the same cluster. This interpreter: the cluster runs on it too.
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", ray_head.dashboard_url),
        *("--working-dir", str(ROOT), "--", "env", "HEKLA_RAY_NAMESPACE=job"),
        *(sys.executable, "-m", "hekla.platform.cli", "up", "--address", ray_head.address),
        *("--home", str(home), "--port", str(port), "--apply", "examples/quickstart"),
    ]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=400, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        body = {"model": "smollm2-135m", "prompt": "One, two, three, four,", "max_tokens": 4, "temperature": 0}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=60)
        assert "five" in answer.json()["choices"][0]["text"]
    finally:
        hekla("down", "--home", str(home))
