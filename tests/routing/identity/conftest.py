"""Keys, tenants and tokens for tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from hekla.platform.api.admission import admit
from hekla.routing.identity.api_keys import NewKey, new_key

Json = dict[str, Any]


def _key(seed: int) -> NewKey:
    return new_key(bytes((seed * 7 + i) % 256 for i in range(42)))


def _object(kind: str, name: str, spec: Json, **meta: Any) -> Json:
    """As the resource API would store it."""
    obj = {"apiVersion": "hekla.io/v1alpha1", "kind": kind, "metadata": {"name": name, **meta}, "spec": spec}
    return admit(obj)


@pytest.fixture
def key() -> Callable[[int], NewKey]:
    return _key


@pytest.fixture
def tenant() -> Callable[..., Json]:
    return lambda name, **spec: _object("Tenant", name, spec)


@pytest.fixture
def api_key() -> Callable[..., Json]:
    def make(name: str, new: NewKey, **spec: Any) -> Json:
        return _object("ApiKey", name, {"id": new.id, "digest": new.digest, **spec})

    return make


class Issuer:
    """Signs tokens as an OIDC provider does."""

    def __init__(self, url: str = "https://issuer.example") -> None:
        self.url = url
        self.kid = "k1"
        self.private: Any = ec.generate_private_key(ec.SECP256R1())
        self.algorithm = "ES256"

    def rotate(self, kid: str) -> None:
        self.kid, self.private = kid, ec.generate_private_key(ec.SECP256R1())

    def use_rsa(self, kid: str) -> None:
        self.kid, self.algorithm = kid, "RS256"
        self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def jwks(self) -> Json:
        maker = jwt.algorithms.RSAAlgorithm if self.algorithm == "RS256" else jwt.algorithms.ECAlgorithm
        return {"keys": [{**maker.to_jwk(self.private.public_key(), as_dict=True), "kid": self.kid, "use": "sig"}]}

    def token(self, now_s: float | None = None, **changes: Any) -> str:
        """A good token but for `changes`; a change to None leaves the claim out."""
        now_s = time.time() if now_s is None else now_s
        claims = {"iss": self.url, "aud": "hekla", "sub": "alice", "iat": now_s, "exp": now_s + 300, **changes}
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(kept, self.private, algorithm=self.algorithm, headers={"kid": self.kid})


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()
