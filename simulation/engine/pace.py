"""Step times in bulk: many decode steps of an unchanged batch at once.

A step's time is linear in the context read, and a pure decode step adds one token of context per sequence. So the times
of consecutive steps form an arithmetic series: k steps take k·first + growth·k(k-1)/2 seconds. The step model itself is
the simulated engine's (`hekla.deployments.simengine.steps`).
"""

from __future__ import annotations

from math import ceil, sqrt

from hekla.deployments.simengine.steps import StepModel, StepWork

PROBE_TOKENS = 1_000_000


class Pace:
    """A step model with its pure decode times tabulated by batch size."""

    def __init__(self, model: StepModel) -> None:
        self.model = model
        base = model.step_s(StepWork(1, 0))
        self.context_token_s = (model.step_s(StepWork(1, PROBE_TOKENS)) - base) / PROBE_TOKENS
        """Seconds to read one token of context."""
        self._decode_s: dict[int, float] = {1: base}

    def decode_s(self, sequences: int, context: int) -> float:
        """Seconds of one step that only decodes; `context` is the sum over its sequences, in tokens."""
        found = self._decode_s.get(sequences)
        if found is None:
            found = self._decode_s[sequences] = self.model.step_s(StepWork(sequences, 0))
        return found + self.context_token_s * context

    def decodes_s(self, sequences: int, context: int, steps: int) -> float:
        """Seconds of `steps` such steps in a row."""
        growth = self.context_token_s * sequences
        return steps * self.decode_s(sequences, context) + growth * steps * (steps - 1) / 2

    def steps_within(self, sequences: int, context: int, seconds: float) -> int:
        """The fewest steps in a row that take at least `seconds`; at least 1."""
        first = self.decode_s(sequences, context)
        growth = self.context_token_s * sequences
        if growth <= 0:
            steps = ceil(seconds / first) if first else 1
        else:
            half = first - growth / 2
            steps = ceil((sqrt(half * half + 2 * growth * seconds) - half) / growth)
        steps = max(1, steps)
        while steps > 1 and self.decodes_s(sequences, context, steps - 1) >= seconds:
            steps -= 1
        while first and self.decodes_s(sequences, context, steps) < seconds:
            steps += 1
        return steps

    def mixed_s(self, decodes: int, context: int, chunks: list[tuple[int, int]]) -> float:
        """Seconds of one step with prompt chunks, each (new tokens, context before them)."""
        return self.model.step_s(StepWork(decodes, context, chunks))
