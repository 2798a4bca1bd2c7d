"""ExternalModelProvider: a model API outside the cluster that routes can send requests to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from hekla.platform.api.meta import ApiModel, Json, condition_status
from hekla.platform.api.registry import Column, Kind
from hekla.platform.api.wording import path_of
from hekla.platform.base.errors import FieldError

CREDENTIAL_LABEL = "networking.serving.volcano.sh/external-model-provider-credential"
"""A Secret that providers may use carries it with the value `true`: else a route's author could read any Secret."""

HEADERS_MAX = 32
HEADER_CHARS_MAX = 4096
URL_CHARS_MAX = 2048

RESERVED_HEADERS = frozenset(
    {
        "authorization", "proxy-authorization", "cookie", "x-api-key", "host", "content-length", "connection",
        "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "trailer", "te",
    }
)  # fmt: skip
"""Credentials have their own field, and the others belong to the connection."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

ProviderType = Literal["OpenAI", "Anthropic"]
AuthScheme = Literal["Bearer", "APIKey"]


def url_problem(text: str) -> str | None:
    """Why text is no base URL of a provider. It never repeats userinfo, which may be a password."""
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return "is not a URL; allowed: such as https://api.openai.com"
    if "@" in parts.netloc:
        return "holds a user or a password; allowed: none, the credential belongs into spec.auth"
    if parts.scheme != "https" or not host or any(char.isspace() or not char.isprintable() for char in text):
        return f"is {text[:128]!r}; allowed: a URL that begins with https:// and names a host"
    if "?" in text or "#" in text:
        return "has a query or a fragment; allowed: none"
    return None


def _checked_url(text: str) -> str:
    if problem := url_problem(text):
        raise ValueError(problem)
    return text


class SecretKeyRef(ApiModel):
    name: str = Field(min_length=1, max_length=253)
    """A Secret of the same namespace with the label `networking.serving.volcano.sh/external-model-provider-credential: "true"`."""
    key: str = Field(min_length=1, max_length=253)
    """The field of the Secret that holds the credential."""
    optional: Literal[False] | None = None
    """Only false: a provider never works without a credential that it names."""


class ProviderAuth(ApiModel):
    scheme: AuthScheme | None = None
    """`Bearer`: `Authorization: Bearer …`; `APIKey`: `x-api-key`. Unset: Bearer for OpenAI, APIKey for Anthropic."""
    secret_ref: SecretKeyRef


class ExternalModelProviderSpec(ApiModel):
    provider_type: ProviderType = "OpenAI"
    """The wire format it speaks."""
    model: str | None = Field(default=None, max_length=256)
    """The name the provider knows; replaces the request's `model`. Unset: the client's own."""
    base_url: Annotated[str, AfterValidator(_checked_url)] = Field(alias="baseURL", max_length=URL_CHARS_MAX)
    """What the request's path is put behind; a path that ends in `/v1` is not doubled."""
    insecure_skip_verify: bool = False
    """Take any certificate: only for a gateway of your own."""
    auth: ProviderAuth | None = None
    """Unset: no credential is sent."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent with every request, before the client's own of the same name."""


def scheme_of(spec: ExternalModelProviderSpec) -> AuthScheme:
    if spec.auth is not None and spec.auth.scheme is not None:
        return spec.auth.scheme
    return "Bearer" if spec.provider_type == "OpenAI" else "APIKey"


def _check(new: Json, _old: Json | None) -> list[FieldError]:
    return list(header_problems(new["spec"].get("headers") or {}))


def header_problems(headers: dict[str, str]) -> Iterator[FieldError]:
    if len(headers) > HEADERS_MAX:
        yield FieldError("spec.headers", f"has {len(headers)} headers; allowed: at most {HEADERS_MAX}")
    seen: set[str] = set()
    for name, value in headers.items():
        path, low = path_of((name,), "spec.headers"), name.lower()
        if low in RESERVED_HEADERS:
            yield FieldError(path, f"is reserved; allowed: any but {', '.join(sorted(RESERVED_HEADERS))}")
        elif not _HEADER_NAME.fullmatch(name):
            yield FieldError(path, "is not the name of a header; allowed: letters, digits and !#$%&'*+.^_`|~-")
        elif low in seen:
            yield FieldError(path, "is there twice, names of headers have no case; allowed: once")
        seen.add(low)
        if len(value) > HEADER_CHARS_MAX or not _HEADER_VALUE.fullmatch(value):
            yield FieldError(
                path, f"has a value that is no header's; allowed: {HEADER_CHARS_MAX} characters of one line"
            )


KIND = Kind(
    group="networking.serving.volcano.sh",
    version="v1alpha1",
    kind="ExternalModelProvider",
    plural="externalmodelproviders",
    short_names=("emp",),
    spec=ExternalModelProviderSpec,
    check=_check,
    ready_condition="Ready",
    columns=(
        Column("TYPE", "spec.providerType"),
        Column("MODEL", "spec.model"),
        Column("URL", "spec.baseURL"),
        Column("READY", lambda obj: condition_status(obj, "Ready")),
    ),
    doc="a model API outside the cluster that the router can send requests to",
)
