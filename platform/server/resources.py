"""The handlers of `/apis/…`: each reads the request, asks the store, and answers."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from hekla.platform.api.meta import Json, Ref
from hekla.platform.api.registry import Kind, all_kinds, kind_named
from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import BadRequest, Conflict
from hekla.platform.server import asked, discovery, scale, writes
from hekla.platform.server.answers import MethodNotAllowed, read_object
from hekla.platform.server.answers import answer as bare_answer
from hekla.platform.server.hiding import answer, visible
from hekla.platform.server.watch_stream import WATCH_TIMEOUT_S_DEFAULT, WATCH_TIMEOUT_S_MAX, Watch
from hekla.platform.store.interface import Store

PATCH_TYPES = ("application/merge-patch+json", "application/json")


class Resources:
    """Every handler is `async (request) -> Response` and may raise ApiError."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def groups(self, _request: Request) -> Response:
        return bare_answer(discovery.groups())

    async def group(self, request: Request) -> Response:
        return bare_answer(discovery.group(request.path_params["group"]))

    async def resources(self, request: Request) -> Response:
        return bare_answer(discovery.resources(request.path_params["group"], request.path_params["version"]))

    async def collection(self, request: Request) -> Response:
        """GET lists or watches, POST creates."""
        kind = asked.kind_of(request)
        if request.method == "POST":
            return await self._create(request, kind)
        selection = asked.selection_of(request)
        if asked.flag(request, "watch"):
            return self.watch(request, (kind.kind,), selection)
        listing = self._store.list(kind.kind, selection.namespace, selection.labels)
        return answer(
            request,
            {
                "kind": f"{kind.kind}List",
                "apiVersion": kind.api_version,
                "metadata": {"resourceVersion": listing.resource_version},
                "items": [obj for obj in listing.items if selection.holds(obj)],
            },
        )

    def watch(self, request: Request, kinds: tuple[str, ...], selection: asked.Selection) -> Response:
        """A stream that begins after `resourceVersion`; without one, or with `sendInitialEvents`, with what there is."""
        timeout_s = asked.whole_number(
            request, "timeoutSeconds", WATCH_TIMEOUT_S_DEFAULT, low=1, high=WATCH_TIMEOUT_S_MAX
        )
        since = request.query_params.get("resourceVersion") or None
        if since == "0" or asked.flag(request, "sendInitialEvents"):
            since = None
        watch = Watch(self._store, kinds, selection, since, visible(request))
        lines = watch.lines(self._clock, timeout_s)
        return StreamingResponse(lines, media_type="application/json", headers={"cache-control": "no-store"})

    async def watch_many(self, request: Request) -> Response:
        """Several kinds in one stream, in the order in which things happened."""
        names = [name for name in request.query_params.get("kinds", "").split(",") if name]
        if not names:
            raise BadRequest(f"kinds: is missing; give some of {', '.join(sorted(all_kinds()))}, joined by commas")
        return self.watch(request, tuple(kind_named(name).kind for name in names), asked.selection_of(request))

    async def _create(self, request: Request, kind: Kind) -> Response:
        asked.require_writable(kind, "create")
        namespace = asked.namespace_of(request)
        if namespace is None:
            raise MethodNotAllowed(
                f"create needs a namespace: POST /apis/{kind.api_version}/namespaces/…/{kind.plural}"
            )
        obj = writes.placed(await read_object(request), kind, namespace)
        return answer(request, self._do(request, partial(writes.create, self._store, obj)), 201)

    async def one(self, request: Request) -> Response:
        """GET, PUT (replace), PATCH (merge), DELETE."""
        kind, ref = asked.kind_of(request), asked.ref_at(request)
        if request.method in ("GET", "HEAD"):
            return answer(request, self._store.get(ref))
        asked.require_writable(kind, request.method.lower())
        if request.method == "DELETE":
            return await self._delete(request, ref)
        if request.method == "PUT":
            obj = writes.placed(await read_object(request), kind, ref.namespace, ref.name)
            return answer(request, self._do(request, partial(writes.replace, self._store, obj)))
        changes = await read_object(request, PATCH_TYPES)
        return answer(request, self._do(request, partial(writes.patch, self._store, ref, changes)))

    async def status(self, request: Request) -> Response:
        kind, ref = asked.kind_of(request), asked.ref_at(request)
        if request.method in ("GET", "HEAD"):
            return answer(request, self._store.get(ref))
        asked.require_writable(kind, f"{request.method.lower()} of status")
        is_patch = request.method == "PATCH"
        sent = await read_object(request, PATCH_TYPES if is_patch else ())
        if not is_patch:
            sent = writes.placed(sent, kind, ref.namespace, ref.name)
        return answer(
            request, self._do(request, partial(writes.write_status, self._store, ref, sent, is_patch=is_patch))
        )

    async def scale(self, request: Request) -> Response:
        kind, ref = asked.kind_of(request), asked.ref_at(request)
        scale.scale_path_of(kind)
        if request.method in ("GET", "HEAD"):
            return bare_answer(scale.scale_of(kind, self._store.get(ref)))
        is_patch = request.method == "PATCH"
        sent = await read_object(request, PATCH_TYPES if is_patch else ())
        return bare_answer(self._do(request, partial(scale.rescale, self._store, kind, ref, sent, is_patch=is_patch)))

    async def _delete(self, request: Request, ref: Ref) -> Response:
        options = await _delete_options(request)
        return answer(request, self._do(request, partial(self._deleted, ref, options)))

    def _deleted(self, ref: Ref, options: Json) -> Json:
        """The object when finalizers keep it for now, else a Status."""
        wanted = options.get("preconditions") or {}
        version = wanted.get("resourceVersion")
        if version and self._store.get(ref)["metadata"]["resourceVersion"] != version:
            raise Conflict(f"{ref} is no longer at resourceVersion {version}")
        last = self._store.delete(ref, wanted.get("uid"))
        still = writes.find(self._store, ref)
        if still is not None:
            return still
        kind, meta = all_kinds()[ref.kind], last["metadata"]
        details = {"name": ref.name, "group": kind.group, "kind": kind.plural, "uid": meta["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _do(self, request: Request, write: partial[Json]) -> Json:
        return writes.carried_out(self._store, write, dry_run=asked.is_dry_run(request))


async def _delete_options(request: Request) -> Json:
    """The body's DeleteOptions, with the query's policy. Raises BadRequest for a policy other than Background."""
    options = await read_object(request) if _has_body(request) else {}
    policy = request.query_params.get("propagationPolicy") or options.get("propagationPolicy") or "Background"
    if policy != "Background":
        raise BadRequest(f"propagationPolicy: is {policy!r}, must be Background: what an object owns goes with it")
    if not isinstance(options.get("preconditions") or {}, dict):
        raise BadRequest("preconditions: must be an object")
    return options


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
