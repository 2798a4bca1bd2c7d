"""The scheduler at work in an ingress: plugins, forecasts and trips put together, and their configuration followed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from hekla.platform.base.clock import Clock
from hekla.routing.backend import Backend
from hekla.routing.config import LimitSettings, SchedulingSettings
from hekla.routing.disaggregation import Planner
from hekla.routing.load import LoadBook
from hekla.routing.pairs.settings import DisaggregationSettings
from hekla.routing.scheduling.catalog import Parts, build_profile
from hekla.routing.scheduling.dispatch import Dispatcher
from hekla.routing.scheduling.forecast import NOT_TOLD, Forecaster
from hekla.routing.scheduling.interface import PrefixKnowledge
from hekla.routing.scheduling.metrics import SchedulingMetrics
from hekla.routing.scheduling.peer_config import ConfigFile, read_config
from hekla.routing.scheduling.priors import kind_of, shipped_prior
from hekla.routing.scheduling.rates import RateBook
from hekla.routing.scheduling.reload import ConfigReloader

logger = logging.getLogger(__name__)


class Knowledge(NamedTuple):
    """Of the engines' prefix caches."""

    best: PrefixKnowledge
    """What forecasts are made with."""
    approximate: PrefixKnowledge
    exact: PrefixKnowledge
    cached: Mapping[str, int] = NOT_TOLD
    """Tokens in the cache, in use or not, of each engine that tells; stays current."""


class SchedulingService:
    """`dispatcher` is what requests go through. Raises ValueError on settings, or a file they name, that are wrong."""

    def __init__(
        self, settings: SchedulingSettings, limits: LimitSettings, loads: LoadBook, *, knowledge: Knowledge,
        registry: CollectorRegistry, clock: Clock, on_change: Callable[[], None] = lambda: None,
        disaggregation: DisaggregationSettings = DisaggregationSettings(),
    ) -> None:  # fmt: skip
        self._limits, self._on_change = limits, on_change
        self.rates = RateBook(shipped_prior, kind_of)
        self.metrics = SchedulingMetrics(self.rates, registry)
        self.forecaster = Forecaster(knowledge.best, self.rates, cached=knowledge.cached)
        self._parts = Parts(self.forecaster, knowledge.approximate, knowledge.exact, on_error=self._plugin_failed)
        self.settings = settings
        self._failures: dict[str, int] = {}
        profile = build_profile(settings, limits, self._parts)
        self._planner = Planner(profile, loads, clock.monotonic, disaggregation)
        self.dispatcher = Dispatcher(self._planner, loads, self.forecaster, on_precision=self._precision)
        self.reloader: ConfigReloader[ConfigFile] | None = None
        if settings.config_file:
            self.reloader = ConfigReloader(
                settings, self._use, read=lambda text: read_config(text, settings), clock=clock, count=self.reloaded
            )
            self.reloader.load()

    async def start(self) -> None:
        if self.reloader is not None:
            await self.reloader.start()

    async def stop(self) -> None:
        if self.reloader is not None:
            await self.reloader.stop()

    def learn_capacity(self, backend: Backend, tokens: int) -> None:
        """The engine says how many tokens its KV cache holds."""
        self.rates.learn_capacity(backend, tokens)

    def _use(self, config: ConfigFile) -> None:
        self.use(config.scheduling, self._limits)

    def use(self, settings: SchedulingSettings, limits: LimitSettings) -> None:
        """From the next decision on. Raises ValueError, and has changed nothing then."""
        self._planner.profile = build_profile(settings, limits, self._parts)
        self.settings, self._limits = settings, limits
        self._on_change()

    def reloaded(self, outcome: str) -> None:
        self.metrics.reloads.labels(outcome).inc()

    def _precision(self, model: str, precision: float) -> None:
        self.metrics.precision.at(model).observe(precision)

    def _plugin_failed(self, plugin: str, error: Exception) -> None:
        self.metrics.plugin_errors.labels(plugin).inc()
        times = self._failures[plugin] = self._failures.get(plugin, 0) + 1
        if times & (times - 1) == 0:  # the first, second, fourth …: a failing plugin does not fill the disk
            logger.error("the plugin %r failed in %d decisions so far", plugin, times, exc_info=error)

    def __repr__(self) -> str:
        scorers = ", ".join(f"{name}×{weight:g}" for name, weight in self.settings.scorers)
        return f"SchedulingService({scorers})"
