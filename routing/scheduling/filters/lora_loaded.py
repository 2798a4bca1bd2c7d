"""For a request to a LoRA adapter, keeps engines that have it loaded. Off by default: not every engine reports."""

from __future__ import annotations

from collections.abc import Sequence

from hekla.routing.scheduling.interface import Candidate, RequestView


class LoraLoaded:
    name = "lora-affinity"

    def keep(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        if not request.is_adapter:
            return candidates
        adapter = request.upstream_model
        return [c for c in candidates if adapter in c.backend.models]
