"""A provider as the ingress uses it, from the objects of the resource API; and what they lack when it can't be. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from hekla.platform.api.kinds.external_model_provider import (
    CREDENTIAL_LABEL,
    ExternalModelProviderSpec,
    ProviderType,
    SecretKeyRef,
    header_problems,
    scheme_of,
)
from hekla.platform.api.kinds.secret import value_of
from hekla.platform.api.meta import Json, matches_labels
from hekla.platform.api.wording import field_errors

CREDENTIAL_BYTES_MAX = 8192
"""Servers refuse longer headers."""

Name = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True)
class Finding:
    """Whether something holds, and why: what a condition says."""

    holds: bool
    reason: str
    message: str = ""


CREDENTIAL_NOT_REQUIRED = Finding(True, "CredentialNotRequired")
CREDENTIAL_RESOLVED = Finding(True, "CredentialResolved")
READY = Finding(True, "Ready")


@dataclass(frozen=True)
class Provider:
    """One that can be asked."""

    key: str
    """`namespace/name`."""
    wire: ProviderType
    base_url: str
    model: str
    """Replaces the request's; empty: the client's own."""
    verifies_tls: bool
    headers: Mapping[str, str] = field(repr=False)
    """Static ones and the credential, by name in lower case; before the client's."""


@dataclass(frozen=True)
class Resolved:
    """What became of a provider's objects."""

    ready: Finding
    credentials: Finding
    provider: Provider | None = None


def resolved(obj: Json, secrets: Mapping[Name, Json]) -> Resolved:
    """The same for the controller, which writes it down, and for each ingress, which acts on it."""
    meta = obj["metadata"]
    namespace = meta.get("namespace") or "default"
    try:
        spec = ExternalModelProviderSpec.model_validate(obj.get("spec"), by_alias=True, by_name=False)
    except ValidationError as error:
        problems = field_errors(error, ExternalModelProviderSpec, "spec")
        return _invalid("; ".join(map(str, problems)))
    if problems := list(header_problems(spec.headers)):
        return _invalid("; ".join(map(str, problems)))
    credential, found = "", CREDENTIAL_NOT_REQUIRED
    if spec.auth is not None:
        credential, found = _credential(spec.auth.secret_ref, namespace, secrets)
    if not found.holds:
        return Resolved(Finding(False, found.reason, found.message), found)
    provider = Provider(
        f"{namespace}/{meta['name']}", spec.provider_type, spec.base_url.rstrip("/"), spec.model or "",
        not spec.insecure_skip_verify, _headers(spec, credential),
    )  # fmt: skip
    return Resolved(READY, found, provider)


def _invalid(message: str) -> Resolved:
    finding = Finding(False, "ConfigurationInvalid", message)
    return Resolved(finding, finding)


def _credential(ref: SecretKeyRef, namespace: str, secrets: Mapping[Name, Json]) -> tuple[str, Finding]:
    named = f"Secret {namespace}/{ref.name}"
    secret = secrets.get((namespace, ref.name))
    if secret is None:
        return "", Finding(False, "CredentialNotFound", f"there is no {named}")
    if not matches_labels(secret, {CREDENTIAL_LABEL: "true"}):
        return "", Finding(False, "CredentialInvalid", f'{named} lacks the label {CREDENTIAL_LABEL}: "true"')
    try:
        raw = value_of(secret, ref.key)
        if raw is None:
            return "", Finding(False, "CredentialKeyNotFound", f"{named} has no key {ref.key!r}")
        # A line's end is what `echo` adds; nobody means it.
        value = raw.strip(b"\r\n").decode("ascii")
    except ValueError:  # neither text nor base64; not chained: its message may hold the value
        value = ""
    if not value or not value.isprintable() or value != value.strip() or len(value) > CREDENTIAL_BYTES_MAX:
        message = f"the value of {ref.key!r} in {named} is no credential; allowed: 1 to {CREDENTIAL_BYTES_MAX} printable ASCII"
        return "", Finding(False, "CredentialInvalid", message)
    return value, CREDENTIAL_RESOLVED


def _headers(spec: ExternalModelProviderSpec, credential: str) -> dict[str, str]:
    headers = {name.lower(): value for name, value in spec.headers.items()}
    if credential:
        is_bearer = scheme_of(spec) == "Bearer"
        headers["authorization" if is_bearer else "x-api-key"] = f"Bearer {credential}" if is_bearer else credential
    return headers
