"""Which adapters could not be loaded where, and when to try again: later each time. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

PAUSE_S = 15.0
"""Before the second attempt; each further pause is twice as long."""
PAUSE_MAX_S = 600.0

Place = tuple[str, str]
"""Host and adapter."""


@dataclass
class _Failure:
    uri: str
    message: str
    until_s: float
    count: int = 1
    is_shown: bool = True
    """The engine still shows this failure: it is no new one."""


@dataclass
class FailureBook:
    """One ModelServer's."""

    _failures: dict[Place, _Failure] = field(default_factory=dict)

    def note(self, place: Place, uri: str, message: str, now_s: float) -> None:
        """The engine says that it failed; said again, it is the same failure."""
        known = self._failures.get(place)
        if known is None or known.uri != uri:
            self._failures[place] = _Failure(uri, message, now_s + PAUSE_S)
        elif not known.is_shown:
            known.count += 1
            known.until_s = now_s + min(PAUSE_MAX_S, PAUSE_S * 2 ** min(known.count - 1, 16))
            known.message, known.is_shown = message, True

    def not_shown(self, place: Place) -> None:
        """The engine does not show the failure any more."""
        if place in self._failures:
            self._failures[place].is_shown = False

    def succeeded(self, place: Place) -> None:
        self._failures.pop(place, None)

    def keep(self, uris: dict[str, str], hosts: Iterable[str]) -> None:
        """Forget what concerns other adapters, other URIs or hosts that are gone."""
        alive = set(hosts)
        self._failures = {
            (host, name): failure
            for (host, name), failure in self._failures.items()
            if host in alive and uris.get(name) == failure.uri
        }

    def barred(self, host: str, now_s: float) -> frozenset[str]:
        """Adapters that are not tried on this host now."""
        return frozenset(n for (h, n), failure in self._failures.items() if h == host and failure.until_s > now_s)

    def next_due_s(self, now_s: float) -> float | None:
        """Until something may be tried again."""
        return min((f.until_s - now_s for f in self._failures.values() if f.until_s > now_s), default=None)

    def messages(self, name: str) -> list[str]:
        """Why an adapter failed, by host."""
        return [f"{host}: {f.message}" for (host, found), f in sorted(self._failures.items()) if found == name]
