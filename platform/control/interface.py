"""What a controller is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from hekla.platform.api.meta import Json, Ref


@dataclass(frozen=True)
class Again:
    """Reconcile the key once more after this many seconds, whatever happens before."""

    after_s: float


class Controller(Protocol):
    """Reconciles objects of one kind. A reconcile of one key never runs twice at once.

    `reconcile` reads the world anew each time (level-triggered), so a lost or repeated wake-up does no harm. Raising
    `Temporary` retries after its delay or with backoff; any other exception is logged and retried with backoff;
    `Permanent` is not retried until the object changes.
    """

    name: str
    kind: str
    watches: tuple[str, ...]
    """Other kinds whose events wake this controller."""

    def keys_for(self, obj: Json) -> Iterable[Ref]:
        """The keys to reconcile after an event of one of the `watches` kinds (owner, referrer …)."""

    async def reconcile(self, key: Ref) -> Again | None:
        """Bring the world closer to what the object asks; the object may be gone."""
