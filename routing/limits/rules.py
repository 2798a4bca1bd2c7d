"""Which limits hold for a request. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from hekla.platform.api.meta import Json
from hekla.routing.limits.settings import UNIT_S, LimitRule

Amount = Literal["requests", "input_tokens", "output_tokens"]


@dataclass(frozen=True, slots=True)
class Asking:
    """What a request is and wants, as far as limits go."""

    model: str
    """The name the client asked for."""
    route: str = ""
    """`namespace/name` of the ModelRoute it matched."""
    tenant: str = ""
    user: str = ""
    key: str = ""
    """The API key's id."""
    input_tokens: int = 0
    """Estimated."""
    output_tokens: int = 0
    """Estimated."""

    def amount(self, kind: Amount) -> int:
        return 1 if kind == "requests" else self.input_tokens if kind == "input_tokens" else self.output_tokens


@dataclass(frozen=True, slots=True)
class Limit:
    """One number that holds for one request."""

    rule: str
    kind: Amount
    amount: int
    unit: str
    key: str
    """Names its budget."""

    @property
    def window_s(self) -> float:
        return UNIT_S[self.unit]


def route_rule(key: str, spec: Json) -> LimitRule | None:
    """A ModelRoute's `spec.rateLimit` as a rule for that route, whatever name the client used. Raises ValueError."""
    limit = spec.get("rateLimit")
    if not limit or not (limit.get("inputTokensPerUnit") or limit.get("outputTokensPerUnit")):
        return None
    return LimitRule(
        name=f"ModelRoute {key}",
        input_tokens=int(limit.get("inputTokensPerUnit") or 0),
        output_tokens=int(limit.get("outputTokensPerUnit") or 0),
        unit=limit.get("unit") or "second",
        per=(),
    )


def fits(rule: LimitRule, asking: Asking) -> bool:
    tokens = asking.input_tokens
    if tokens < rule.prompt_tokens_min or (rule.prompt_tokens_max and tokens > rule.prompt_tokens_max):
        return False
    wanted = (
        (rule.tenants, asking.tenant),
        (rule.users, asking.user),
        (rule.keys, asking.key),
        (rule.models, asking.model),
    )
    return all(_one_fits(patterns, value) for patterns, value in wanted)


def limits_of(rules: Sequence[LimitRule], asking: Asking) -> Iterator[Limit]:
    """Every number that holds for it, requests first: the cheapest to explain."""
    for rule in rules:
        if not fits(rule, asking):
            continue
        values = "\x1f".join(getattr(asking, dimension) for dimension in rule.per)
        kinds: tuple[Amount, ...] = ("requests", "input_tokens", "output_tokens")
        for kind in kinds:
            amount = getattr(rule, kind)
            if amount:
                yield Limit(rule.name, kind, amount, rule.unit, f"{rule.name}\x1e{kind}\x1e{values}")


def _one_fits(patterns: tuple[str, ...], value: str) -> bool:
    return patterns == ("*",) or any(fnmatchcase(value, pattern) for pattern in patterns)
