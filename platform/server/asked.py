"""What a request asks for, read from its path and query; everything unknown or malformed is a BadRequest."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from hekla.platform.api.meta import Json, Ref, matches_labels
from hekla.platform.api.registry import Kind, kind_at
from hekla.platform.base.errors import BadRequest
from hekla.platform.server.answers import MethodNotAllowed

FIELDS_SELECTABLE = ("metadata.name", "metadata.namespace")
TRUE, FALSE = ("true", "1", "True"), ("false", "0", "False", "")


def kind_of(request: Request) -> Kind:
    parts = request.path_params
    return kind_at(parts["group"], parts["version"], parts["plural"])


def namespace_of(request: Request) -> str | None:
    """None: all namespaces."""
    namespace: str | None = request.path_params.get("namespace")
    return namespace


def ref_at(request: Request) -> Ref:
    return Ref(kind_of(request).kind, request.path_params["namespace"], request.path_params["name"])


def require_writable(kind: Kind, what: str) -> None:
    """Raises MethodNotAllowed for kinds that only hekla writes."""
    if kind.internal:
        raise MethodNotAllowed(
            f"{what} is not allowed on {kind.plural}: hekla itself writes them, they are read-only here"
        )


@dataclass(frozen=True)
class Selection:
    """Which objects a list or watch is about."""

    namespace: str | None
    labels: dict[str, str]
    name: str | None = None

    def holds(self, obj: Json) -> bool:
        return self.is_in_scope(obj) and matches_labels(obj, self.labels)

    def is_in_scope(self, obj: Json) -> bool:
        """Holds but for labels, which can change in an object's life."""
        meta = obj["metadata"]
        return self.namespace in (None, meta["namespace"]) and self.name in (None, meta["name"])


def selection_of(request: Request) -> Selection:
    namespace, name = namespace_of(request) or request.query_params.get("namespace") or None, None
    for key, value in _equalities(request, "fieldSelector").items():
        if key not in FIELDS_SELECTABLE:
            raise BadRequest(f"fieldSelector: {key!r} can't be selected on; allowed: {', '.join(FIELDS_SELECTABLE)}")
        if key == "metadata.name":
            name = value
        elif namespace in (None, value):
            namespace = value
        else:
            raise BadRequest(f"fieldSelector: metadata.namespace={value} contradicts the namespace {namespace}")
    return Selection(namespace, _equalities(request, "labelSelector"), name)


def _equalities(request: Request, parameter: str) -> dict[str, str]:
    """`a=b,c==d` as a dict."""
    found: dict[str, str] = {}
    for term in filter(None, request.query_params.get(parameter, "").split(",")):
        key, equals, value = term.partition("=")
        if not equals or key.endswith("!") or " " in key.strip():
            raise BadRequest(f"{parameter}: {term!r} is not understood; allowed: key=value, joined by commas")
        found[key.strip()] = value.removeprefix("=").strip()
    return found


def flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "")
    if value not in TRUE + FALSE:
        raise BadRequest(f"{name}: is {value!r}, must be true or false")
    return value in TRUE


def whole_number(request: Request, name: str, default: int, *, low: int, high: int) -> int:
    """A query parameter between `low` and `high`, both included."""
    raw = request.query_params.get(name)
    if raw is None or raw == "":
        return default
    try:
        value = int(raw)
    except ValueError:
        raise BadRequest(f"{name}: is {raw!r}, must be a whole number") from None
    if not low <= value <= high:
        raise BadRequest(f"{name}: is {value}, must be from {low} to {high}")
    return value


def is_dry_run(request: Request) -> bool:
    value = request.query_params.get("dryRun", "")
    if value not in ("", "All"):
        raise BadRequest(f"dryRun: is {value!r}, must be All or left out")
    return value == "All"
