from __future__ import annotations

from typing import Any

import pytest

from hekla.routing.limits.limiter import Exceeded, Grant, Limiter
from hekla.routing.limits.rules import Asking, route_rule
from hekla.routing.limits.settings import LimitRule, RateLimitSettings


def limiter(*rules: LimitRule, **options: Any) -> Limiter:
    return Limiter(RateLimitSettings(rules=rules), **options)


def asking(tokens: int = 10, output: int = 0, model: str = "m", **who: Any) -> Asking:
    return Asking(model, input_tokens=tokens, output_tokens=output, **who)


def route(key: str = "default/r", **limit: Any) -> LimitRule | None:
    return route_rule(key, {"rateLimit": limit})


def is_granted(limiter: Limiter, *args: Any, **options: Any) -> bool:
    try:
        limiter.take(*args, **options)
    except Exceeded:
        return False
    return True


def test_without_rules_everything_goes() -> None:
    assert limiter().take(asking(10**9), 0.0).taken == []


def test_an_input_limit_is_refilled_over_its_unit_row_L2() -> None:
    """L1, L2: 30 tokens a minute, prompts of 10: three go, 10 s later (5 tokens) none, after the window three again."""
    rule, limits = route(inputTokensPerUnit=30, unit="minute"), limiter()
    assert [is_granted(limits, asking(), 0.0, route=rule) for _ in range(4)] == [True, True, True, False]
    assert not is_granted(limits, asking(), 10.0, route=rule)
    assert [is_granted(limits, asking(), 70.0, route=rule) for _ in range(4)] == [True, True, True, False]


def test_output_is_counted_when_it_is_known_row_L3() -> None:
    """L3: 100 a minute: at least one request goes, and within 20 one is refused."""
    rule, limits, granted = route(outputTokensPerUnit=100, unit="minute"), limiter(), 0
    for _ in range(20):
        try:
            grant = limits.take(asking(output=16), 0.0, route=rule)
        except Exceeded as error:
            assert error.limit.kind == "output_tokens" and error.retry_after_s is not None
            break
        limits.settle(grant, 10, 16, 0.0)
        granted += 1
    assert granted == 7  # six make 96: something is left, so one more goes, and 12 are owed


def test_a_prompt_above_the_whole_limit_is_always_refused_row_L5() -> None:
    rule, limits = route(inputTokensPerUnit=5, unit="minute"), limiter()
    for now_s in (0.0, 60.0, 6000.0):
        with pytest.raises(Exceeded, match="it can never be served") as caught:
            limits.take(asking(9), now_s, route=rule)
        assert caught.value.retry_after_s is None


def test_a_refused_request_takes_nothing_from_any_limit() -> None:
    limits = limiter(
        LimitRule("requests", requests=3, per=()), LimitRule("tokens", input_tokens=20, per=()),
    )  # fmt: skip
    assert is_granted(limits, asking(15), 0.0)
    assert not any(is_granted(limits, asking(15), 0.0) for _ in range(50))
    assert [is_granted(limits, asking(1), 0.0) for _ in range(3)] == [True, True, False]


def test_output_that_was_too_much_is_owed() -> None:
    limits = limiter(LimitRule("o", output_tokens=60, per=()))
    limits.settle(limits.take(asking(output=10), 0.0), 10, 180, 0.0)
    with pytest.raises(Exceeded) as caught:
        limits.take(asking(output=10), 0.0)
    assert caught.value.retry_after_s == 121
    assert not is_granted(limits, asking(), 119.0)
    assert is_granted(limits, asking(), 121.0)


def test_requests_at_the_same_moment_do_not_all_see_the_same_rest() -> None:
    limits = limiter(LimitRule("o", output_tokens=100, per=()))
    assert sum(is_granted(limits, asking(output=30), 0.0) for _ in range(50)) == 4


def test_an_estimate_gives_back_what_was_not_generated() -> None:
    limits = limiter(LimitRule("o", output_tokens=100, per=()))
    grant = limits.take(asking(output=100), 0.0)
    assert not is_granted(limits, asking(output=1), 0.0)
    limits.settle(grant, 10, 1, 0.0)
    assert is_granted(limits, asking(output=1), 0.0)


def test_the_engines_count_of_the_prompt_replaces_the_estimate() -> None:
    limits = limiter(LimitRule("i", input_tokens=100, per=()))
    limits.settle(limits.take(asking(50), 0.0), 90, 1, 0.0)
    assert not is_granted(limits, asking(20), 0.0)


def test_a_request_no_engine_has_seen_takes_nothing() -> None:
    limits = limiter(LimitRule("all", requests=1, input_tokens=10, output_tokens=10, per=()))
    for _ in range(5):
        limits.refund(limits.take(asking(output=10), 0.0), 0.0)
    assert is_granted(limits, asking(), 0.0)


def test_a_grant_ends_once() -> None:
    limits = limiter(LimitRule("o", output_tokens=10, per=()))
    grant: Grant = limits.take(asking(output=10), 0.0)
    for _ in range(3):
        limits.refund(grant, 0.0)
        limits.settle(grant, 0, 0, 0.0)
    assert is_granted(limits, asking(output=10), 0.0)
    assert not is_granted(limits, asking(output=10), 0.0)


def test_a_changed_limit_holds_at_once_and_keeps_what_was_used() -> None:
    """Not as the peer's, whose limiter of a changed route begins anew."""
    limits = limiter()
    assert is_granted(limits, asking(25), 0.0, route=route(inputTokensPerUnit=30, unit="minute"))
    assert not is_granted(limits, asking(10), 0.0, route=route(inputTokensPerUnit=30, unit="minute"))
    assert is_granted(limits, asking(10), 0.0, route=route(inputTokensPerUnit=100, unit="minute"))
    assert not is_granted(limits, asking(10), 0.0, route=route(inputTokensPerUnit=40, unit="minute"))


def test_a_removed_limit_holds_no_more() -> None:
    """The peer keeps limiting a route whose rateLimit was removed."""
    limits = limiter()
    rule = route(inputTokensPerUnit=10, unit="hour")
    assert is_granted(limits, asking(), 0.0, route=rule)
    assert not is_granted(limits, asking(), 0.0, route=rule)
    assert all(is_granted(limits, asking(), 0.0, route=None) for _ in range(10))
    assert not is_granted(limits, asking(), 0.0, route=rule)  # it came back, and so did what was used


def test_routes_of_one_model_have_limits_of_their_own() -> None:
    """The peer keys a limit by the model's name: two routes share it, and deleting one frees the other."""
    limits = limiter()
    one, two = (route(f"default/{name}", inputTokensPerUnit=10, unit="hour") for name in ("one", "two"))
    assert is_granted(limits, asking(), 0.0, route=one)
    assert is_granted(limits, asking(), 0.0, route=two)
    assert not is_granted(limits, asking(), 0.0, route=one)


def test_an_adapters_name_is_limited_with_its_route() -> None:
    """The peer does not limit requests for a LoRA adapter."""
    limits, rule = limiter(), route(inputTokensPerUnit=10, unit="hour")
    assert is_granted(limits, asking(model="m"), 0.0, route=rule)
    assert not is_granted(limits, asking(model="an-adapter"), 0.0, route=rule)


def test_each_tenant_user_key_and_model_may_have_a_budget_of_its_own() -> None:
    asker: Any = asking
    for dimension in ("tenant", "user", "key"):
        limits = limiter(LimitRule("r", requests=1, per=(dimension,)))
        assert is_granted(limits, asker(**{dimension: "a"}), 0.0)
        assert not is_granted(limits, asker(**{dimension: "a"}), 0.0)
        assert is_granted(limits, asker(**{dimension: "b"}), 0.0)
    limits = limiter(LimitRule("r", requests=1, per=("tenant", "model")))
    assert is_granted(limits, asking(tenant="a", model="m"), 0.0)
    assert is_granted(limits, asking(tenant="a", model="n"), 0.0)
    assert not is_granted(limits, asking(tenant="a", model="m"), 0.0)


def test_values_that_read_the_same_when_joined_are_not_the_same_budget() -> None:
    limits = limiter(LimitRule("r", requests=1, per=("tenant", "user")))
    assert is_granted(limits, asking(tenant="a", user="bc"), 0.0)
    assert is_granted(limits, asking(tenant="ab", user="c"), 0.0)


def test_a_rule_is_for_those_its_patterns_fit() -> None:
    limits = limiter(LimitRule("free", requests=1, per=(), tenants=("free-*",), models=("big", "huge-*")))
    assert is_granted(limits, asking(tenant="free-1", model="big"), 0.0)
    assert not is_granted(limits, asking(tenant="free-2", model="huge-x"), 0.0)
    assert is_granted(limits, asking(tenant="free-2", model="small"), 0.0)
    assert is_granted(limits, asking(tenant="paid", model="big"), 0.0)


def test_a_rule_is_for_a_class_of_prompt_lengths() -> None:
    limits = limiter(LimitRule("long", requests=1, per=(), prompt_tokens_min=1000, prompt_tokens_max=2000))
    assert is_granted(limits, asking(1000), 0.0)
    assert not is_granted(limits, asking(2000), 0.0)
    assert is_granted(limits, asking(999), 0.0) and is_granted(limits, asking(2001), 0.0)


@pytest.mark.parametrize(
    ("unit", "seconds"), [("second", 1), ("minute", 60), ("hour", 3600), ("day", 86400), ("month", 2592000)]
)
def test_every_unit_is_as_long_as_its_name_says(unit: Any, seconds: int) -> None:
    limits = limiter(LimitRule("r", requests=1, unit=unit, per=()))
    assert is_granted(limits, asking(), 0.0)
    assert not is_granted(limits, asking(), seconds * 0.999)
    assert is_granted(limits, asking(), seconds)


def test_the_refusal_says_which_limit_and_when_to_come_back() -> None:
    limits = limiter(LimitRule("bronze", requests=2, per=()))
    for _ in range(2):
        limits.take(asking(), 0.0)
    with pytest.raises(Exceeded, match=r"'bronze' allows 2 requests per minute.*try again in 30 s"):
        limits.take(asking(), 0.0)


def test_budgets_are_bounded_and_unused_ones_are_forgotten_first() -> None:
    limits = Limiter(RateLimitSettings((LimitRule("r", requests=1, unit="hour", per=("user",)),), buckets_max=100))
    limits.take(asking(user="busy"), 0.0)
    for n in range(50):
        limits.refund(limits.take(asking(user=f"unused{n}"), 0.0), 0.0)
    for n in range(60):
        limits.take(asking(user=f"u{n}"), 0.0)
    assert "buckets=" in repr(limits) and int(repr(limits).rpartition("=")[2][:-1]) <= 100
    assert not is_granted(limits, asking(user="busy"), 0.0)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"requests": -1}, "requests is -1; allowed: 0 or more"),
        ({"requests": 1, "unit": "week"}, "unit is 'week'; allowed: second, minute, hour, day, month"),
        ({"requests": 1, "per": ("planet",)}, "per has 'planet'; allowed: tenant, user, key, model, route"),
        ({}, "limits nothing"),
    ],
)
def test_a_bad_rule_is_refused_with_what_is_allowed(fields: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        LimitRule("r", **fields)


def test_a_rules_name_is_unique() -> None:
    rule = LimitRule("r", requests=1)
    with pytest.raises(ValueError, match="'r' twice"):
        RateLimitSettings((rule, rule))
