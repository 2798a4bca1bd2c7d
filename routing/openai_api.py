"""The inference API: which paths there are, and what a request must have before it is routed. Pure.

Everything an engine can judge is left to the engine. Checked here is only what routing needs: a JSON object with a
`model`, and a prompt where there has to be one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hekla.routing.body import Body, MalformedBody
from hekla.routing.prompt import has_prompt
from hekla.routing.refusal import Refusal

PROMPT_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"})
"""POST, and a prompt is required."""

OTHER_PATHS = frozenset({"/tokenize", "/detokenize", "/v1/messages/count_tokens"})
"""POST, routed by model all the same."""

ROUTED_PATHS = PROMPT_PATHS | OTHER_PATHS
MODEL_LISTS = frozenset({"/v1/models", "/models"})
HEALTH_PATHS = frozenset({"/health", "/healthz", "/readyz"})
METRICS_PATH = "/metrics"
NOT_READ = "the routing table has not been read yet"


def parse_request(path: str, raw: bytes) -> tuple[Body, str]:
    """The body and the model asked for. Raises Refusal: 400 when it is not JSON, 404 without model or prompt."""
    try:
        body = Body.parse(raw)
        model = body.get("model")
        needs_prompt = path in PROMPT_PATHS and not has_prompt(body)
    except MalformedBody as error:
        message = f"the request's body is not a JSON object: {error}"
        raise Refusal(400, message, kind="request_parsing", code="invalid_json") from error
    if not isinstance(model, str) or not model:
        message = "model not found: the request needs `model`, a string that is not empty"
        raise Refusal(404, message, kind="request_parsing", code="model_not_found", param="model")
    if needs_prompt:
        message = "prompt not found: the request needs `prompt`, `messages` or `input`"
        raise Refusal(404, message, kind="prompt_parsing", code="prompt_not_found", param="messages")
    return body, model


def route_not_found(model: str) -> Refusal:
    shown = model if len(model) <= 128 else model[:128] + "…"
    message = f"route not found: the model {shown!r} does not exist, or you may not use it"
    return Refusal(404, message, kind="route_not_found", code="model_not_found", param="model")


def server_not_found(model: str, name: str, is_external: bool) -> Refusal:
    if is_external:
        message = f"the model {model!r} is routed to an external provider that is not ready"
        return Refusal(503, message, kind="provider_config", code="provider_not_ready")
    message = f"the model {model!r} is routed to a model server {name!r} that does not exist"
    return Refusal(404, message, kind="model_server_matching", code="model_server_not_found")


def table_not_read(retry_after_s: int) -> Refusal:
    """Not a 404: which models exist is not known yet."""
    return Refusal(503, NOT_READ, kind="pod_discovery", code="not_synced", retry_after_s=retry_after_s)


def wrong_path(method: str, path: str) -> Refusal:
    allowed = allowed_methods(path)
    if not allowed:
        return Refusal(404, f"there is no {path[:256]}", kind="request_parsing", code="not_found")
    message = f"{path[:256]} does not take {method}; allowed: {allowed}"
    return Refusal(405, message, kind="request_parsing", code="method_not_allowed", allow=allowed)


def allowed_methods(path: str) -> str:
    """The value of `Allow` for a path of the ingress itself; empty when there is no such path."""
    if path in ROUTED_PATHS:
        return "POST"
    is_read = path in MODEL_LISTS or path in HEALTH_PATHS or path == METRICS_PATH or model_of(path) is not None
    return "GET, HEAD" if is_read else ""


def model_of(path: str) -> str | None:
    """The model that `GET /v1/models/{id}` asks for; its name may hold slashes."""
    for prefix in MODEL_LISTS:
        if path.startswith(prefix + "/") and len(path) > len(prefix) + 1:
            return path[len(prefix) + 1 :]
    return None


def model_answer(name: str, models: tuple[str, ...], owned_by: str) -> bytes:
    """The body of `GET /v1/models/{id}`. Raises Refusal 404."""
    if name not in models:
        raise route_not_found(name)
    return msgspec.json.encode(_model(name, owned_by))


def model_list(models: tuple[str, ...], owned_by: str) -> bytes:
    """The body of `GET /v1/models`."""
    return msgspec.json.encode({"object": "list", "data": [_model(name, owned_by) for name in models]})


def _model(name: str, owned_by: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owned_by}
