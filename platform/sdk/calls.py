"""What to ask the resource API for: every operation as a value, made without touching a socket.

Both clients send these and read the answer with `read_json`; neither knows a path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from hekla.platform.api.kstatus import error_of
from hekla.platform.api.meta import Json
from hekla.platform.api.registry import Kind, kind_named
from hekla.platform.base.errors import ApiError, BadRequest, Unavailable

MERGE_PATCH = "application/merge-patch+json"
APPLY_PATH = "/hekla/v1/apply"


@dataclass(frozen=True)
class Call:
    """One HTTP request."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: Json | None = None
    content_type: str = "application/json"

    @property
    def is_repeatable(self) -> bool:
        """True when asking twice does no more than asking once."""
        return self.method == "GET" or self.path == APPLY_PATH

    @property
    def content(self) -> bytes | None:
        return None if self.body is None else json.dumps(self.body).encode()


@dataclass(frozen=True)
class ApplyResult:
    """What `apply` did to one object; `action` is created, configured or unchanged."""

    kind: str
    namespace: str
    name: str
    action: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name} {self.action}"


Results = list[ApplyResult]
Objects = list[Json]


def path_of(kind: Kind, namespace: str | None, name: str = "", subresource: str = "") -> str:
    """The path of a kind (all namespaces when None), of an object, or of its `status` or `scale`."""
    parts = ["apis", kind.group, kind.version]
    if namespace is not None:
        parts += ["namespaces", quote(namespace, safe="")]
    parts += [kind.plural, quote(name, safe=""), subresource]
    return "/" + "/".join(part for part in parts if part)


def named(kind: str, namespace: str, name: str, subresource: str = "") -> str:
    """The path of one object. Raises NotFound for an unknown kind, BadRequest for an empty name."""
    if not name:
        raise BadRequest("name: is empty; an object's name is needed")
    return path_of(kind_named(kind), namespace, name, subresource)


def selection(labels: Mapping[str, str] | None = None, name: str | None = None) -> dict[str, str]:
    params = {}
    if labels:
        params["labelSelector"] = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    if name:
        params["fieldSelector"] = f"metadata.name={name}"
    return params


def list_call(kind: str, namespace: str | None, labels: Mapping[str, str] | None = None) -> Call:
    return Call("GET", path_of(kind_named(kind), namespace), selection(labels))


def get_call(kind: str, namespace: str, name: str) -> Call:
    return Call("GET", named(kind, namespace, name))


def apply_call(objects: list[Json], namespace: str, *, dry_run: bool) -> Call:
    """Objects that name no namespace get the client's."""
    placed = [_in_namespace(obj, namespace) for obj in objects]
    return Call("POST", APPLY_PATH, body={"objects": placed, "dryRun": dry_run})


def _in_namespace(obj: Json, namespace: str) -> Json:
    meta = obj.get("metadata")
    if not isinstance(meta, dict) or meta.get("namespace"):
        return obj
    return {**obj, "metadata": {**meta, "namespace": namespace}}


def patch_call(kind: str, namespace: str, name: str, changes: Json) -> Call:
    return Call("PATCH", named(kind, namespace, name), body=changes, content_type=MERGE_PATCH)


def delete_call(kind: str, namespace: str, name: str) -> Call:
    return Call("DELETE", named(kind, namespace, name), {"propagationPolicy": "Background"})


def scale_call(kind: str, namespace: str, name: str, replicas: int) -> Call:
    changes = {"spec": {"replicas": replicas}}
    return Call("PATCH", named(kind, namespace, name, "scale"), body=changes, content_type=MERGE_PATCH)


def log_call(name: str, namespace: str, *, follow: bool, tail_lines: int | None) -> Call:
    params = {"follow": "true" if follow else "false"}
    if tail_lines is not None:
        params["tailLines"] = str(tail_lines)
    return Call("GET", f"/hekla/v1/engines/{quote(namespace, safe='')}/{quote(name, safe='')}/log", params)


def apply_results(answer: Json) -> Results:
    keys = ("kind", "namespace", "name", "action")
    return [ApplyResult(**{key: item[key] for key in keys}) for item in answer["results"]]


def events_about(answer: Json, kind: str | None, name: str | None) -> Objects:
    """The events of a listing that regard the object, oldest first."""
    wanted = kind_named(kind).kind if kind else None
    chosen = [event for event in answer["items"] if regards(event, wanted, name)]
    return sorted(chosen, key=lambda event: str(event["spec"].get("lastSeen", "")))


def regards(event: Json, kind: str | None, name: str | None) -> bool:
    spec = event["spec"]
    return kind in (None, spec.get("regardingKind")) and name in (None, spec.get("regardingName"))


def read_json(status: int, body: bytes, url: str) -> Json:
    """The answer as JSON. Raises the ApiError that its Status names, or Unavailable when hekla didn't answer it."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and status < 400:
        return answer
    raise refusal(status, answer, url)


def refusal(status: int, answer: object, url: str) -> Exception:
    if status in (502, 503, 504):
        return Unavailable(f"hekla at {url} is not ready yet: {_message(answer) or f'HTTP {status}'}")
    if isinstance(answer, dict) and answer.get("kind") == "Status":
        return error_of(answer)
    return ApiError(f"{url} does not answer as hekla does (HTTP {status}); is the address right?")


def _message(answer: object) -> str:
    return str(answer.get("message", "")) if isinstance(answer, dict) else ""
