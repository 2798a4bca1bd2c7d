"""The nouns of admission: what waits, what the scheduler says about it, and what becomes of it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

PLANNED = "admission.plan"
"""Key of a request's memo: the plan it was admitted with, for its first try."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One request before an engine has it."""

    id: str
    arrived_s: float
    """Monotonic seconds."""
    tenant: str = ""
    """Who is served fairly against whom; all without identity are one tenant."""
    weight: float = 1.0
    """The tenant's share against others of its priority; above 0."""
    priority: int = 0
    """Higher classes go first, strictly."""
    session: str = ""
    """The conversation; a follow-up of one that has just been answered finds its prefix still cached."""
    deadline_s: float | None = None
    """Monotonic seconds after which an engine need not start any more; None: only the queue's own timeout holds."""
    uncached_tokens: int = 0
    """Prompt tokens to prefill, as estimated on arrival."""
    output_tokens: int = 0
    """Tokens to be generated, as estimated."""
    size_bytes: int = 0
    """What is held in memory while it waits."""
    payload: Any = None
    """The caller's own."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The scheduler's answer for one request now."""

    engine: str
    """The engine's key."""
    fits: bool = True
    """Whether its forecast keeps the objective. False: this engine is wanted, but not now."""
    uncached_tokens: int | None = None
    """Prompt tokens that this engine has to prefill; None: as estimated on arrival."""
    plan: Any = None
    """The caller's own: what the proxy or the simulation goes on with."""


Choose = Callable[[Waiting], Choice | None]
"""Asks the scheduler. None: no engine can take the request at all now. It must change nothing."""
Locality = Callable[[Waiting], int]
"""Prompt tokens that some engine holds already, cheaply: it is asked for up to `scan_max` heads."""


class Reason(StrEnum):
    """Why a request was not served. They are values of a metric's label and of an error's code."""

    QUEUE_FULL = "queue_full"
    """The model's queue holds as many requests or bytes as it may."""
    TENANT_QUEUE_FULL = "tenant_queue_full"
    """The tenant has as many waiting as it may."""
    DISPLACED = "displaced"
    """The queue was full, and a request of a higher class or of a tenant with fewer waiting took its place."""
    TIMEOUT = "queue_timeout"
    DEADLINE = "deadline_exceeded"


@dataclass(frozen=True, slots=True)
class Rejected:
    """Not taken into the queue."""

    reason: Reason
    retry_after_s: int
    """Seconds until the backlog ahead will have drained at the rate of late; at least 1."""


@dataclass(frozen=True, slots=True)
class Admitted:
    item: Waiting
    choice: Choice
    waited_s: float


@dataclass(frozen=True, slots=True)
class Expired:
    """Left the queue without an engine."""

    item: Waiting
    reason: Reason
    retry_after_s: int


Outcome = Admitted | Expired


@dataclass(frozen=True, slots=True)
class Spent:
    """What a request cost in truth."""

    uncached_tokens: int
    output_tokens: int
