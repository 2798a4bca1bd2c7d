"""The tables of plugins by the name settings use, and the profile that settings describe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from hekla.routing.config import LimitSettings, SchedulingSettings
from hekla.routing.scheduling.arguments import Argument, read_arguments
from hekla.routing.scheduling.filters.capacity import Capacity
from hekla.routing.scheduling.filters.circuit import Circuit
from hekla.routing.scheduling.filters.context_fits import ContextFits
from hekla.routing.scheduling.filters.lora_loaded import LoraLoaded
from hekla.routing.scheduling.filters.ready import Ready
from hekla.routing.scheduling.filters.same_group import SameGroup
from hekla.routing.scheduling.filters.waiting import Waiting
from hekla.routing.scheduling.forecast import HEADROOM, Forecaster
from hekla.routing.scheduling.interface import Filter, PrefixKnowledge, Scorer
from hekla.routing.scheduling.knowledge import NoKnowledge
from hekla.routing.scheduling.pipeline import OnError, Profile, raise_error
from hekla.routing.scheduling.priors import kind_of, shipped_prior
from hekla.routing.scheduling.rates import RateBook
from hekla.routing.scheduling.scorers.cost import DECODE_WEIGHT, DISPLACEMENT, RENT, Cost
from hekla.routing.scheduling.scorers.kv_usage import KvUsage
from hekla.routing.scheduling.scorers.least_latency import LeastLatency
from hekla.routing.scheduling.scorers.least_prefill import LeastPrefill
from hekla.routing.scheduling.scorers.least_request import LeastRequest
from hekla.routing.scheduling.scorers.lora_affinity import LoraAffinity
from hekla.routing.scheduling.scorers.power_of_two import PowerOfTwo
from hekla.routing.scheduling.scorers.prefill_times_batch import PrefillTimesBatch
from hekla.routing.scheduling.scorers.prefix import Prefix
from hekla.routing.scheduling.scorers.session_affinity import SessionAffinity
from hekla.routing.scheduling.scorers.uniform import Uniform

Made_co = TypeVar("Made_co", covariant=True)
Arguments = Mapping[str, float]


@dataclass(frozen=True)
class Parts:
    """What plugins are made of."""

    forecaster: Forecaster
    """Its knowledge is the best there is: what `cost` predicts with."""
    approximate: PrefixKnowledge
    exact: PrefixKnowledge
    on_error: OnError | None = None


def blind_parts() -> Parts:
    """Without any prefix knowledge, and with rates of its own."""
    nothing = NoKnowledge()
    return Parts(Forecaster(nothing, RateBook(shipped_prior, kind_of)), nothing, nothing)


@dataclass(frozen=True)
class Plugin(Generic[Made_co]):
    make: Callable[[Parts, LimitSettings, Arguments], Made_co]
    arguments: Mapping[str, Argument] = field(default_factory=dict)


_TOP_K = {"top_k": Argument(0, 0, 1000, whole=True, means="only so many of the best engines score; 0: all")}

FILTERS: Mapping[str, Plugin[Filter]] = {
    "ready": Plugin(lambda parts, limits, a: Ready()),
    "circuit": Plugin(lambda parts, limits, a: Circuit()),
    "waiting": Plugin(
        lambda parts, limits, a: Waiting(int(a["waiting_max"]) or limits.engine_waiting_max),
        {"waiting_max": Argument(0, 0, 1_000_000, True, "waiting requests an engine may report; 0: the limit's")},
    ),
    "capacity": Plugin(
        lambda parts, limits, a: Capacity(int(a["requests_max"]) or limits.engine_requests_max),
        {"requests_max": Argument(0, 0, 1_000_000, True, "requests in flight on one engine; 0: the limit's")},
    ),
    "context-fits": Plugin(lambda parts, limits, a: ContextFits()),
    "lora-affinity": Plugin(lambda parts, limits, a: LoraLoaded()),
    "same-group": Plugin(lambda parts, limits, a: SameGroup()),
}

SCORERS: Mapping[str, Plugin[Scorer]] = {
    "cost": Plugin(
        lambda parts, limits, a: Cost(_forecaster(parts, a["headroom"]), d=a["d"], rho=a["rho"], kappa=a["kappa"]),
        {
            "d": Argument(DECODE_WEIGHT, 0, 10, means="weight of decode time"),
            "rho": Argument(RENT, 0, 100, means="rent for displaced cache, in prefills"),
            "kappa": Argument(DISPLACEMENT, 0, 100, means="price of what is thrown out of a full cache, in prefills"),
            "headroom": Argument(HEADROOM, 0.1, 1, means="share of a KV cache that is filled before requests wait"),
        },
    ),
    "prefill-times-batch": Plugin(lambda parts, limits, a: PrefillTimesBatch(parts.forecaster)),
    "least-request": Plugin(lambda parts, limits, a: LeastRequest()),
    "least-prefill": Plugin(lambda parts, limits, a: LeastPrefill()),
    "least-latency": Plugin(
        lambda parts, limits, a: LeastLatency(a["alpha"]),
        {"alpha": Argument(0.5, 0, 1, means="weight of time to first token; the rest is time per output token's")},
    ),
    "kv-usage": Plugin(lambda parts, limits, a: KvUsage(parts.forecaster.rates)),
    "prefix-cache": Plugin(
        lambda parts, limits, a: Prefix("prefix-cache", parts.approximate, top_k=int(a["top_k"])), _TOP_K
    ),
    "kv-cache": Plugin(lambda parts, limits, a: Prefix("kv-cache", parts.exact, top_k=int(a["top_k"])), _TOP_K),
    "lora-affinity": Plugin(lambda parts, limits, a: LoraAffinity()),
    "session-affinity": Plugin(lambda parts, limits, a: SessionAffinity()),
    "random": Plugin(lambda parts, limits, a: Uniform()),
    "power-of-two": Plugin(lambda parts, limits, a: PowerOfTwo()),
}


def build_profile(scheduling: SchedulingSettings, limits: LimitSettings, parts: Parts | None = None) -> Profile:
    """Raises ValueError naming a plugin or argument that does not exist and those that do."""
    maker = _Maker(scheduling, limits, parts or blind_parts())
    chosen = {*scheduling.filters, *(name for name, _ in scheduling.scorers)}
    for name in scheduling.args:
        if name not in chosen:
            raise ValueError(f"scheduling.args names {name!r}, which is not enabled; enabled: {_list(chosen)}")
    return Profile(
        filters=tuple(maker.make("filters", name, FILTERS) for name in scheduling.filters),
        scorers=tuple((maker.make("scorers", name, SCORERS), weight) for name, weight in scheduling.scorers),
        forecaster=maker.parts.forecaster,
        on_error=maker.parts.on_error or raise_error,
    )


@dataclass(frozen=True)
class _Maker:
    scheduling: SchedulingSettings
    limits: LimitSettings
    parts: Parts

    def make(self, field: str, name: str, known: Mapping[str, Plugin[Made_co]]) -> Made_co:
        plugin = known.get(name)
        if plugin is None:
            raise ValueError(f"scheduling.{field} names {name!r}; known: {_list(known)}")
        place, given = f"scheduling.args[{name}]", self.scheduling.args.get(name, {})
        # A filter and a scorer may have the same name, and then share their arguments' place.
        both = {**_arguments(FILTERS, name), **_arguments(SCORERS, name)}
        read = read_arguments(place, both, given)
        return plugin.make(self.parts, self.limits, {key: read[key] for key in plugin.arguments})


def _arguments(known: Mapping[str, Plugin[Any]], name: str) -> Mapping[str, Argument]:
    return known[name].arguments if name in known else {}


def _forecaster(parts: Parts, headroom: float) -> Forecaster:
    shared = parts.forecaster
    return (
        shared
        if headroom == shared.headroom
        else Forecaster(shared.knowledge, shared.rates, headroom=headroom, cached=shared.cached)
    )


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
