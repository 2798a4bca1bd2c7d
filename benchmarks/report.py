"""What every benchmark prints: a table for people, and with `--json` one object as the last thing on stdout."""

from __future__ import annotations

import json
import os
import platform as standard_platform
import sys
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Claim:
    """An aim: `value` against `target`, and whether it holds."""

    claim: str
    value: float
    target: str
    holds: bool


@dataclass
class Report:
    benchmark: str
    results: list[dict[str, Any]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Progress, to stderr: stdout is for the result."""
        print(text, file=sys.stderr, flush=True)

    def add(self, **row: Any) -> None:
        self.results.append(row)
        self.say(
            "  "
            + "  ".join(
                f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items()
            )
        )

    def at_least(self, claim: str, value: float, target: float) -> None:
        self.claims.append(Claim(claim, round(value, 4), f">= {target}", value >= target))

    def at_most(self, claim: str, value: float, target: float) -> None:
        self.claims.append(Claim(claim, round(value, 4), f"<= {target}", value <= target))

    def finish(self, as_json: bool) -> None:
        for claim in self.claims:
            self.say(f"{'holds' if claim.holds else 'LOST '}  {claim.claim}: {claim.value} (target {claim.target})")
        if as_json:
            document = {
                "benchmark": self.benchmark,
                "machine": machine(),
                "results": self.results,
                "claims": [asdict(claim) for claim in self.claims],
            }
            print(json.dumps(document))


def machine() -> dict[str, Any]:
    return {
        "system": f"{standard_platform.system()} {standard_platform.machine()}",
        "python": standard_platform.python_version(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }
