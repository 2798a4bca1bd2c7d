"""Benchmark: hekla's choices of engine, on real vLLM, beside an oracle, random and the published Rust routers.

Three vLLM engines on CPU serve SmolLM2-135M-Instruct with a small cache each. Arms take turns before the same engines
with the same requests: within a seed all arms of a workload follow each other, so that a machine that drifts drifts for
all. Runs go to a file, one line each; `--resume FILE` goes on where a start was cut off. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from report import Report
from side_by_side.arms import ARMS, DEFAULT, ORACLE, USUAL, USUAL_WITHOUT_SHARING
from side_by_side.fleet import ARGS, VLLM_ARGS, Fleet, fleet_of
from side_by_side.one_run import one_run
from side_by_side.processes import Failed
from side_by_side.results import ResultsFile, Run
from side_by_side.router_cost import router_cost
from side_by_side.routers import install
from side_by_side.verdict import tell
from side_by_side.workload import SHAPES, Shape, prompts

ENGINES = 3
WARM_UP_SEED = 0
COST_ARMS = (DEFAULT, "hekla-random", "vllm-router-cache-aware", "vllm-router-kv-aware", "smg-cache-aware")


def main() -> None:
    options = _options()
    if options.hold:
        _hold(options)
        return
    report = Report("routing_vllm")
    shapes = [_smaller(SHAPES[name], options.scale) for name in options.workloads]
    arms = options.arms or (list(ARMS) if options.all else list(USUAL))
    for package in sorted({ARMS[name].package for name in arms} - {""}):
        install(package, options.cache)
    if not options.no_cost:
        measured = [ARMS[name] for name in COST_ARMS if name in arms]
        router_cost(report, measured, seconds=options.cost_seconds, cache=options.cache, logs=options.logs)
    if not options.cost_only:
        results = ResultsFile(options.resume or options.logs / f"runs-{time.time():.0f}.jsonl", _setup(options))
        todo = [(seed, shape, arm) for seed in options.seeds for shape in shapes
                for arm in _in_order(arms, shape, seed, is_usual=not options.arms and not options.all)
                if not results.has(shape.name, seed, arm)]  # fmt: skip
        if todo:
            with _fleet(options) as fleet:
                _warm_up(fleet, options)
                _all_runs(report, results, fleet, todo, options)
        tell(report, results.runs, options.workloads)
    report.finish(options.json)


def _setup(options: argparse.Namespace) -> dict[str, Any]:
    """What must be the same for runs to be compared."""
    return {
        "engines": options.engines,
        "threads": options.threads,
        "scale": options.scale,
        "args": [*ARGS, *VLLM_ARGS, *options.engine_args],
        "shapes": [asdict(shape) for shape in SHAPES.values()],
    }


@contextlib.contextmanager
def _fleet(options: argparse.Namespace) -> Iterator[Fleet]:
    if options.attach:
        yield Fleet.attached(options.attach)
        return
    with fleet_of(
        options.engines, ENGINES, threads=options.threads, logs=options.logs, extra=options.engine_args
    ) as fleet:
        yield fleet


def _hold(options: argparse.Namespace) -> None:
    """Engines for several starts of this program, until stdin ends."""
    with _fleet(options) as fleet:
        fleet.save(options.hold)
        print(f"engines are up; --attach {options.hold} uses them; end of input stops them", file=sys.stderr)
        sys.stdin.read()
    options.hold.unlink()


def _options() -> argparse.Namespace:
    home = Path("~/.cache/hekla-bench").expanduser()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--json", action="store_true", help="print one JSON object last")
    add("--arms", nargs="+", choices=list(ARMS), default=[], help="default: those that the claims need")
    add("--all", action="store_true", help="every arm, each of hekla's single policies among them")
    add("--workloads", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    add("--seeds", nargs="*", type=int, default=[1, 2, 3])
    add("--resume", type=Path, help="file of runs to go on from, made when it is not there")
    add("--scale", type=float, default=1.0, help="share of each group's prompts that is sent: for a quick look")
    add("--engines", choices=["vllm", "simulated"], default="vllm", help="simulated: a rehearsal without vLLM")
    add("--engine-args", type=shlex.split, default=[], metavar="=ARGS", help="more arguments for every engine")
    add("--hold", type=Path, help="only start engines, say in this file where they are, and keep them")
    add("--attach", type=Path, help="use the engines of a `--hold` FILE, or any others written down like that")
    add("--threads", type=int, default=1, help="computing threads of each vLLM engine, bound to no core")
    add("--no-cost", action="store_true", help="leave out what the routers themselves cost")
    add("--cost-only", action="store_true", help="measure nothing else: needs no vLLM")
    add("--cost-seconds", type=float, default=4.0, help="length of each of its measurements")
    add("--cache", type=Path, default=home, help="where published routers are installed")
    add("--logs", type=Path, default=home / "logs", help="logs of engines and routers, and runs without --resume")
    return parser.parse_args()


def _smaller(shape: Shape, scale: float) -> Shape:
    return replace(shape, prompts=max(1, round(shape.prompts * scale)))


def _warm_up(fleet: Fleet, options: argparse.Namespace) -> None:
    """An engine's first prompts of a length take longer than the same later; no arm shall pay for that."""
    for name in ("b", "a"):
        shape = replace(SHAPES[name], prompts=1)
        asked = prompts(shape, WARM_UP_SEED)
        one_run(ARMS[ORACLE], shape, WARM_UP_SEED, asked, fleet, cache=options.cache, logs=options.logs)


def _all_runs(
    report: Report, results: ResultsFile, fleet: Fleet, todo: Sequence[tuple[int, Shape, str]],
    options: argparse.Namespace,
) -> None:  # fmt: skip
    began, left_out = time.monotonic(), 0
    for done, (seed, shape, name) in enumerate(todo):
        minutes = (time.monotonic() - began) / 60
        report.say(f"{done + 1} of {len(todo)}, {minutes:.1f} min: workload {shape.name}, seed {seed}, {name}")
        try:
            run = one_run(ARMS[name], shape, seed, prompts(shape, seed), fleet, cache=options.cache, logs=options.logs)
        except Failed as error:
            # One router that does not come up must not cost the hour; its arm is missing from the figures.
            report.say(f"  left out: {error}")
            left_out += 1
            continue
        results.add(run)
        report.say(_line(run))
    report.at_most("runs left out because something did not come up", left_out, 0)


def _in_order(arms: Sequence[str], shape: Shape, seed: int, *, is_usual: bool) -> list[str]:
    """Another order for every seed: whoever runs after an idle minute, or last, is not always the same."""
    chosen = [arm for arm in arms if not is_usual or shape.name != "c" or arm in USUAL_WITHOUT_SHARING]
    random.Random(f"{seed}/{shape.name}").shuffle(chosen)
    return chosen


def _line(run: Run) -> str:
    return (
        f"  {run.requests_per_s:.2f} requests/s, first token mean {run.ttft_mean_s:.3f} s p90 {run.ttft_p90_s:.3f} s, "
        f"hits {run.hit_rate:.1%} by engine {run.hit_rate_by_engine}, requests {run.requests_by_engine}, "
        f"router {run.router_cpu_s:.1f} s of cpu, others {run.others_cpu_share:.0%}"
        + (f", {run.errors} ERRORS, first: {run.first_error}" if run.errors else "")
    )


if __name__ == "__main__":
    main()
