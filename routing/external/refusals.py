"""Refusals of requests to external providers. Pure."""

from __future__ import annotations

from hekla.routing.external.provider import Finding
from hekla.routing.headers import RawHeaders
from hekla.routing.refusal import ForeignRefusal, Refusal


def provider_not_found(key: str) -> Refusal:
    message = f"the model is routed to an external provider {key!r} that does not exist"
    return Refusal(404, message, kind="provider_config", code="provider_not_found")


def provider_not_ready(key: str, finding: Finding | None, retry_after_s: int) -> Refusal:
    """The client learns no more than that; the access log says what is missing."""
    message = "the model is routed to an external provider that is not ready"
    refusal = Refusal(503, message, kind="provider_config", code="provider_not_ready", retry_after_s=retry_after_s)
    why = "its objects have not been read yet" if finding is None else f"{finding.reason}: {finding.message}"
    refusal.log_message = f"external provider {key}: {why}"
    return refusal


def provider_ejected(key: str, retry_after_s: int) -> Refusal:
    message = f"the external provider {key!r} fails its requests and gets none for now"
    return Refusal(503, message, kind="upstream_transport", code="upstream_failed", retry_after_s=retry_after_s)


def path_unsupported(wire: str, path: str, known: list[str]) -> Refusal:
    message = f"an external provider of type {wire} is not asked for {path}; allowed: {', '.join(known)}"
    return Refusal(400, message, kind="request_protocol", code="request_protocol")


def transport_failed(key: str, reason: str, *, is_late: bool) -> Refusal:
    message = f"the external provider {key!r} did not answer: {reason}"
    return Refusal(504 if is_late else 502, message, kind="upstream_transport", code="upstream_failed")


def redirected(key: str, status: int) -> Refusal:
    """Not followed, and not passed on: the client's SDK would follow it with its own credential and the prompt."""
    message = f"the external provider {key!r} answered with a redirect ({status}), which is not followed"
    return Refusal(502, message, kind="upstream_transport", code="upstream_redirect")


def provider_error(key: str, status: int, headers: RawHeaders, body: bytes) -> ForeignRefusal:
    """A provider's own error, told to the client unchanged unless another target of the rule takes the request."""
    code = "upstream_busy" if status == 429 else "upstream_failed"
    return ForeignRefusal(status, f"the external provider {key!r} answered {status}", headers, body, code=code)
