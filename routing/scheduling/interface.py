"""What scheduling plugins see and give back.

Plugins get `hekla.routing.scheduling.candidates.Candidates`, a sequence of `Candidate` that also has the engines' keys and
loads as arrays; `Candidates.of` makes one of any sequence. Scores may be arrays too: with a thousand engines that is
the difference between microseconds and milliseconds.

A filter answers *may this engine take the request now*, a scorer *how good would it be*, in [0, 1]. Both read a
snapshot and change nothing; what a plugin learns from outcomes it learns through its own feed, not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from hekla.routing.backend import Backend
from hekla.routing.load import EngineLoad
from hekla.routing.load_columns import Vector


class Candidate(NamedTuple):
    backend: Backend
    load: EngineLoad


class RequestView(Protocol):
    """The request as plugins see it. What is costly to know is computed when first asked for."""

    @property
    def model(self) -> str:
        """The name the client asked for."""

    @property
    def upstream_model(self) -> str:
        """The name the engine will see: the served model, or the LoRA adapter."""

    @property
    def is_adapter(self) -> bool: ...

    @property
    def path(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Lower-case names."""

    @property
    def prompt_text(self) -> str:
        """The prompt, or the messages in ChatML; lazily."""

    @property
    def estimated_tokens(self) -> int:
        """Prompt tokens at four characters each; exact when the prompt is token ids. Lazily."""

    @property
    def token_ids(self) -> Sequence[int] | None:
        """The prompt as the engine will see it, once the router has tokenised it; None when it has not."""

    @property
    def output_tokens_max(self) -> int:
        """Tokens the client allows to be generated; 0 when it does not say."""

    @property
    def tenant(self) -> str:
        """Who pays; empty without identity."""

    @property
    def session(self) -> str:
        """The conversation it belongs to; empty when the client does not say."""

    @property
    def memo(self) -> dict[str, Any]:
        """What plugins share within this request's decisions: costly results by a plugin's own key."""

    @property
    def is_one_sequence(self) -> bool:
        """False when the engine makes several sequences of it: a batch of prompts, or `n` above 1. Lazily."""

    @property
    def now_s(self) -> float:
        """Monotonic seconds at which the decision is made."""

    @property
    def random(self) -> float:
        """A fresh number in [0, 1) at each read."""


class PrefixKnowledge(Protocol):
    """What is known of the engines' prefix caches: approximate, exact, or both (`hekla.routing.prefix`)."""

    def matched_tokens(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[int] | Vector:
        """Tokens at the prompt's start that each candidate holds, in their order; 0 while unknown."""

    def routed(self, request: RequestView, engine: str, now_s: float) -> None:
        """The request goes to the engine (its key): its prompt will be there soon."""

    def finished(self, request: RequestView, engine: str, now_s: float, *, succeeded: bool) -> None:
        """It has ended there."""

    def forget(self, engine: str) -> None:
        """The engine is gone, and its cache with it."""


class Filter(Protocol):
    @property
    def name(self) -> str: ...

    def keep(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """Those that may take the request, in their order."""


class Scorer(Protocol):
    @property
    def name(self) -> str: ...

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[float] | Vector:
        """One score in [0, 1] per candidate, higher is better."""


class Busy(Exception):
    """Engines are ready, but the filters leave none: come back later. Not an error of any part."""

    def __init__(self, filter_name: str, ready: int) -> None:
        super().__init__(f"all {ready} ready engines are refused by the filter {filter_name!r}")
        self.filter_name = filter_name
