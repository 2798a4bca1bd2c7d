"""API keys: their form, how one is made, and how one is told from a guess. Pure.

A key is `hk-<id>-<secret>`: a public id of 80 random bits to look it up by, and a secret of 256. What is stored is
SHA-256 over a fixed prefix and the whole key. Slow hashes (scrypt, Argon2) buy time against guessing what people choose;
here nothing is chosen, and 2^256 tries are out of reach at any speed. For the same reason there is no pepper: it would
protect digests that need no protection, at the price of one more secret in every ingress, in the CLI and in backups.
So that the argument holds for keys that somebody else made, a key of any other form is refused before it is hashed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass

ID_BYTES, SECRET_BYTES = 10, 32
_KEY = re.compile(rb"hk-([a-z2-7]{16})-([A-Za-z0-9_-]{43})")
_DOMAIN = b"hekla.io/api-key/v1\0"
"""The digest of a key is good for nothing else."""


@dataclass(frozen=True)
class NewKey:
    id: str
    key: str
    """Shown once; never stored."""
    digest: str

    def __repr__(self) -> str:
        return f"NewKey(id={self.id!r})"


def new_key(entropy: bytes) -> NewKey:
    """A key out of `ID_BYTES + SECRET_BYTES` bytes of a cryptographic source. Raises ValueError when they are not so many."""
    if len(entropy) != ID_BYTES + SECRET_BYTES:
        raise ValueError(f"a key takes {ID_BYTES + SECRET_BYTES} random bytes, these are {len(entropy)}")
    key_id = base64.b32encode(entropy[:ID_BYTES]).decode().lower()
    secret = base64.urlsafe_b64encode(entropy[ID_BYTES:]).decode().rstrip("=")
    key = f"hk-{key_id}-{secret}"
    return NewKey(key_id, key, digest_of(key.encode()))


def id_of(credential: bytes) -> str | None:
    """The id in a key; None when it has not a key's form."""
    match = _KEY.fullmatch(credential)
    return None if match is None else match[1].decode()


def digest_of(credential: bytes) -> str:
    return "sha256:" + hashlib.sha256(_DOMAIN + credential).hexdigest()


def is_key_of(credential: bytes, digest: str) -> bool:
    """Takes the same time wherever the digests differ."""
    return hmac.compare_digest(digest_of(credential), digest)
