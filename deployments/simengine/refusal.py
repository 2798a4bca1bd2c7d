"""What the HTTP server answers when it refuses: vLLM's error body, `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from typing import Any

_TYPES = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError", 503: "ServiceUnavailableError"}


class Refusal(Exception):
    def __init__(self, message: str, code: int = 400, *, kind: str = "", param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.kind = kind or _TYPES.get(code, "BadRequestError")
        self.param = param

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def anthropic_body(self) -> dict[str, Any]:
        """What `/v1/messages` answers."""
        return {"type": "error", "error": {"type": self.kind, "message": self.message}}


def unknown_model(name: str) -> Refusal:
    return Refusal(f"The model `{name}` does not exist.", 404, param="model")


def too_long(limit: int, prompt: int, output: int) -> Refusal:
    """`output` 0: the prompt alone is too long."""
    start = f"This model's maximum context length is {limit} tokens. However, "
    if output:
        asked = (
            f"you asked for {output} output tokens and the prompt has {prompt} input tokens, {prompt + output} in all"
        )
        return Refusal(f"{start}{asked}. Shorten the prompt or ask for fewer output tokens.", param="max_tokens")
    return Refusal(f"{start}the prompt has {prompt} input tokens. Shorten the prompt.", param="input_tokens")
