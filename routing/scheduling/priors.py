"""How fast an engine is before anything has been seen of it, by model and accelerator.

Computed with a roofline model of a decoder's step (weights read once, KV cache read per context token, matrix products
at the accelerator's usual share of its peak), whose prefill rate and KV capacity agree with published calibrations
within a few percent. What is not in the table starts at a modest guess; both are corrected by what is observed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from hekla.routing.backend import Backend
from hekla.routing.scheduling.rates import EngineRates

OUTPUT_TOKENS = 200.0
"""Mean answer of public chat traces."""
OVERHEAD_S = 0.02
"""An HTTP exchange inside a cluster, one step, and the engine's own handling."""

MODEST = EngineRates(4000.0, OVERHEAD_S, 0.02, 0.0002, 1e-7, 0.0, OUTPUT_TOKENS)
"""A small accelerator; its KV capacity is unknown rather than guessed: a wrong one would keep requests away."""

ACCELERATOR_LABELS = ("hekla.io/accelerator", "ray.io/accelerator-type", "nvidia.com/gpu.product", "accelerator")


class _Row(NamedTuple):
    """One model on one accelerator, steps at 1,024 tokens of context each."""

    model: str
    accelerators: str
    devices: int
    prefill_tokens_s: float
    step_alone_ms: float
    step_of_64_ms: float
    kv_tokens: int
    context_ns: float
    """Reading one token's KV."""


_TABLE = (
    _Row("7b", "l4", 1, 4533, 73.7, 91.6, 68_931, 273.0),
    _Row("7b", "a10g", 1, 2863, 37.3, 46.3, 68_931, 136.5),
    _Row("7b", "l40s", 1, 11067, 25.4, 31.6, 422_826, 92.2),
    _Row("7b", "a100", 1, 13973, 11.5, 14.4, 1_012_650, 40.2),
    _Row("7b", "h100", 1, 37717, 7.3, 9.1, 1_012_650, 24.1),
    _Row("7b", "h200", 1, 37717, 5.3, 6.7, 2_040_629, 16.8),
    _Row("8b", "l4", 1, 4238, 78.0, 115.0, 23_901, 624.2),
    _Row("8b", "a10g", 1, 2677, 39.5, 60.0, 23_901, 312.1),
    _Row("8b", "l40s", 1, 10346, 27.0, 40.8, 178_730, 210.7),
    _Row("8b", "a100", 1, 13062, 12.3, 18.5, 436_778, 91.8),
    _Row("8b", "h100", 1, 34538, 7.7, 11.6, 436_778, 55.1),
    _Row("8b", "h200", 1, 34538, 5.7, 8.4, 886_519, 38.5),
    _Row("32b", "a100", 2, 6152, 26.0, 32.4, 309_062, 91.8),
    _Row("32b", "h100", 2, 16111, 16.7, 20.7, 309_062, 55.1),
    _Row("32b", "h200", 1, 8369, 21.1, 26.3, 254_279, 76.9),
    _Row("32b", "h200", 2, 16111, 12.5, 15.4, 758_803, 38.5),
    _Row("70b", "a100", 4, 5579, 28.4, 32.6, 463_982, 57.4),
    _Row("70b", "h100", 4, 15221, 18.5, 21.1, 463_982, 34.4),
    _Row("70b", "h200", 2, 7759, 24.3, 28.0, 376_329, 48.1),
    _Row("70b", "h200", 4, 15221, 14.0, 16.0, 1_183_567, 24.0),
    _Row("70b", "b200", 2, 15600, 16.7, 19.1, 606_360, 30.4),
)
_STEP_CONTEXT = 1024
_REQUEST_S_MIN = 4.4e-6
"""What scheduling one more request costs a step."""
_SIZE = re.compile(r"(?<![0-9.])(\d+(?:\.\d+)?)b(?![a-z0-9])")


def kind_of(backend: Backend) -> str:
    """Engines of one kind are taken to be equally fast until they show otherwise: model and accelerator."""
    return f"{_model(backend)}@{accelerator_of(backend) or 'unknown'}"


def accelerator_of(backend: Backend) -> str:
    """In lower case; empty while no label tells."""
    for label in ACCELERATOR_LABELS:
        if value := backend.labels.get(label):
            return value.lower()
    return ""


def shipped_prior(backend: Backend) -> EngineRates:
    """The table's row where model size and accelerator are known, else a modest guess."""
    size, accelerator = _SIZE.search(_model(backend).lower()), accelerator_of(backend)
    if size is None or not accelerator:
        return MODEST
    fitting = [
        r for r in _TABLE if r.model == size.group(0) and re.search(rf"\b{r.accelerators}(?![0-9])", accelerator)
    ]
    return _rates(fitting[0]) if fitting else MODEST


def _model(backend: Backend) -> str:
    return backend.models[0] if backend.models else ""


def _rates(row: _Row) -> EngineRates:
    per_context_s = row.context_ns * 1e-9
    per_request_s = (row.step_of_64_ms - row.step_alone_ms) / 63 / 1000 - _STEP_CONTEXT * per_context_s
    per_request_s = max(per_request_s, _REQUEST_S_MIN)
    base_s = row.step_alone_ms / 1000 - per_request_s - _STEP_CONTEXT * per_context_s
    return EngineRates(
        row.prefill_tokens_s, OVERHEAD_S, max(base_s, 1e-4), per_request_s, per_context_s, row.kv_tokens, OUTPUT_TOKENS
    )
