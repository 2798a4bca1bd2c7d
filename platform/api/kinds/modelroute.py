"""ModelRoute: which requests for a model name go to which ModelServers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from hekla.platform.api.meta import ApiModel, Json
from hekla.platform.api.patterns import compiled
from hekla.platform.api.registry import Column, Kind
from hekla.platform.api.wording import path_of, shown
from hekla.platform.base.errors import FieldError

LORA_ADAPTERS_MAX = 10
RULES_MAX = 16
TARGETS_MAX = 16

SESSION_SOURCES_MAX = 8
SESSION_NAME_CHARS_MAX = 256

REGEX_CHARS_MAX = 1024
"""Characters of one regular expression."""


class StringMatch(ApiModel):
    """The first of exact, prefix, regex that is set decides; none set matches everything."""

    exact: str | None = None
    """The whole value."""
    prefix: str | None = None
    """How the value begins."""
    regex: str | None = Field(default=None, max_length=REGEX_CHARS_MAX)
    """A regular expression (RE2's syntax) that matches somewhere in the value."""


class BodyMatch(ApiModel):
    model: str | None = None
    """Exactly this `model` in the request's body."""


class ModelMatch(ApiModel):
    """All that is set must match."""

    headers: dict[str, StringMatch] = Field(default_factory=dict)
    """By header name: what its value must be."""
    uri: StringMatch | None = None
    """The request's path."""
    body: BodyMatch | None = None


class SessionSource(ApiModel):
    type: Literal["Header", "Query", "Cookie", "JWTClaim"]
    name: str = Field(min_length=1, max_length=SESSION_NAME_CHARS_MAX)
    """Of the header, the query's parameter, the cookie, or the claim of the caller's verified token."""


class SessionCookie(ApiModel):
    """A cookie that is set on the answer to a request without a session."""

    name: str = Field(default="hekla-session", pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")
    path: str = Field(default="/", pattern=r"^/[!-:<-~]*$", max_length=256)
    secure: bool = False
    """Only over https. It is always `HttpOnly` and `SameSite=Lax`."""


class SessionSticky(ApiModel):
    """Requests of one session prefer one engine, and keep to one target; it gives way when it is overloaded or gone."""

    sources: list[SessionSource] = Field(default_factory=list, max_length=SESSION_SOURCES_MAX)
    """The first that has a value names the session."""
    ttl_seconds: int = Field(default=10800, ge=1, le=31_536_000)
    """Seconds after its last request until a session is forgotten."""
    set_cookie: SessionCookie | None = None


class Mirror(ApiModel):
    """Copies of a rule's requests; their answers are read and dropped."""

    model_server_name: str = Field(min_length=1)
    """A ModelServer of the same namespace."""
    percent: float = Field(default=100, ge=0, le=100)
    """Of the rule's requests."""


class TargetModel(ApiModel):
    """Exactly one of the two names."""

    model_server_name: str | None = Field(default=None, min_length=1)
    """A ModelServer of the same namespace."""
    external_model_provider_name: str | None = Field(default=None, min_length=1)
    """An ExternalModelProvider of the same namespace."""
    weight: int | None = Field(default=None, ge=0, le=100)
    """Share of the rule's requests; 0 takes none. Set on all targets of a rule or on none, where each counts 100."""

    @property
    def share(self) -> int:
        return 100 if self.weight is None else self.weight


class Rule(ApiModel):
    name: str | None = None
    model_match: ModelMatch | None = None
    """Unset: every request."""
    target_models: list[TargetModel] = Field(min_length=1, max_length=TARGETS_MAX)
    """One is drawn for each request, by weight."""
    failover: list[TargetModel] = Field(default_factory=list, max_length=TARGETS_MAX)
    """hekla's addition: asked in this order when the chosen target has no ready engine or all its engines failed."""
    mirror: Mirror | None = None
    """hekla's addition: a shadow target that gets copies."""


class RedisConfig(ApiModel):
    address: str = Field(min_length=1)
    """`host:port`."""


class GlobalRateLimit(ApiModel):
    redis: RedisConfig | None = None


class RateLimit(ApiModel):
    """Token budgets of the model."""

    input_tokens_per_unit: int | None = Field(default=None, ge=1)
    """Prompt tokens; unset: no limit."""
    output_tokens_per_unit: int | None = Field(default=None, ge=1)
    """Generated tokens; unset: no limit."""
    unit: Literal["second", "minute", "hour", "day", "month"] = "second"
    global_: GlobalRateLimit | None = Field(default=None, alias="global")
    """One budget for all routers rather than one each."""


class ParentReference(ApiModel):
    """A Gateway API parent: the Gateway, or one listener of it, that the route is bound to."""

    group: str = "gateway.networking.k8s.io"
    kind: str = "Gateway"
    namespace: str | None = None
    name: str = Field(min_length=1)
    section_name: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)


class ModelRouteSpec(ApiModel):
    model_name: str | None = None
    """The model name clients send; immutable."""
    lora_adapters: list[str] = Field(default_factory=list, max_length=LORA_ADAPTERS_MAX)
    """LoRA adapters that clients may name as the model."""
    parent_refs: list[ParentReference] = Field(default_factory=list)
    """Gateways the route is bound to; unset: the router's own listener."""
    rules: list[Rule] = Field(min_length=1, max_length=RULES_MAX)
    """The first rule that matches wins."""
    rate_limit: RateLimit | None = None
    session_sticky: SessionSticky | None = None
    """hekla's addition, after a proposal of the original project."""


def check(new: Json, old: Json | None) -> list[FieldError]:
    spec = ModelRouteSpec.model_validate(new["spec"])
    return [*_name_problems(spec, old), *_rule_problems(spec), *_session_problems(spec.session_sticky)]


def _name_problems(spec: ModelRouteSpec, old: Json | None) -> Iterator[FieldError]:
    if not spec.model_name and not spec.lora_adapters:
        yield FieldError("spec", "names no model; allowed: modelName, loraAdapters or both")
    for index, adapter in enumerate(spec.lora_adapters):
        if not adapter.strip():
            yield FieldError(f"spec.loraAdapters[{index}]", "is empty; allowed: the name of an adapter")
        elif adapter in spec.lora_adapters[:index]:
            yield FieldError(f"spec.loraAdapters[{index}]", f"{shown(adapter)} is listed twice; allowed: once")
    before = ((old or {}).get("spec") or {}).get("modelName")
    if before and before != spec.model_name:
        problem = f"immutable: it was {shown(before)} and can't become {shown(spec.model_name)}"
        yield FieldError("spec.modelName", f"{problem}; delete the route and make a new one")


def _rule_problems(spec: ModelRouteSpec) -> Iterator[FieldError]:
    for index, rule in enumerate(spec.rules):
        path = f"spec.rules[{index}]"
        for number, target in enumerate(rule.target_models):
            yield from _target_problems(target, f"{path}.targetModels[{number}]", has_loras=bool(spec.lora_adapters))
        if len({target.weight is None for target in rule.target_models}) > 1:
            yield FieldError(f"{path}.targetModels", "weight is set on some and unset on others; allowed: all or none")
        if sum(target.share for target in rule.target_models) == 0:
            yield FieldError(
                f"{path}.targetModels", "every weight is 0, so no target is ever chosen; allowed: a sum > 0"
            )
        for number, target in enumerate(rule.failover):
            at = f"{path}.failover[{number}]"
            yield from _target_problems(target, at, has_loras=bool(spec.lora_adapters))
            if target.weight is not None:
                yield FieldError(f"{at}.weight", "has no meaning in failover, whose order decides; allowed: unset")
        yield from match_problems(rule.model_match or ModelMatch(), f"{path}.modelMatch")


def _session_problems(sticky: SessionSticky | None) -> Iterator[FieldError]:
    if sticky is not None and not sticky.sources and sticky.set_cookie is None:
        yield FieldError("spec.sessionSticky", "names no session; allowed: sources, setCookie or both")


def _target_problems(target: TargetModel, path: str, *, has_loras: bool) -> Iterator[FieldError]:
    external = target.external_model_provider_name is not None
    if external == (target.model_server_name is not None):
        said = "both are set" if external else "neither is set"
        yield FieldError(path, f"{said}; allowed: exactly one of modelServerName, externalModelProviderName")
    if external and has_loras:
        problem = "not allowed in a route with loraAdapters; allowed: modelServerName"
        yield FieldError(f"{path}.externalModelProviderName", problem)


def match_problems(match: ModelMatch, path: str) -> Iterator[FieldError]:
    """The regular expressions of a match that do not compile."""
    places = {path_of((name,), f"{path}.headers"): pattern for name, pattern in match.headers.items()}
    if match.uri is not None:
        places[f"{path}.uri"] = match.uri
    for at, pattern in places.items():
        if problem := regex_problem(pattern.regex):
            yield FieldError(f"{at}.regex", problem)


def regex_problem(text: str | None) -> str | None:
    """Why a regular expression does not compile."""
    if text is None:
        return None
    try:
        compiled(text)
    except ValueError as error:
        return f"{shown(text)} is not a regular expression ({error}); allowed: one that compiles"
    return None


def references(obj: Json) -> list[tuple[str, str, str]]:
    found = []
    for index, rule in enumerate(obj["spec"]["rules"]):
        targets = [(f"targetModels[{number}]", target) for number, target in enumerate(rule["targetModels"])]
        targets += [(f"failover[{number}]", target) for number, target in enumerate(rule.get("failover") or ())]
        targets += [("mirror", rule["mirror"])] if rule.get("mirror") else []
        for place, target in targets:
            path = f"spec.rules[{index}].{place}"
            for field, kind in (
                ("modelServerName", "ModelServer"),
                ("externalModelProviderName", "ExternalModelProvider"),
            ):
                if target.get(field):
                    found.append((f"{path}.{field}", kind, target[field]))
    return found


KIND = Kind(
    group="networking.serving.volcano.sh",
    version="v1alpha1",
    kind="ModelRoute",
    plural="modelroutes",
    short_names=("mroute",),
    spec=ModelRouteSpec,
    check=check,
    references=references,
    columns=(
        Column("MODEL", "spec.modelName"),
        Column("ADAPTERS", lambda obj: ",".join(obj["spec"].get("loraAdapters", ()))),
        Column("RULES", lambda obj: str(len(obj["spec"].get("rules", ())))),
    ),
    doc="sends requests for a model name to pools of engines",
)
