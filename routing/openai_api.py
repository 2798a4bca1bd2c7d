"""The inference API: which paths there are, and what a request must have before it is routed. Pure.

Everything an engine can judge is left to the engine. Checked here is only what routing needs: a JSON object with a
`model`, and a prompt where there has to be one.
"""

from __future__ import annotations

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
    message = f"route not found: the model {shown!r} does not exist"
    return Refusal(404, message, kind="route_not_found", code="model_not_found", param="model")


def server_not_found(model: str, name: str, is_external: bool) -> Refusal:
    if is_external:
        message = f"the model {model!r} is routed to an external provider that is not ready"
        return Refusal(503, message, kind="provider_config", code="provider_not_ready")
    message = f"the model {model!r} is routed to a model server {name!r} that does not exist"
    return Refusal(404, message, kind="model_server_matching", code="model_server_not_found")


def wrong_path(method: str, path: str) -> Refusal:
    if path in ROUTED_PATHS or path in MODEL_LISTS:
        allowed = "POST" if path in ROUTED_PATHS else "GET"
        message = f"{path} does not take {method}; allowed: {allowed}"
        return Refusal(405, message, kind="request_parsing", code="method_not_allowed")
    return Refusal(404, f"there is no {path[:256]}", kind="request_parsing", code="not_found")


def model_list(models: tuple[str, ...], owned_by: str) -> bytes:
    """The body of `GET /v1/models`."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": owned_by} for name in models]
    return msgspec.json.encode({"object": "list", "data": data})
