"""One request as the scheduler's plugins see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from hekla.routing.body import Body
from hekla.routing.prompt import estimated_tokens, is_one_sequence, output_tokens_max, prompt_text


class LazyView:
    """Implements `RequestView`; the prompt is read when a plugin first asks for it."""

    def __init__(
        self,
        body: Body,
        path: str,
        raw_headers: list[tuple[bytes, bytes]],
        *,
        model: str,
        chance: Callable[[], float],
    ) -> None:
        self.asked = self.body = body
        """As the client sent it, and as the engine is to get it."""
        self.path, self.model = path, model
        self.upstream_model, self.is_adapter = model, False
        self.now_s = 0.0
        self.token_ids: Sequence[int] | None = None
        self.tenant = self.session = ""
        self.memo: dict[str, Any] = {}
        self._raw_headers, self._chance = raw_headers, chance

    def of(self, body: Body, path: str) -> LazyView:
        """The same request as another API would have put it."""
        view = LazyView(body, path, self._raw_headers, model=self.model, chance=self._chance)
        view.tenant = self.tenant
        return view

    @property
    def random(self) -> float:
        return self._chance()

    @cached_property
    def headers(self) -> Mapping[str, str]:
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self._raw_headers}

    @cached_property
    def prompt_text(self) -> str:
        return prompt_text(self.body)

    @cached_property
    def output_tokens_max(self) -> int:
        return output_tokens_max(self.body)

    @cached_property
    def is_one_sequence(self) -> bool:
        return is_one_sequence(self.body)

    @cached_property
    def estimated_tokens(self) -> int:
        return estimated_tokens(self.body, self.prompt_text)
