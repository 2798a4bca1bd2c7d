"""Every error hekla raises on purpose. The type says who is to blame and whether to try again.

HeklaError
 +- ApiError              the caller asked for something the resource API refuses (has an HTTP code)
 |   +- BadRequest 400 · Unauthorized 401 · Forbidden 403 · NotFound 404
 |   +- AlreadyExists 409 · Conflict 409 · Gone 410 · Invalid 422
 +- Temporary             try again after `delay_s`
 |   +- Unavailable       a part of the system is not there yet, or is away
 +- Permanent             trying again cannot help
"""

from __future__ import annotations

from dataclasses import dataclass


class HeklaError(Exception):
    """Base of hekla's own errors."""


class Temporary(HeklaError):
    """The operation may work later; `delay_s` (seconds) is the earliest sensible retry, None if unknown."""

    def __init__(self, message: str, delay_s: float | None = None) -> None:
        super().__init__(message)
        self.delay_s = delay_s


class Unavailable(Temporary):
    """A part of the system (an actor, a server) can't be reached now."""


class Permanent(HeklaError):
    """Trying again can't help: the input or the environment has to change."""


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with one field: where, and what is wrong plus what is allowed."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem


class ApiError(HeklaError):
    """A refusal of the resource API; becomes a Kubernetes `Status` object."""

    code = 500
    reason = "InternalError"

    def __init__(self, message: str, causes: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.causes = causes


class BadRequest(ApiError):
    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    code, reason = 401, "Unauthorized"


class Forbidden(ApiError):
    code, reason = 403, "Forbidden"


class NotFound(ApiError):
    code, reason = 404, "NotFound"


class AlreadyExists(ApiError):
    code, reason = 409, "AlreadyExists"


class Conflict(ApiError):
    code, reason = 409, "Conflict"


class Gone(ApiError):
    """A watch asked for a version the store no longer remembers: list again."""

    code, reason = 410, "Expired"


class Invalid(ApiError):
    """The object breaks its kind's rules; `causes` name every field."""

    code, reason = 422, "Invalid"

    @classmethod
    def of(cls, what: str, causes: list[FieldError]) -> Invalid:
        lines = "\n".join(f"  {cause}" for cause in causes)
        return cls(f"{what} is invalid:\n{lines}", tuple(causes))


ERRORS_BY_REASON: dict[str, type[ApiError]] = {
    kind.reason: kind
    for kind in (BadRequest, Unauthorized, Forbidden, NotFound, AlreadyExists, Conflict, Gone, Invalid)
}
