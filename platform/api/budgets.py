"""What Tenants and ApiKeys have in common: allow-lists, and budgets in tokens and money."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hekla.platform.api.meta import ApiModel, Json
from hekla.platform.base.errors import FieldError

BUDGETS_MAX = 16
PATTERNS_MAX = 256
TOKENS_MAX = 10**15
MONEY_MAX = 10**9

ModelPattern = Annotated[str, Field(min_length=1, max_length=256)]
"""A model's name, or a glob of names: `*` for any text, `?` for one character, `[ab]` for one of these."""


class BudgetSpec(ApiModel):
    """What may be spent in one window; at least one of `tokens` and `money`."""

    window: Literal["hour", "day", "week", "month"]
    """Calendar window in UTC; a week begins on Monday."""
    models: list[ModelPattern] = Field(default_factory=lambda: ["*"], min_length=1, max_length=PATTERNS_MAX)
    """Globs of the models whose use counts."""
    tokens: int | None = Field(default=None, ge=0, le=TOKENS_MAX)
    """Input and output tokens together."""
    money: float | None = Field(default=None, ge=0, le=MONEY_MAX, allow_inf_nan=False)
    """In the currency of the prices: of `identity.prices`, or of the annotation `hekla.io/price` on a ModelRoute."""


def budget_problems(obj: Json) -> list[FieldError]:
    """A budget without a limit, and two for the same window and models."""
    problems, seen = [], set()
    for index, budget in enumerate(obj["spec"].get("budgets") or ()):
        path = f"spec.budgets[{index}]"
        if budget.get("tokens") is None and budget.get("money") is None:
            problems.append(FieldError(path, "limits nothing; allowed: tokens, money, or both"))
        key = (budget["window"], tuple(budget.get("models") or ()))
        if key in seen:
            problems.append(
                FieldError(path, "has the window and the models of another budget; write one with both limits")
            )
        seen.add(key)
    return problems
