"""`routing.yaml`: every section of `RoutingSettings` by its own name, beside Kthena's `scheduler` and `auth`. Pure.

    admission: {timeout_s: 30, objectives: [{ttft_s: 5}]}
    rate_limits:
      rules: [{name: per-tenant, requests: 100, unit: minute, per: [tenant]}]
    traffic: {ejection: {consecutive_failures: 3}}
    scheduler: {plugins: {Score: {enabled: [cost]}}}      # as Kthena has it; `scheduling` is the same in our names
    auth: {issuer: https://…, audiences: [hekla], jwksUri: https://…}

What the file does not say is as it would be without the file, so that a line taken out is undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import yaml

from hekla.routing.config import RoutingSettings
from hekla.routing.configuration.decode import mapping, nearest, over
from hekla.routing.identity.settings import IdentitySettings, JwtSettings
from hekla.routing.scheduling.peer_config import BYTES_MAX, read_config

PEER_SECTIONS = ("scheduler", "auth")
FILES_OWN = ("config_file", "reload_period_s")
"""Of `scheduling`: where the file is can't be said in the file."""


@dataclass(frozen=True)
class RoutingFile:
    settings: RoutingSettings
    without_effect: tuple[str, ...] = ()
    """What the file sets that means nothing here."""


def read_routing_file(text: str, base: RoutingSettings) -> RoutingFile:
    """`base` gives what the file does not say. Raises ValueError naming the place, the value and what is allowed."""
    document = _document(text)
    own = {name: value for name, value in document.items() if name not in PEER_SECTIONS}
    known = [spec.name for spec in fields(RoutingSettings)]
    for name in own:
        if name not in known:
            raise ValueError(f"the file has {name!r}{nearest(name, [*known, *PEER_SECTIONS])}")
    for name in FILES_OWN:
        if isinstance(own.get("scheduling"), Mapping) and name in own["scheduling"]:
            raise ValueError(
                f"scheduling.{name} can't be set in the file itself; allowed: where the ingress is started"
            )
    settings = over(base, own, "")
    peer = read_config(_as_text(document), settings.scheduling)
    identity = _with_auth(settings.identity, peer.auth)
    return RoutingFile(replace(settings, scheduling=peer.scheduling, identity=identity), peer.without_effect)


def _document(text: str) -> Mapping[Any, Any]:
    if len(text.encode()) > BYTES_MAX:
        raise ValueError(f"the file has {len(text.encode())} bytes; allowed: {BYTES_MAX}")
    try:
        return mapping(yaml.safe_load(text) or {}, "")
    except yaml.YAMLError as error:
        raise ValueError(f"the file is not YAML: {error}") from error


def _as_text(document: Mapping[Any, Any]) -> str:
    """The peer's part alone, as its reader wants it."""
    return yaml.safe_dump({name: document[name] for name in PEER_SECTIONS if name in document})


def _with_auth(identity: IdentitySettings, auth: Mapping[str, Any]) -> IdentitySettings:
    """The issuer of `auth` believed besides the others; whoever configures one asks for credentials, as with Kthena."""
    if not auth:
        return identity
    issuer, audiences, keys = auth.get("issuer"), auth.get("audiences") or [], auth.get("jwksUri") or ""
    if not isinstance(issuer, str):
        raise ValueError(f"auth.issuer is {issuer!r}; allowed: an http or https URL")  # noqa: TRY004
    if not isinstance(keys, str):
        raise ValueError(f"auth.jwksUri is {keys!r}; allowed: an http or https URL")  # noqa: TRY004
    if not isinstance(audiences, list) or not all(isinstance(name, str) for name in audiences):
        raise ValueError(f"auth.audiences is {audiences!r}; allowed: a list of texts")
    known = next((item for item in identity.jwt if item.issuer == issuer), None)
    named = replace(known, audiences=tuple(audiences), jwks_url=keys) if known else _issuer(issuer, audiences, keys)
    others = tuple(item for item in identity.jwt if item.issuer != issuer)
    mode = "required" if identity.mode == "off" else identity.mode
    return replace(identity, mode=mode, jwt=(named, *others))


def _issuer(issuer: str, audiences: list[str], keys: str) -> JwtSettings:
    try:
        return JwtSettings(issuer=issuer, audiences=tuple(audiences), jwks_url=keys)
    except ValueError as error:
        raise ValueError(f"auth: {error}") from error
