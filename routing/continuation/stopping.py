"""Stop strings across the seam: what may be shown, and where the text ends. Pure.

The engine that goes on looks for stop strings only in what it writes itself; one that began before the seam would
be missed. So the ingress looks for them from there on, by vLLM's rules: text that may yet become a stop string is
held back (unless the string itself is to be shown), the one that is complete first wins, and none counts
before `min_tokens`.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopWatch:
    """`text` is the answer up to the seam, of which `shown` characters the client has."""

    def __init__(
        self, stops: Sequence[str], text: str, shown: int, *, keep: bool, min_tokens: int, tokens: int
    ) -> None:
        self._stops, self._keep = tuple(stops), keep
        self._min_tokens, self._tokens = min_tokens, tokens
        self._held_max = 0 if keep else max(map(len, stops), default=1) - 1
        longest = max(map(len, stops), default=1)
        self._reach = longest - 1
        self._text, self._shown = text, shown
        self._forget()
        self.found: str | None = None
        """The stop string that ended the answer."""

    def feed(self, text: str, tokens: int) -> str:
        """What can be shown now; look at `found` afterwards."""
        before = len(self._text)
        self._text += text
        self._tokens += tokens
        if text and self._stops and self._tokens > self._min_tokens:
            self._look(before)
        return self._show(0 if self.found is not None else self._held_max)

    def rest(self) -> str:
        """What was held back, at the end of the answer."""
        return self._show(0)

    def _look(self, before: int) -> None:
        best = -1
        for stop in self._stops:
            at = self._text.find(stop, max(0, before - len(stop) + 1))
            if at >= 0 and (best < 0 or at + len(stop) < best):
                best, self.found = at + len(stop), stop
        if self.found is not None:
            self._text = self._text[: best if self._keep else best - len(self.found)]

    def _show(self, held: int) -> str:
        end = max(self._shown, len(self._text) - held)
        fresh, self._shown = self._text[self._shown : end], end
        self._forget()
        return fresh

    def _forget(self) -> None:
        """Keep only what a stop string can still reach back to."""
        start = max(0, min(self._shown, len(self._text) - self._reach))
        self._text, self._shown = self._text[start:], self._shown - start
