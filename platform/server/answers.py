"""Answers: JSON, `Status` objects for everything that is refused, and bodies read with a limit."""

from __future__ import annotations

import json
import logging
import math
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from hekla.platform.api.kstatus import status_of
from hekla.platform.api.meta import Json
from hekla.platform.base.errors import ApiError, BadRequest, Temporary
from hekla.platform.base.limits import API_BODY_BYTES_MAX

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0
"""What a client is told to wait when nobody knows better."""


class MethodNotAllowed(ApiError):
    code, reason = 405, "MethodNotAllowed"


class TooLarge(ApiError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    code, reason = 415, "UnsupportedMediaType"


class ServiceUnavailable(ApiError):
    code, reason = 503, "ServiceUnavailable"


def answer(content: Json, code: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, code, headers, media_type="application/json")


async def read_object(request: Request, media_types: tuple[str, ...] = ()) -> Json:
    """The body as a JSON object. Raises TooLarge, UnsupportedMediaType (unless `media_types` is empty), BadRequest."""
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_types and sent not in media_types:
        raise UnsupportedMediaType(f"content-type: is {sent or 'missing'}, must be one of {', '.join(media_types)}")
    raw = await read_body(request)
    try:
        value = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRequest(f"the body is a JSON {type(value).__name__}, must be an object")
    return value


async def read_body(request: Request) -> bytes:
    """The body, counted as it arrives: what the client says of its length is not trusted."""
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > API_BODY_BYTES_MAX:
            raise TooLarge(f"the body is larger than {API_BODY_BYTES_MAX} bytes, the limit for one request")
        pieces.append(piece)
    return b"".join(pieces)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def refusal(error: ApiError, headers: dict[str, str] | None = None) -> Response:
    return answer(status_of(error), error.code, headers)


async def on_api_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return refusal(error)


async def on_temporary(_request: Request, error: Exception) -> Response:
    """Something is away for now: 503 and when to come back."""
    delay_s = (error.delay_s if isinstance(error, Temporary) else None) or RETRY_AFTER_S
    return refusal(ServiceUnavailable(str(error)), {"retry-after": str(math.ceil(delay_s))})


async def on_http_error(request: Request, error: Exception) -> Response:
    """The framework's own refusals: no such path, no such method."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 404:
        refused: ApiError = _coded(404, "NotFound", f"the server has nothing at {path}")
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        refused = MethodNotAllowed(f"{request.method} is not allowed on {path}; allowed: {allowed or 'nothing'}")
    else:
        reason = HTTPStatus(error.status_code).phrase.replace(" ", "")
        refused = _coded(error.status_code, reason, str(error.detail))
    return refusal(refused, dict(error.headers or {}))


async def on_bug(request: Request, error: Exception) -> Response:
    """Our own mistake: the client learns that it is not theirs, the log learns the rest."""
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return refusal(ApiError(f"internal error: {type(error).__name__}; the platform's log has the details"))


def _coded(code: int, reason: str, message: str) -> ApiError:
    error = ApiError(message)
    error.code, error.reason = code, reason
    return error
