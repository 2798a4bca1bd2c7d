"""Settings of rate limits. A ModelRoute's `spec.rateLimit` is one more rule, for that route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Unit = Literal["second", "minute", "hour", "day", "month"]
Dimension = Literal["tenant", "user", "key", "model", "route"]

UNIT_S: dict[str, float] = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "month": 30 * 86400.0}
"""Seconds of each unit; a month is 30 days."""
AMOUNTS = ("requests", "input_tokens", "output_tokens")


@dataclass(frozen=True)
class LimitRule:
    """So much per unit, for each value of `per`, of the requests that all of its patterns fit."""

    name: str
    """Unique; it is shown to clients whose request is refused, and what was used is remembered under it."""
    requests: int = 0
    """Per unit; 0: no limit, as below."""
    input_tokens: int = 0
    """Prompt tokens, estimated on arrival and corrected by the engine's count."""
    output_tokens: int = 0
    """Generated tokens, estimated on arrival and corrected; what was too much is owed."""
    unit: Unit = "minute"
    per: tuple[Dimension, ...] = ("tenant", "model")
    """What has a budget of its own; empty: all that fits shares one."""
    tenants: tuple[str, ...] = ("*",)
    """Patterns with `*`, `?` and `[…]`, as in `users`, `keys` and `models`; one of them must fit."""
    users: tuple[str, ...] = ("*",)
    keys: tuple[str, ...] = ("*",)
    models: tuple[str, ...] = ("*",)
    """Names that clients ask for, LoRA adapters included."""
    prompt_tokens_min: int = 0
    """Only for prompts of at least so many tokens."""
    prompt_tokens_max: int = 0
    """Only for prompts of at most so many; 0: any."""

    def __post_init__(self) -> None:
        at = f"rate_limits.rules[{self.name!r}]"
        if self.unit not in UNIT_S:
            raise ValueError(f"{at}.unit is {self.unit!r}; allowed: {', '.join(UNIT_S)}")
        for dimension in self.per:
            if dimension not in get_args(Dimension):
                raise ValueError(f"{at}.per has {dimension!r}; allowed: {', '.join(get_args(Dimension))}")
        for field in (*AMOUNTS, "prompt_tokens_min", "prompt_tokens_max"):
            if getattr(self, field) < 0:
                raise ValueError(f"{at}.{field} is {getattr(self, field)}; allowed: 0 or more")
        if not any(getattr(self, amount) for amount in AMOUNTS):
            raise ValueError(f"{at} limits nothing; allowed: at least one of {', '.join(AMOUNTS)} above 0")


@dataclass(frozen=True)
class RateLimitSettings:
    rules: tuple[LimitRule, ...] = ()
    """All that fit a request hold. None by default: a route's own `rateLimit` is where most limits are written."""
    buckets_max: int = 100_000
    """Budgets remembered by one replica (about 200 bytes each); beyond it full ones are forgotten, then the oldest."""
    silence_s: float = 3.0
    """A replica that has not been heard for this long no longer shares its consumption: limits are cut to the part
    that those heard are of all."""

    def __post_init__(self) -> None:
        if self.buckets_max < 1:
            raise ValueError(f"rate_limits.buckets_max is {self.buckets_max}; allowed: 1 or more")
        if self.silence_s <= 0:
            raise ValueError(f"rate_limits.silence_s is {self.silence_s}; allowed: above 0")
        names = [rule.name for rule in self.rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"rate_limits.rules has the name {twice[0]!r} twice; allowed: once")
