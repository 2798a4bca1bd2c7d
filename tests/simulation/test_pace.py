from __future__ import annotations

import pytest

from hekla.deployments.simengine.hardware import HARDWARE, shape_named
from hekla.deployments.simengine.steps import Linear, Roofline, StepModel, StepWork
from hekla.simulation.engine.pace import Pace

MODELS = [Linear(5.0, 0.1, 0.2, 0.003), Linear(5.0), Roofline(shape_named("Llama-3-8B"), HARDWARE["L4"])]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("sequences", "context", "steps"), [(1, 10, 1), (7, 900, 40), (200, 100_000, 333)])
def test_many_steps_at_once_take_as_long_as_one_by_one(
    model: StepModel, sequences: int, context: int, steps: int
) -> None:
    one_by_one = sum(model.step_s(StepWork(sequences, context + i * sequences)) for i in range(steps))
    assert Pace(model).decodes_s(sequences, context, steps) == pytest.approx(one_by_one, rel=1e-9)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.5, 3.7, 60.0])
def test_the_step_in_which_a_time_falls_is_the_first_that_ends_at_or_after_it(model: StepModel, seconds: float) -> None:
    pace = Pace(model)
    steps = pace.steps_within(32, 30_000, seconds)
    assert pace.decodes_s(32, 30_000, steps) >= seconds
    assert steps == 1 or pace.decodes_s(32, 30_000, steps - 1) < seconds
