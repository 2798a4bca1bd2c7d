"""Engines killed at random under load: nothing of it reaches a client. The benchmark's small sister."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parent.parent.parent / "benchmarks" / "chaos.py"


def test_streams_survive_engines_killed_at_random_complete_and_exact_in_every_character() -> None:
    size = ["--streams", "16", "--seconds", "6", "--engines", "3", "--kill-every", "1.5", "--tokens", "50"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--json", "--step-ms", "60", *size],
        check=False, capture_output=True, text=True, timeout=280, cwd=BENCHMARK.parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert [claim for claim in report["claims"] if not claim["holds"]] == [], done.stderr
    assert report["results"][0]["answers"] >= 16
