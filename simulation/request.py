"""A simulated request: lengths, block names, who sends it. No text and no tokens."""

from __future__ import annotations

from dataclasses import dataclass

Blocks = tuple[int, ...]
"""Names of full blocks, in order; equal names mean equal content and equal content before."""


@dataclass(slots=True, eq=False)
class SimRequest:
    id: int
    arrived_s: float
    prompt_tokens: int
    output_tokens: int
    """How many the model will generate: known to the workload, hidden from the router."""
    blocks: Blocks
    """Of the prompt's full blocks."""
    after: Blocks = ()
    """Of the blocks that are full in addition once the answer is there, if a later prompt continues it."""
    tenant: str = ""
    session: str = ""
    adapter: str = ""
    group: int = -1
    """Which shared prefix it has, for the oracle that pins groups to engines; -1: none."""
    output_max: int = 0
    """What the client allows (`max_tokens`); 0: it does not say."""

    def check(self, block_tokens: int) -> None:
        """Assert that lengths and blocks agree."""
        assert self.prompt_tokens > 0 and self.output_tokens > 0
        assert len(self.blocks) <= self.prompt_tokens // block_tokens
        total = (self.prompt_tokens + self.output_tokens - 1) // block_tokens
        assert len(self.blocks) + len(self.after) <= max(total, len(self.blocks))
