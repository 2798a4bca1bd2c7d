"""Both indexes as one: exact where an engine tells what it holds and the prompt's tokens are known, else approximate."""

from __future__ import annotations

from collections.abc import Sequence

from hekla.routing.prefix.approximate import ApproximateIndex
from hekla.routing.prefix.exact import ExactIndex
from hekla.routing.prefix.interface import Candidate, Match, RequestView, keys_of


class CombinedKnowledge:
    """Implements `PrefixIndex`."""

    def __init__(self, approximate: ApproximateIndex, exact: ExactIndex) -> None:
        self.approximate, self.exact = approximate, exact

    def match(self, request: RequestView, candidates: Sequence[Candidate]) -> Match:
        """Both are asked about an engine whose events did not reach back to its start: it may hold more than they told.

        So they are about one that has told of no block yet: without its block size requests on their way can't be
        credited exactly, and a burst with one prefix would be spread over all engines.
        """
        if request.token_ids is None or (not self.exact.complete and not any(self.exact.engines)):
            return self.approximate.match(request, candidates)
        exact, complete = self.exact.match(request, candidates), self.exact.trusted
        keys = keys_of(candidates)
        if complete.issuperset(keys):
            return exact
        rough = self.approximate.match(request, candidates)
        tokens = [
            known if key in complete else max(known, guessed)
            for key, known, guessed in zip(keys, exact.tokens, rough.tokens, strict=True)
        ]
        return exact._replace(tokens=tokens)

    def matched_tokens(self, request: RequestView, candidates: Sequence[Candidate]) -> list[int]:
        return [int(tokens) for tokens in self.match(request, candidates).tokens]

    def routed(self, request: RequestView, engine: str, now_s: float) -> None:
        self.approximate.routed(request, engine, now_s)
        self.exact.routed(request, engine, now_s)

    def finished(self, request: RequestView, engine: str, now_s: float, *, succeeded: bool) -> None:
        self.approximate.finished(request, engine, now_s, succeeded=succeeded)
        self.exact.finished(request, engine, now_s, succeeded=succeeded)

    def forget(self, engine: str) -> None:
        self.approximate.forget(engine)
        self.exact.forget(engine)

    def check(self) -> None:
        self.approximate.check()
        self.exact.check()

    def __repr__(self) -> str:
        return f"CombinedKnowledge({self.approximate!r}, {self.exact!r})"
