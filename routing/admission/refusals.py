"""What a client is told whose request found no engine in time. Pure.

Waiting in vain is the service's load, not a fault on the way: 429 with `Retry-After`, where the peer answers 504, which
clients and load balancers take for a broken upstream. The client's own deadline is the exception: that is a timeout.
"""

from __future__ import annotations

from hekla.routing.admission.interface import Expired, Reason, Rejected
from hekla.routing.refusal import Refusal

WHY = {
    Reason.QUEUE_FULL: "the queue of the model {model!r} is full",
    Reason.TENANT_QUEUE_FULL: "too many of your requests wait for the model {model!r}",
    Reason.DISPLACED: "the queue of the model {model!r} is full, and others went first",
    Reason.TIMEOUT: "no engine of the model {model!r} had room in time",
    Reason.DEADLINE: "no engine of the model {model!r} had room before the request's own deadline",
}


def rejected(outcome: Rejected, model: str) -> Refusal:
    return _refusal(outcome.reason, outcome.retry_after_s, model)


def expired(outcome: Expired, model: str) -> Refusal:
    return _refusal(outcome.reason, outcome.retry_after_s, model)


def _refusal(reason: Reason, retry_after_s: int, model: str) -> Refusal:
    why = WHY[reason].format(model=model[:128])
    if reason == Reason.DEADLINE:
        return Refusal(504, why, kind="scheduling", code=reason, retry_after_s=retry_after_s)
    message = f"{why}; try again in {retry_after_s} s"
    return Refusal(429, message, kind="scheduling", code=reason, retry_after_s=retry_after_s)
