"""Settings of identity: whether credentials are asked for, whose tokens are believed, and what models cost."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal
from urllib.parse import urlsplit

from hekla.routing.setting_bounds import at_least

Mode = Literal["off", "optional", "required"]
MODES: tuple[str, ...] = ("off", "optional", "required")

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a private key. Never `none`; never HS*, where whoever can verify can also sign, and where a public key
could be passed off as the secret."""


@dataclass(frozen=True)
class JwtSettings:
    """One issuer of tokens (OIDC)."""

    issuer: str
    """The exact value of `iss`; also where discovery begins when `jwks_url` is empty."""
    audiences: tuple[str, ...] = ()
    """`aud` has to hold one of them. Empty: not checked, so that every token of the issuer is good here."""
    jwks_url: str = ""
    """Where the issuer's public keys are; empty: asked of `<issuer>/.well-known/openid-configuration`."""
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    """Signatures believed; what issuers use in practice."""
    tenant_claim: str = ""
    """Claim that names the tenant (dots lead into objects); empty: every token is of `tenant`."""
    tenant: str = "default"
    """The tenant of tokens without a tenant claim configured."""
    user_claim: str = "sub"
    """Claim that names the user within the tenant."""
    priority_claim: str = ""
    """Claim with the priority class, a whole number, instead of the tenant's; empty: none."""
    scope_claim: str = "scope"
    """Claim with scopes: a list, or words with spaces between. `hekla:admin` grants the resource API."""

    def __post_init__(self) -> None:
        for name in ("issuer", "jwks_url"):
            url = getattr(self, name)
            if (name == "issuer" or url) and urlsplit(url).scheme not in ("http", "https"):
                raise ValueError(f"identity.jwt[].{name} is {url!r}; allowed: an http or https URL")
        wrong = [name for name in self.algorithms if name not in ALGORITHMS]
        if wrong or not self.algorithms:
            raise ValueError(
                f"identity.jwt[].algorithms holds {wrong}; allowed: one or more of {', '.join(ALGORITHMS)}"
            )


@dataclass(frozen=True)
class Price:
    """What a model costs, per million tokens, in any one currency."""

    model: str
    """Glob of model names; the first price that fits counts."""
    input: float = 0.0
    """Prompt tokens that were not cached."""
    cached: float | None = None
    """Prompt tokens found in a prefix cache; None: like the others."""
    output: float = 0.0

    def __post_init__(self) -> None:
        for name in ("input", "cached", "output"):
            value = getattr(self, name) or 0.0
            if not 0 <= value < inf:
                raise ValueError(f"identity.prices[{self.model}].{name} is {value}; allowed: 0 or more")


@dataclass(frozen=True)
class IdentitySettings:
    mode: Mode = "off"
    """Off: on loopback whoever can connect owns the machine anyway. `optional` lets callers without a credential in as
    the tenant `anonymous`; a wrong credential is refused all the same."""
    jwt: tuple[JwtSettings, ...] = ()
    clock_skew_s: float = 60.0
    """How far an issuer's clock may be off: `exp`, `nbf` and `iat` are that much more lenient."""
    token_cache_max: int = 10_000
    """Verified tokens remembered; checking a signature costs 0.1 ms, looking one up 2 µs."""
    token_cache_s: float = 60.0
    """Longest time a verified token is remembered: so long a key that its issuer withdrew may still be honoured."""
    token_bytes_max: int = 16 * 2**10
    """Longest credential looked at; tokens with many groups reach some kilobytes."""
    jwks_refresh_s: float = 300.0
    """Issuers' keys are read anew this often."""
    jwks_unknown_key_s: float = 10.0
    """An unknown key id makes them be read at once, but not more often than this: anyone can invent key ids."""
    jwks_timeout_s: float = 10.0
    jwks_bytes_max: int = 2**20
    """Largest discovery page or key set read."""
    unknown_tenants: bool = False
    """Whether a token may name a tenant that has no Tenant object; it then has no limits."""
    prices: tuple[Price, ...] = ()
    """For money budgets; the annotation `hekla.io/price` on a ModelRoute goes first. A model without a price is free."""
    budget_report_s: float = 2.0
    """How often a replica tells the others (through the resource API) what was spent: so long they may overspend."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"identity.mode is {self.mode!r}; allowed: {', '.join(MODES)}")
        for name in ("clock_skew_s", "token_cache_s", "jwks_unknown_key_s"):
            at_least(f"identity.{name}", getattr(self, name), 0)
        for name in ("token_cache_max", "token_bytes_max", "jwks_bytes_max", "jwks_refresh_s"):
            at_least(f"identity.{name}", getattr(self, name), 1)
        for name in ("jwks_timeout_s", "budget_report_s"):
            at_least(f"identity.{name}", getattr(self, name), 0.01)
        issuers = [item.issuer for item in self.jwt]
        if len(set(issuers)) < len(issuers):
            raise ValueError(f"identity.jwt names an issuer twice: {issuers}")
