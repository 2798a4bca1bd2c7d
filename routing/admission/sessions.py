"""Which conversations were answered lately: their follow-ups find a warm prefix, so they may go first. Pure."""

from __future__ import annotations

from collections import OrderedDict

from hekla.routing.admission.settings import BoostSettings


class Sessions:
    """The most recently completed sessions, and slots kept for their follow-ups."""

    def __init__(self, settings: BoostSettings) -> None:
        self._settings = settings
        self._completed: OrderedDict[str, int] = OrderedDict()
        self._held: dict[str, float] = {}
        self._order = 0

    def use(self, settings: BoostSettings) -> None:
        self._settings = settings

    @property
    def are_any(self) -> bool:
        return bool(self._completed)

    def recency(self, session: str) -> int:
        """0 for one that is not remembered; the later it was completed, the higher."""
        return self._completed.get(session, 0) if session else 0

    def complete(self, session: str, now_s: float) -> None:
        if not session or not self._settings.enabled:
            return
        self._order += 1
        self._completed[session] = self._order
        self._completed.move_to_end(session)
        if len(self._completed) > self._settings.sessions_max:
            forgotten, _ = self._completed.popitem(last=False)
            self._held.pop(forgotten, None)
        if self._settings.grace_s > 0:
            self._held[session] = now_s + self._settings.grace_s

    def start(self, session: str) -> None:
        """Its follow-up has gone to an engine: the slot is kept no longer."""
        self._held.pop(session, None)

    def held(self, now_s: float) -> int:
        """Slots kept now."""
        for session in [name for name, until_s in self._held.items() if until_s <= now_s]:
            del self._held[session]
        return len(self._held)

    def is_held(self, session: str) -> bool:
        return session in self._held

    @property
    def next_end_s(self) -> float | None:
        return min(self._held.values(), default=None)
