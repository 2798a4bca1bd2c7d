"""A simulated request as the production scheduler's plugins see it: nothing is known of how long its answer will be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from hekla.routing.scheduling.footprint import CHUNK_TOKENS
from hekla.simulation.request import SimRequest

MODEL = "sim"
PATH = "/v1/completions"
_CHARS_PER_TOKEN = 4
_FOOTPRINT = "footprint"


class SimView:
    """Implements `RequestView`. Made anew by each router that sees the request, since plugins keep things in `memo`."""

    path = PATH
    headers: Mapping[str, str] = {}
    is_one_sequence = True

    def __init__(self, request: SimRequest, block_tokens: int, chance: Callable[[], float], *, tokenised: bool) -> None:
        """`tokenised`: the router knows the prompt's tokens, else only its text."""
        self.request, self.block_tokens = request, block_tokens
        self.model, self.upstream_model = MODEL, request.adapter or MODEL
        self.is_adapter = bool(request.adapter)
        self.tenant, self.session = request.tenant, request.session
        self.output_tokens_max = request.output_max
        self.now_s = request.arrived_s
        self.token_ids: Sequence[int] | None = range(request.prompt_tokens) if tokenised else None
        """Only their number means something: blocks have names (`blocks`)."""
        self.memo: dict[str, Any] = {_FOOTPRINT: self._chunks()}
        self._chance = chance

    @property
    def random(self) -> float:
        return self._chance()

    @property
    def estimated_tokens(self) -> int:
        return self.request.prompt_tokens

    @property
    def blocks(self) -> Sequence[int]:
        return self.request.blocks

    @cached_property
    def prompt_text(self) -> str:
        """A text that begins like another's exactly as far as their blocks are the same."""
        request, size = self.request, self.block_tokens * _CHARS_PER_TOKEN
        shared = "".join([f"{name:x}".ljust(size, ".") for name in request.blocks])
        return shared + f"#{request.id}".ljust(request.prompt_tokens * _CHARS_PER_TOKEN - len(shared), ".")

    def _chunks(self) -> tuple[int, ...]:
        """Names of the prompt's chunks as the scheduler's footprint counts them."""
        request, size = self.request, self.block_tokens
        names = []
        for number in range(1, request.prompt_tokens // CHUNK_TOKENS + 1):
            last = number * CHUNK_TOKENS // size - 1
            names.append(request.blocks[last] if 0 <= last < len(request.blocks) else -(request.id * 4096 + number))
        return tuple(names)
