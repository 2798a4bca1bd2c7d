"""What happened to one request on its way, told as it happens. Pure; costs a few appends a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Explainable(Protocol):
    """A plan: `hekla.routing.plan.Plan`."""

    def explain(self) -> dict[str, Any]: ...


class Try:
    """One try on an engine."""

    __slots__ = ("began_s", "engine", "outcome", "plan")

    def __init__(self, engine: str, plan: Explainable, began_s: float) -> None:
        self.engine, self.plan, self.began_s = engine, plan, began_s
        self.outcome = ""
        """Why it failed; empty when it has not."""


class Standing(Protocol):
    """How a rate limit stands: `hekla.routing.limits.limiter.Standing`."""

    def explain(self) -> dict[str, Any]: ...


class Story:
    __slots__ = ("continuations", "decision", "is_planned", "keep", "limits", "queue_length", "queue_wait_s", "tries")

    def __init__(self) -> None:
        self.tries: list[Try] = []
        self.limits: Sequence[Standing] = ()
        """The rate limits that held for it, after it took its part."""
        self.queue_wait_s: float | None = None
        """How long it waited for its turn; None: it has not had it."""
        self.queue_length = 0
        """What waited when it came."""
        self.is_planned = False
        """Engines have been chosen for it once."""
        self.continuations = 0
        """Engines lost in the middle of its answer that others went on for."""
        self.decision = 0
        """The number of its latest decision in this replica; 0: none was kept."""
        self.keep: Callable[[str, Explainable], int] | None = None
        """Told of every decision; gives it a number."""

    def tried(self, engine: str, plan: Explainable, now_s: float) -> None:
        """A try on `engine` begins."""
        self.tries.append(Try(engine, plan, now_s))
        if self.keep is not None:
            self.decision = self.keep(engine, plan)

    def failed(self, reason: str) -> None:
        """The try that began last has failed."""
        if self.tries:
            self.tries[-1].outcome = reason
