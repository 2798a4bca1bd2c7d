"""What a caller is told that may not go on. Pure.

Every reason for which a credential is not good reads the same to its sender: an unknown key, a revoked one and an
expired one can't be told apart by trying. The log says which it was.
"""

from __future__ import annotations

from hekla.platform.base.clock import rfc3339
from hekla.routing.identity.interface import Budget
from hekla.routing.refusal import Refusal

KIND = "authentication"
NO_KEY = "you sent no API key; send it as `Authorization: Bearer KEY` (or in the header `x-api-key` or `api-key`)"
BAD_KEY = "the API key or token you sent is not valid here"
CHALLENGE = (b"www-authenticate", b'Bearer realm="hekla"')
DO_NOT_RETRY = (b"x-should-retry", b"false")
"""The OpenAI and Anthropic libraries obey it; else they would ask twice more within seconds."""


def no_credential() -> Refusal:
    return _unauthorized(NO_KEY)


def bad_credential(reason: str) -> Refusal:
    """`reason` is for the log alone."""
    refusal = _unauthorized(BAD_KEY)
    refusal.log_message = reason
    return refusal


def _unauthorized(message: str) -> Refusal:
    refusal = Refusal(401, message, kind=KIND, code="invalid_api_key")
    refusal.extra_headers = (CHALLENGE,)
    return refusal


def not_read_yet(what: str, retry_after_s: int) -> Refusal:
    message = f"{what} not been read yet; try again"
    return Refusal(503, message, kind=KIND, code="not_synced", retry_after_s=retry_after_s)


def tenant_refused(reason: str) -> Refusal:
    """The credential is good, its tenant may not call: more tries with other keys of it are of no use."""
    message = "your tenant may not call this endpoint; ask who runs it"
    refusal = Refusal(403, message, kind=KIND, code="tenant_refused")
    refusal.log_message = reason
    return refusal


def scope_missing(scope: str) -> Refusal:
    return Refusal(403, f"this needs a key with the scope `{scope}`", kind=KIND, code="scope_missing")


def over_budget(budget: Budget, *, reset_s: float, now_s: float) -> Refusal:
    whose = "your API key's" if budget.subject.kind == "ApiKey" else "your tenant's"
    message = f"{whose} budget for this {budget.window} is spent; it begins anew at {rfc3339(reset_s)}"
    wait_s = max(1, round(reset_s - now_s))
    refusal = Refusal(429, message, kind="budget", code="budget_exceeded", retry_after_s=wait_s)
    refusal.extra_headers = (DO_NOT_RETRY,)
    return refusal
