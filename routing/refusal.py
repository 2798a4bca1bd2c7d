"""An answer of the ingress itself, in the shape the client's API uses for errors. Pure."""

from __future__ import annotations

import msgspec

ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


class Refusal(Exception):
    """Ends a request before an engine's answer began.

    `kind` is the access log's and the metrics' `error_type`; `type`, `code` and `param` are what an OpenAI client sees.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
        allow: str = "",
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind
        self.code, self.param, self.retry_after_s, self.allow = code, param, retry_after_s, allow

    @property
    def type(self) -> str:
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"

    def body(self, path: str) -> bytes:
        """JSON in Anthropic's shape for its paths, OpenAI's for all others."""
        if path.startswith("/v1/messages"):
            return anthropic_error(ANTHROPIC_TYPES.get(self.status, "api_error"), self.message)
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})

    def headers(self) -> list[tuple[bytes, bytes]]:
        named = {b"retry-after": self.retry_after_s, b"allow": self.allow or None}
        return [(name, str(value).encode()) for name, value in named.items() if value is not None]


def anthropic_error(kind: str, message: str) -> bytes:
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})


def stream_error(path: str, message: str) -> bytes:
    """The last SSE events of a stream whose engine died."""
    if path.startswith("/v1/messages"):
        return b"event: error\ndata: " + anthropic_error("api_error", message) + b"\n\n"
    if path.startswith("/v1/responses"):
        event = {"type": "error", "code": "engine_lost", "message": message, "param": None}
        return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"
    error = {"message": message, "type": "server_error", "param": None, "code": "engine_lost"}
    return b"data: " + msgspec.json.encode({"error": error}) + b"\n\ndata: [DONE]\n\n"
