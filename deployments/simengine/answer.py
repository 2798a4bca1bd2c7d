"""From tokens to text: incremental UTF-8, stop strings, log-probabilities."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import Any

from hekla.deployments.simengine.sequence import FinishReason, Output
from hekla.deployments.simengine.tokens import EOS, token_bytes


@dataclass(slots=True)
class Answer:
    """One choice of a response as it grows. `feed` returns the text that can be shown now."""

    index: int
    prompt: list[int]
    stops: tuple[str, ...] = ()
    keep_stop: bool = False
    min_tokens: int = 0
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: FinishReason | None = None
    stop_reason: int | str | None = None
    cached_tokens: int = 0
    kv_transfer_params: dict[str, Any] | None = None
    error: str = ""
    shown: int = 0
    """Characters of `text` already returned."""
    _utf8: codecs.IncrementalDecoder = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))

    def feed(self, output: Output) -> str:
        """Take one output; the answer is complete once `finish` is set."""
        if output.first or output.finish is not None:
            self.cached_tokens = output.cached_tokens
        token = output.token
        before = len(self.text)
        if token is not None:
            self.tokens.append(token)
            self.logprobs.append(output.logprob)
            if token != output.stop_token and (token != EOS or output.finish != "stop"):
                self.text += self._utf8.decode(token_bytes(token))
        if output.finish is not None:
            self.finish = output.finish
            self.stop_reason = output.stop_token
            self.kv_transfer_params = output.kv_transfer_params
            self.error = output.error
            self.text += self._utf8.decode(b"", final=True)
        if self.stops and len(self.tokens) > self.min_tokens:
            self._look_for_stop(before)
        return self._show()

    def _look_for_stop(self, before: int) -> None:
        """Cut the text at the earliest stop string that ends in what is new."""
        found: tuple[int, str] | None = None
        for stop in self.stops:
            at = self.text.find(stop, max(0, before - len(stop) + 1))
            if at >= 0 and (found is None or at < found[0]):
                found = (at, stop)
        if found is not None:
            at, stop = found
            self.text = self.text[: at + len(stop)] if self.keep_stop else self.text[:at]
            self.finish = "stop"
            self.stop_reason = stop

    def _show(self) -> str:
        """Hold back what may yet become a stop string."""
        held = 0 if self.finish is not None or not self.stops or self.keep_stop else max(map(len, self.stops)) - 1
        end = max(self.shown, len(self.text) - held)
        fresh = self.text[self.shown : end]
        self.shown = end
        return fresh
