"""Engines, requests and a scheduler with knowledge that a test sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from hekla.platform.base.ids import SeededIds
from hekla.routing.backend import Backend, ModelServer
from hekla.routing.body import Body
from hekla.routing.config import LimitSettings, SchedulingSettings
from hekla.routing.disaggregation import Plan, Planner
from hekla.routing.load import LoadBook
from hekla.routing.scheduling.catalog import Parts, build_profile
from hekla.routing.scheduling.dispatch import Dispatcher
from hekla.routing.scheduling.forecast import Forecaster
from hekla.routing.scheduling.interface import Candidate, RequestView
from hekla.routing.scheduling.rates import EngineRates, RateBook
from hekla.routing.view import LazyView

RATES = EngineRates(1000.0, 0.0, 0.01, 0.001, 0.0, 0.0, 100.0)
"""A thousand tokens a second, steps of 10 ms and 1 ms for each request: numbers to reckon with in one's head."""


class ToldKnowledge:
    """A `PrefixKnowledge` that holds what it is told, and remembers what it was."""

    def __init__(self) -> None:
        self.holds: dict[str, int] = {}
        self.questions = 0
        self.told: list[tuple[str, str]] = []

    def matched_tokens(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[int]:
        self.questions += 1
        return [self.holds.get(candidate.backend.key, 0) for candidate in candidates]

    def routed(self, request: RequestView, engine: str, now_s: float) -> None:
        self.told.append(("routed", engine))

    def finished(self, request: RequestView, engine: str, now_s: float, *, succeeded: bool) -> None:
        self.told.append(("succeeded" if succeeded else "failed", engine))

    def forget(self, engine: str) -> None:
        self.told.append(("forgotten", engine))


def request(
    prompt_tokens: int = 1000, *, text: str = "", body: Mapping[str, Any] | None = None, seed: int = 1
) -> LazyView:
    view = LazyView(Body.parse(b"{}"), "/v1/completions", [], model="m", chance=SeededIds(seed).random)
    view.token_ids = [7] * prompt_tokens
    if text:
        view.token_ids = [ord(char) for char in text * (prompt_tokens // len(text) + 1)][:prompt_tokens]
    return view


@dataclass
class Bench:
    """A dispatcher over `engines`; `kinds` gives engines a kind of their own."""

    engines: Sequence[str]
    scheduling: SchedulingSettings = field(default_factory=SchedulingSettings)
    priors: Mapping[str, EngineRates] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loads, self.knowledge, self.precision = LoadBook(), ToldKnowledge(), list[float]()
        self.backends = tuple(Backend(key, f"http://{key}") for key in self.engines)
        self.server = ModelServer(("default", "s"), "m", "vLLM", self.backends)
        self.rates = RateBook(
            lambda b: self.priors.get(b.key, RATES), lambda b: b.key if b.key in self.priors else "kind"
        )
        self.forecaster = Forecaster(self.knowledge, self.rates)
        parts = Parts(self.forecaster, self.knowledge, self.knowledge)
        profile = build_profile(self.scheduling, LimitSettings(), parts)
        self.planner = Planner(profile, self.loads, lambda: 0.0)
        self.dispatcher = Dispatcher(
            self.planner, self.loads, self.forecaster, on_precision=lambda model, share: self.precision.append(share)
        )
        self.loads.forget(set(self.engines))
        self.dispatcher.forget(set(self.engines))

    def plan(self, view: LazyView, now_s: float = 0.0, tried: Sequence[str] = ()) -> Plan:
        view.now_s = now_s
        return self.dispatcher.plan(self.server, view, tried, lambda *_: None)

    def candidate(self, engine: str) -> Candidate:
        return Candidate(self.backends[list(self.engines).index(engine)], self.loads.load(engine))


@dataclass(frozen=True)
class SchedulingKit:
    bench: Callable[..., Bench] = Bench
    request: Callable[..., LazyView] = request
    rates: EngineRates = RATES
    knowledge: Callable[[], ToldKnowledge] = ToldKnowledge


@pytest.fixture
def sched() -> SchedulingKit:
    return SchedulingKit()
