"""The ingress's settings of identity out of the platform's."""

from __future__ import annotations

from hekla.platform.base.errors import Permanent
from hekla.platform.root.settings import PlatformSettings
from hekla.routing.identity.settings import IdentitySettings, JwtSettings


def identity_settings(settings: PlatformSettings) -> IdentitySettings:
    """Raises Permanent when they can't be."""
    if settings.jwt_issuer and settings.auth == "off":
        raise Permanent("HEKLA_JWT_ISSUER is set, but auth is off, so no token would be asked for; set auth too")
    try:
        return IdentitySettings(mode=settings.auth, jwt=_issuers(settings))
    except ValueError as error:
        raise Permanent(str(error)) from error


def _issuers(settings: PlatformSettings) -> tuple[JwtSettings, ...]:
    if not settings.jwt_issuer:
        return ()
    audiences = tuple(filter(None, (name.strip() for name in settings.jwt_audiences.split(","))))
    issuer = JwtSettings(
        issuer=settings.jwt_issuer,
        audiences=audiences,
        jwks_url=settings.jwt_jwks_url,
        tenant_claim=settings.jwt_tenant_claim,
        user_claim=settings.jwt_user_claim,
        priority_claim=settings.jwt_priority_claim,
    )
    return (issuer,)
