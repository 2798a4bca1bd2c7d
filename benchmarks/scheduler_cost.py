"""What one routing decision costs, without tokenisation: filters, prefix look-up, forecast, scores, choice, bookkeeping.

    python benchmarks/scheduler_cost.py --json

Engines hold different prefixes and different load; every request is new, shares a prefix with an earlier one, and is
planned and begun as in the ingress. `decision` is `Dispatcher.plan`; `trip` is what begin, first token and end cost
after that, off the path to the engine. `wall` is what a clock shows, `cpu` what the deciding thread used: on a machine
that others share only the second is the scheduler's own, so the claims are about it.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.report import Report
from hekla.platform.base.ids import SeededIds
from hekla.routing.backend import Backend, ModelServer
from hekla.routing.body import Body
from hekla.routing.config import LimitSettings, SchedulingSettings
from hekla.routing.disaggregation import Planner
from hekla.routing.load import Counts, LoadBook
from hekla.routing.prefix.approximate import ApproximateIndex
from hekla.routing.prefix.exact import ExactIndex
from hekla.routing.prefix.hashing import BlockHasher
from hekla.routing.prefix.knowledge import CombinedKnowledge
from hekla.routing.prefix.settings import PrefixSettings
from hekla.routing.scheduling.catalog import Parts, build_profile
from hekla.routing.scheduling.dispatch import Dispatcher
from hekla.routing.scheduling.forecast import Forecaster
from hekla.routing.scheduling.priors import kind_of, shipped_prior
from hekla.routing.scheduling.rates import RateBook
from hekla.routing.usage import Usage
from hekla.routing.view import LazyView

ENGINES = (10, 100, 1000)
PROMPT_TOKENS = (2_000, 16_000, 128_000)
GROUPS = 16
CHARS_PER_TOKEN = 4


class Rig:
    """The production scheduler in front of `engines` engines."""

    def __init__(self, engines: int, scorer: str, seed: int) -> None:
        self.chance, self.ids = random.Random(seed), SeededIds(seed)
        self.loads = LoadBook()
        backends = tuple(Backend(f"default/engine-{i}", f"http://e{i}", models=("m",)) for i in range(engines))
        self.server = ModelServer(("default", "s"), "m", "vLLM", backends)
        hasher, settings = BlockHasher("seed"), PrefixSettings()
        approximate, exact = ApproximateIndex(settings.approximate, hasher), ExactIndex(settings.exact, hasher)
        forecaster = Forecaster(CombinedKnowledge(approximate, exact), RateBook(shipped_prior, kind_of))
        scheduling = SchedulingSettings(scorers=((scorer, 1.0),))
        profile = build_profile(scheduling, LimitSettings(), Parts(forecaster, approximate, exact))
        planner = Planner(profile, self.loads, time.perf_counter)
        self.dispatcher = Dispatcher(planner, self.loads, forecaster)
        known = {backend.key for backend in backends}
        self.loads.forget(known)
        self.dispatcher.forget(known)
        for backend in backends:
            busy = self.chance.randrange(0, 40)
            tokens = busy * self.chance.randrange(500, 8000)
            self.loads.add(backend.key, Counts(busy, tokens // 4, busy // 2, tokens, tokens))
        self.prefixes = [self._text(8_000) for _ in range(GROUPS)]

    def _text(self, tokens: int) -> str:
        return "".join(self.chance.choices("abcdefghijklmnopqrstuvwxyz ", k=tokens * CHARS_PER_TOKEN))

    def request(self, tokens: int, now_s: float) -> LazyView:
        text = self.chance.choice(self.prefixes)
        text = (text + self._text(max(tokens - len(text) // CHARS_PER_TOKEN, 0)))[: tokens * CHARS_PER_TOKEN]
        view = LazyView(Body.parse(b'{"prompt":"' + text.encode() + b'"}'), "/v1/completions", [], model="m",
                        chance=self.ids.random)  # fmt: skip
        view.now_s = now_s
        _ = view.prompt_text, view.estimated_tokens  # read from the body by the ingress before any decision
        return view

    def one(self, tokens: int, now_s: float) -> tuple[float, float, float]:
        """Seconds of CPU and of wall time for the decision, and of CPU for the trip's bookkeeping."""
        view = self.request(tokens, now_s)
        start, start_cpu = time.perf_counter(), time.thread_time()
        plan = self.dispatcher.plan(self.server, view, (), _no_meter)
        decided, decided_cpu = time.perf_counter(), time.thread_time()
        with self.dispatcher.begin(plan.server, view, now_s=now_s) as trip:
            trip.first_token(now_s + 0.3)
            trip.end(now_s + 2.0, usage=Usage(tokens, 100), succeeded=True)
        return decided_cpu - start_cpu, decided - start, time.thread_time() - decided_cpu


def _no_meter(plugin: str, kind: str, seconds: float) -> None: ...


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--samples", type=int, default=300, help="decisions per row")
    parser.add_argument("--scorer", default="cost", help="scorer measured")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    report = Report("scheduler_cost")
    report.say("engines × prompt tokens, milliseconds per decision")
    for engines in ENGINES:
        for tokens in PROMPT_TOKENS:
            _measure(report, Rig(engines, args.scorer, args.seed), engines, tokens, args.samples)
    report.finish(args.json)


def _measure(report: Report, rig: Rig, engines: int, tokens: int, samples: int) -> None:
    for i in range(30):
        rig.one(tokens, float(i))
    gc.collect()
    gc.freeze()
    taken = [rig.one(tokens, 100.0 + i) for i in range(samples)]
    gc.unfreeze()
    cpu, wall, trips = ([1000 * row[i] for row in taken] for i in range(3))
    p50, p99 = statistics.median(cpu), _quantile(cpu, 0.99)
    report.add(engines=engines, prompt_tokens=tokens, cpu_p50_ms=p50, cpu_p99_ms=p99,
               wall_p50_ms=statistics.median(wall), wall_p99_ms=_quantile(wall, 0.99),
               trip_cpu_p50_ms=statistics.median(trips), trip_cpu_p99_ms=_quantile(trips, 0.99))  # fmt: skip
    if (engines, tokens) == (100, 16_000):
        report.at_most("CPU of a decision, p50 at 100 engines and 16k tokens, ms", p50, 0.3)
        report.at_most("CPU of a decision, p99 at 100 engines and 16k tokens, ms", p99, 1.0)


if __name__ == "__main__":
    main()
