"""Errors as Kubernetes `Status` objects, and back."""

from __future__ import annotations

from typing import Any

from hekla.platform.api.meta import Json
from hekla.platform.base.errors import ERRORS_BY_REASON, ApiError, FieldError


def status_of(error: ApiError) -> Json:
    """The `Status` that tells a client of an error; `code` is the HTTP status to send it with."""
    status: Json = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        "reason": error.reason,
        "code": error.code,
    }
    if error.causes:
        causes = [
            {"field": cause.path, "message": cause.problem, "reason": "FieldValueInvalid"} for cause in error.causes
        ]
        status["details"] = {"causes": causes}
    return status


def error_of(status: Json) -> ApiError:
    """The error a `Status` tells of: of the reason's class, else of the code's, else a plain ApiError."""
    message = str(status.get("message") or status.get("reason") or "the server gave no reason")
    causes = tuple(_causes(status))
    kind = _class_of(status)
    if kind is not None:
        return kind(message, causes)
    error = ApiError(message, causes)
    if isinstance(status.get("code"), int):
        error.code = status["code"]
    if isinstance(status.get("reason"), str):
        error.reason = status["reason"]
    return error


def _class_of(status: Json) -> type[ApiError] | None:
    reason, code = status.get("reason"), status.get("code")
    if isinstance(reason, str) and reason in ERRORS_BY_REASON:
        return ERRORS_BY_REASON[reason]
    by_code = [kind for kind in ERRORS_BY_REASON.values() if kind.code == code]
    # 409 has two reasons: without one, Conflict is the safer reading (read again, then retry).
    return by_code[-1] if by_code and not reason else None


def _causes(status: Json) -> list[FieldError]:
    details: Any = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    if not isinstance(causes, list):
        return []
    return [
        FieldError(str(cause.get("field") or ""), str(cause.get("message") or ""))
        for cause in causes
        if isinstance(cause, dict)
    ]
