"""What goes to a provider and comes back besides the bodies: paths, URLs, headers. Pure."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

from hekla.platform.api.kinds.external_model_provider import ProviderType
from hekla.routing.external.provider import Provider
from hekla.routing.headers import RawHeaders, to_client
from hekla.routing.translation.formats import CHAT, MESSAGES

NATIVE_PATHS: dict[ProviderType, frozenset[str]] = {
    "OpenAI": frozenset({CHAT, "/v1/completions", "/v1/responses"}),
    "Anthropic": frozenset({MESSAGES, "/v1/messages/count_tokens"}),
}
"""Passed on as they are. `count_tokens` is hekla's addition."""
TRANSLATED_PATHS: dict[ProviderType, frozenset[str]] = {"OpenAI": frozenset({MESSAGES}), "Anthropic": frozenset({CHAT})}
"""Whose requests are translated to the other format."""

ANTHROPIC_VERSION = "2023-06-01"
"""Which a request must name; of the first stable release, as vendors' own SDKs send to this day."""

_PASSED = frozenset(
    {
        "content-type", "accept", "x-request-id", "traceparent", "tracestate", "baggage",
        "anthropic-version", "anthropic-beta",
    }
)  # fmt: skip
_PASSED_PREFIX = "x-b3-"
_PASSED_PARAMETERS = frozenset({"beta", "api-version"})
"""Of a query. Any other could be a credential for the ingress."""

_HIDDEN_FROM_CLIENT = frozenset(
    {b"openai-organization", b"openai-project", b"anthropic-organization-id", b"location", b"www-authenticate"}
)
"""They tell of the operator's account, or ask the client for a credential that is not its own."""


def url_for(provider: Provider, path: str, query: bytes) -> str:
    """The base URL and the path; a base that ends in `/v1` is the one vendors' SDKs are given, and is not doubled."""
    base = provider.base_url.removesuffix("/v1") if path.startswith("/v1/") else provider.base_url
    kept = [pair for pair in parse_qsl(query.decode("latin-1")) if pair[0] in _PASSED_PARAMETERS]
    return base + path + ("?" + urlencode(kept) if kept else "")


def headers_for(provider: Provider, raw_headers: RawHeaders, request_id: str) -> list[tuple[str, str]]:
    """The client's that are allowed, and the provider's own before them."""
    headers = {"content-type": "application/json"}
    if provider.wire == "Anthropic":
        headers["anthropic-version"] = ANTHROPIC_VERSION
    for raw_name, raw_value in raw_headers:
        name = raw_name.decode("latin-1").lower()
        if name in _PASSED or name.startswith(_PASSED_PREFIX):
            headers[name] = raw_value.decode("latin-1")
    return list({**headers, "x-request-id": request_id, **provider.headers}.items())


def headers_back(raw_headers: RawHeaders, request_id: str, *, resized: bool) -> RawHeaders:
    kept = to_client(raw_headers, request_id, resized=resized)
    return [(name, value) for name, value in kept if name not in _HIDDEN_FROM_CLIENT]
