from __future__ import annotations

import pytest

from hekla.deployments.simengine.hardware import HARDWARE, kv_capacity_tokens, shape_for, shape_named
from hekla.deployments.simengine.steps import Linear, Roofline, Scaled, StepWork, Transfer

DECODE_ROWS = [
    ("Qwen2.5-7B", "L4", 1, {1: 73.7, 8: 75.7, 32: 82.5}),
    ("Qwen2.5-7B", "H100", 1, {1: 7.3, 8: 7.5, 32: 8.2, 64: 9.1, 128: 11.0, 256: 14.7}),
    ("Llama-3-8B", "A10G", 1, {1: 39.5, 8: 41.8}),
    ("Llama-3-8B", "A100", 1, {1: 12.3, 8: 13.0, 32: 15.3, 64: 18.5, 128: 24.8, 256: 44.8}),
    ("Llama-3-8B", "H100", 1, {1: 7.7, 8: 8.2, 32: 9.6, 64: 11.6, 128: 15.5, 256: 23.3}),
    ("Llama-3-8B", "H200", 1, {1: 5.7, 64: 8.4, 256: 18.4}),
    ("Qwen3-32B", "H100", 2, {1: 16.7, 8: 17.2, 32: 18.7, 64: 20.7, 128: 24.7, 256: 32.8}),
    ("Llama-3-70B", "H100", 4, {1: 18.5, 32: 19.8, 256: 29.4}),
]


@pytest.mark.parametrize(("shape", "gpu", "ways", "row"), DECODE_ROWS)
def test_decode_steps_match_the_calibration_table(shape: str, gpu: str, ways: int, row: dict[int, float]) -> None:
    model = Roofline(shape_named(shape), HARDWARE[gpu], ways)
    for batch, expected_ms in row.items():
        work = StepWork(decodes=batch, decode_context=1024 * batch)
        assert model.step_s(work) * 1e3 == pytest.approx(expected_ms, rel=0.08), f"batch {batch}"


PREFILL_ROWS = [
    ("Qwen2.5-7B", "L4", 1, 2048, 4_533),
    ("Qwen2.5-7B", "H100", 1, 8192, 37_717),
    ("Llama-3-8B", "A100", 1, 2048, 13_062),
    ("Llama-3-8B", "H100", 1, 8192, 34_538),
    ("Qwen3-32B", "H100", 2, 8192, 16_111),
    ("Llama-3-70B", "H100", 4, 8192, 15_221),
]


@pytest.mark.parametrize(("shape", "gpu", "ways", "chunk", "expected"), PREFILL_ROWS)
def test_prefill_rates_match_the_calibration_table(
    shape: str, gpu: str, ways: int, chunk: int, expected: float
) -> None:
    model = Roofline(shape_named(shape), HARDWARE[gpu], ways)
    assert chunk / model.step_s(StepWork(prefills=[(chunk, 0)])) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("shape", "gpu", "ways", "expected"),
    [
        ("Qwen2.5-7B", "H100", 1, 1_012_650),
        ("Llama-3-8B", "L4", 1, 23_901),
        ("Qwen3-32B", "H100", 2, 309_062),
        ("Llama-3-70B", "H100", 4, 463_982),
    ],
)
def test_kv_capacity_matches_the_calibration_table(shape: str, gpu: str, ways: int, expected: int) -> None:
    assert kv_capacity_tokens(shape_named(shape), HARDWARE[gpu], ways) == pytest.approx(expected, rel=0.01)


def test_a_prefill_chunk_slows_the_decodes_beside_it() -> None:
    model = Roofline(shape_named("Llama-3-8B"), HARDWARE["H100"])
    alone = StepWork(decodes=64, decode_context=64 * 1024)
    mixed = StepWork(decodes=64, decode_context=64 * 1024, prefills=[(512, 0)])
    assert model.step_s(mixed) * 1e3 == pytest.approx(19, rel=0.1)
    assert model.step_s(alone) < model.step_s(mixed)


def test_a_model_too_large_for_its_hardware_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit 1 x L4"):
        kv_capacity_tokens(shape_named("Llama-3-70B"), HARDWARE["L4"])


def test_a_size_between_known_shapes_scales_the_nearest() -> None:
    assert shape_for(14).params == 14e9
    assert shape_for(8.03).layers == 32


def test_a_scale_of_zero_makes_steps_instant() -> None:
    assert Scaled(Linear(), 0).step_s(StepWork(decodes=1)) == 0
    assert Scaled(Linear(4.0, 0, 0), 0.5).step_s(StepWork(decodes=1)) == 0.002


def test_a_transfer_costs_its_set_up_and_its_bytes() -> None:
    assert Transfer(100_000, 10, 5).seconds(1000) == pytest.approx(0.005 + 0.01)
