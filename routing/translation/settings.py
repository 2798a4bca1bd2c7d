"""Settings of the translation between wire formats."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TranslationSettings:
    max_tokens_default: int = 4096
    """Anthropic's requests name a limit; for an OpenAI request without one it is this. Every model of the last years takes it."""
    answer_bytes_max: int = 8 * 2**20
    """A plain answer is translated when it is whole, and held until then up to this size."""
    engines: tuple[str, ...] = ()
    """`inferenceEngine`s whose servers lack `/v1/messages`: their requests are translated. Those hekla starts have it; older
    versions of vLLM and SGLang do not."""

    def __post_init__(self) -> None:
        for name in ("max_tokens_default", "answer_bytes_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"translation.{name} is {getattr(self, name)}; allowed: 1 or more")
