"""What choosing engines for a request came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hekla.routing.pairs.verdict import PairVerdict
from hekla.routing.scheduling.decision import Decision
from hekla.routing.scheduling.interface import Candidate


class NothingReady(Exception):
    """No engine is ready for the ModelServer."""


class AllTried(Exception):
    """Every ready engine has been tried for this request."""


@dataclass(frozen=True)
class Plan:
    """Where to send a request: `server` answers the client, `prefill` (if any) computes the prompt for it."""

    server: Candidate
    decision: Decision
    prefill: Candidate | None = None
    verdict: PairVerdict | None = None
    """Why the prompt is computed where it is; None where prefill and decode are not separated."""

    def explain(self) -> dict[str, Any]:
        """As JSON: the decision's own explanation, and what was thought of computing the prompt elsewhere."""
        told = self.decision.explain()
        if self.verdict is not None:
            told["prefill"] = self.verdict.explain(self.prefill.backend.key if self.prefill is not None else "")
        return told
