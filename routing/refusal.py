"""An answer of the ingress itself, in the shape the client's API uses for errors. Pure."""

from __future__ import annotations

import msgspec

from hekla.routing.headers import RawHeaders, to_client

ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


class Refusal(Exception):
    """Ends a request before an engine's answer began.

    `kind` is the access log's and the metrics' `error_type`; `type`, `code` and `param` are what an OpenAI client sees.
    """

    content_type = b"application/json"

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
        self.extra_headers: tuple[tuple[bytes, bytes], ...] = ()
        self.log_message = message
        """For the access log, where it may say more than its sender is told."""

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
        told = [(name, str(value).encode()) for name, value in named.items() if value is not None]
        return [*told, *self.extra_headers]


class ForeignRefusal(Refusal):
    """An error of who was asked, passed on as it is when nobody else took the request."""

    def __init__(self, status: int, reason: str, headers: RawHeaders, body: bytes, *, code: str) -> None:
        """`headers` as the client may see them; `code` is for the access log and for failover."""
        super().__init__(status, reason, kind="proxy", code=code)
        told = dict(headers)
        self.content_type = told.pop(b"content-type", b"application/octet-stream")
        for name in (b"x-request-id", b"content-length"):
            told.pop(name, None)
        self._headers, self._body = told, body

    def headers(self) -> list[tuple[bytes, bytes]]:
        return list(self._headers.items())

    def body(self, path: str) -> bytes:
        return self._body

    def retell(self, status: int, body: bytes) -> None:
        """In the words of the client's own format: JSON."""
        self.status, self._body, self.content_type = status, body, b"application/json"


class EngineRefusal(ForeignRefusal):
    """An engine's own 429."""

    def __init__(self, reason: str, headers: RawHeaders, body: bytes, *, retry_after_s: int) -> None:
        super().__init__(429, reason, to_client(headers, "", resized=True), body, code="upstream_busy")
        self.retry_after_s = retry_after_s
        self._headers.setdefault(b"retry-after", str(retry_after_s).encode())


def anthropic_error(kind: str, message: str) -> bytes:
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})


def stream_error(path: str, message: str, code: str = "engine_lost") -> bytes:
    """The last SSE events of a stream that is cut off."""
    if path.startswith("/v1/messages"):
        return b"event: error\ndata: " + anthropic_error("api_error", message) + b"\n\n"
    if path.startswith("/v1/responses"):
        event = {"type": "error", "code": code, "message": message, "param": None}
        return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"
    error = {"message": message, "type": "server_error", "param": None, "code": code}
    return b"data: " + msgspec.json.encode({"error": error}) + b"\n\ndata: [DONE]\n\n"
