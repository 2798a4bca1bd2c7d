"""Errors in both formats. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from hekla.routing.refusal import ANTHROPIC_TYPES
from hekla.routing.translation.problems import Json

MESSAGE_CHARS_MAX = 4096
OVERLOADED = 529
"""Anthropic's own status for an API that has no room; OpenAI's clients know 503."""

OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


def openai_error(body: bytes, status: int) -> bytes:
    """Anthropic's error, or whatever came instead, as OpenAI's."""
    found = _error_in(body)
    kind = str(found.get("type") or "") or OPENAI_TYPES.get(status, "server_error")
    return msgspec.json.encode({"error": openai_error_object(kind, _message(found, body, status))})


def openai_error_object(kind: str, message: str) -> Json:
    return {"message": message, "type": kind, "param": None, "code": kind}


def anthropic_error(body: bytes, status: int) -> bytes:
    """OpenAI's error, or whatever came instead, as Anthropic's."""
    kind = "overloaded_error" if status == 503 else ANTHROPIC_TYPES.get(status, "api_error")
    message = _message(_error_in(body), body, status)
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})


def openai_status(status: int) -> int:
    return 503 if status == OVERLOADED else status


def _error_in(body: bytes) -> Json:
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    inner = found.get("error") if isinstance(found, dict) else None
    if isinstance(inner, dict):
        return inner
    return found if isinstance(found, dict) else {}


def _message(found: Json, body: bytes, status: int) -> str:
    message = found.get("message")
    text = message if isinstance(message, str) and message else body.decode("utf-8", "replace").strip()
    return text[:MESSAGE_CHARS_MAX] or f"the provider answered {status}"
