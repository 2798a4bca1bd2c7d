"""A planner over prefill and decode engines with knowledge and loads that a test sets, in virtual time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from hekla.platform.base.ids import SeededIds
from hekla.routing.backend import Backend, ModelServer, PrefillGroup
from hekla.routing.body import Body
from hekla.routing.config import LimitSettings, SchedulingSettings
from hekla.routing.disaggregation import Plan, Planner
from hekla.routing.load import LoadBook
from hekla.routing.pairs.settings import DisaggregationSettings
from hekla.routing.scheduling.catalog import Parts, build_profile
from hekla.routing.scheduling.dispatch import Dispatcher
from hekla.routing.scheduling.forecast import Forecaster
from hekla.routing.scheduling.interface import Candidate, RequestView
from hekla.routing.scheduling.rates import EngineRates, RateBook
from hekla.routing.view import LazyView

RATES = EngineRates(1000.0, 0.01, 0.01, 0.001, 0.0, 0.0, 100.0)
"""A thousand prompt tokens a second, 10 ms beside: numbers to reckon with in one's head."""


class ToldKnowledge:
    """A `PrefixKnowledge` that holds what it is told."""

    def __init__(self) -> None:
        self.holds: dict[str, int] = {}

    def matched_tokens(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[int]:
        return [self.holds.get(candidate.backend.key, 0) for candidate in candidates]

    def routed(self, request: RequestView, engine: str, now_s: float) -> None:
        """It knows only what it is told."""

    def finished(self, request: RequestView, engine: str, now_s: float, *, succeeded: bool) -> None:
        """It knows only what it is told."""

    def forget(self, engine: str) -> None:
        self.holds.pop(engine, None)


def request(prompt_tokens: int, *, path: str = "/v1/completions", seed: int = 1) -> LazyView:
    view = LazyView(Body.parse(b'{"prompt":"x"}'), path, [], model="m", chance=SeededIds(seed).random)
    view.token_ids = [7] * prompt_tokens
    return view


@dataclass
class PairBench:
    """`groups` gives prefill and decode engines by group; `labels` those of an engine."""

    groups: Mapping[str, tuple[Sequence[str], Sequence[str]]]
    connector: str = "nixl"
    tokens_max: int | None = None
    settings: DisaggregationSettings = field(default_factory=DisaggregationSettings)
    scheduling: SchedulingSettings = field(default_factory=SchedulingSettings)
    priors: Mapping[str, EngineRates] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loads, self.knowledge, self.now_s = LoadBook(), ToldKnowledge(), 0.0
        names = [name for both in self.groups.values() for side in both for name in side]
        self.backends = {name: Backend(name, f"http://{name}", labels=self.labels.get(name, {})) for name in names}
        self.server = ModelServer(
            ("default", "s"), "m", "vLLM", tuple(self.backends.values()), self.connector,
            {
                key: PrefillGroup(tuple(self.backends[p] for p in prefill), tuple(self.backends[d] for d in decode))
                for key, (prefill, decode) in self.groups.items()
            },
            self.tokens_max,
        )  # fmt: skip
        self.rates = RateBook(
            lambda b: self.priors.get(b.key, RATES), lambda b: b.key if b.key in self.priors else "kind"
        )
        forecaster = Forecaster(self.knowledge, self.rates)
        profile = build_profile(self.scheduling, LimitSettings(), Parts(forecaster, self.knowledge, self.knowledge))
        self.planner = Planner(profile, self.loads, lambda: 0.0, self.settings)
        self.dispatcher = Dispatcher(self.planner, self.loads, forecaster)
        self.loads.forget(set(names))

    def plan(self, view: LazyView, tried: Sequence[str] = ()) -> Plan:
        view.now_s = self.now_s
        return self.dispatcher.plan(self.server, view, tried, lambda *_: None)

    def way(self, view: LazyView, tried: Sequence[str] = ()) -> tuple[str, str]:
        """`P>D` or `D`, and the reason."""
        plan = self.plan(view, tried)
        assert plan.verdict is not None
        prefill = f"{plan.prefill.backend.key}>" if plan.prefill is not None else ""
        return prefill + plan.server.backend.key, plan.verdict.reason

    def occupy(self, engine: str, tokens: int, **phase: Any) -> Any:
        """A request of so many tokens goes to the engine now, and stays."""
        view = request(tokens, seed=len(engine))
        view.now_s = self.now_s
        backend = self.backends[engine]
        return self.dispatcher.begin(Candidate(backend, self.loads.load(engine)), view, now_s=self.now_s, **phase)


@dataclass(frozen=True)
class PairKit:
    bench: Any = PairBench
    request: Any = request
    rates: EngineRates = RATES


@pytest.fixture
def pd() -> PairKit:
    return PairKit()
