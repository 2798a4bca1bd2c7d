"""The nouns of identity: who calls, what they may use and spend, and what finds that out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import inf
from typing import Any, Literal, Protocol

Window = Literal["hour", "day", "week", "month"]
"""Calendar windows in UTC; a week begins on Monday."""

INFERENCE, ADMIN, METRICS = "inference", "admin", "metrics"
"""Scopes: the model API; the resource API, and with it everything; reading `/metrics`."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a budget belongs to: a Tenant or an ApiKey object."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Budget:
    """What a subject may spend in one window."""

    subject: Subject
    window: Window
    models: tuple[str, ...] = ("*",)
    """Globs of the model names whose use counts."""
    tokens: int | None = None
    """Input and output tokens together; None: not limited."""
    nanos: int | None = None
    """Money in billionths of the currency that prices are given in; None: not limited."""

    @property
    def key(self) -> str:
        """Names the counter; budgets that differ only in their limits share one."""
        return f"{self.window}:{','.join(self.models)}"

    def counts(self, model: str) -> bool:
        return any(fnmatchcase(model, pattern) for pattern in self.models)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. All that admission, limits, budgets and the log need to know of it."""

    tenant: str = ""
    """Name of the Tenant (`namespace/name` outside `default`); empty: identity is off."""
    user: str = ""
    """The person or program within the tenant: a token's `sub`, an API key's `user`; may be empty."""
    key_id: str = ""
    """The API key's id, which is no secret; empty for tokens and anonymous callers."""
    priority: int = 0
    """Higher classes go first, strictly."""
    weight: float = 1.0
    """The tenant's share against others of its priority; above 0."""
    models: tuple[tuple[str, ...], ...] = ()
    """Allow-lists of globs, the tenant's and the key's: a model has to match one pattern of each. Empty: all models."""
    budgets: tuple[Budget, ...] = ()
    scopes: frozenset[str] = frozenset({INFERENCE})
    claims: Mapping[str, Any] = field(default_factory=dict)
    """A token's verified claims; empty for API keys."""
    expires_s: float = inf
    """Unix time from which the credential is refused."""
    is_anonymous: bool = False

    def may_use(self, model: str) -> bool:
        return all(any(fnmatchcase(model, pattern) for pattern in patterns) for patterns in self.models)

    def has_scope(self, scope: str) -> bool:
        return scope in self.scopes or ADMIN in self.scopes


NOBODY = Caller(is_anonymous=True, scopes=frozenset({INFERENCE, METRICS, ADMIN}))
"""Every caller while identity is off: nothing is asked, so nothing is held back."""


class Authenticator(Protocol):
    """Finds out who calls. Never waits."""

    def identify(self, headers: Iterable[tuple[bytes, bytes]], now_s: float) -> Caller:
        """The caller by its credential; `now_s` is Unix time.

        Raises Refusal 401 (none where one is needed, or one that is not good), 403 (of a tenant that may not call) and
        503 (what it takes to judge the credential has not been read yet).
        """
