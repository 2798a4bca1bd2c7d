"""Structured output: a JSON text that fits a schema, a pure function of the schema and a seed.

Understands type, properties, required, items, minItems, enum, const, anyOf/oneOf/allOf, local $ref, minimum,
exclusiveMinimum, minLength, and string formats date, date-time, uuid, email; other keywords are ignored.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hekla.deployments.simengine.refusal import Refusal
from hekla.deployments.simengine.sampler import WORDS, mix
from hekla.deployments.simengine.tokens import token_bytes

DEPTH_MAX = 32
"""Nested levels; deeper (recursive) schemas end in null."""
LENGTH_MAX = 256
"""Items or characters a schema's minimum can ask for."""

_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00",
    "uuid": "12345678-1234-4123-8123-123456789abc",
    "email": "user@example.com",
    "uri": "https://example.com/",
}
Schema = dict[str, Any]


def json_text(schema: Schema | None, seed: int) -> str:
    """Text of a value that fits the schema; None: any object."""
    shape: Schema = {"type": "object", "properties": {"answer": {"type": "string"}}} if schema is None else schema
    return msgspec.json.encode(_Writer(shape, seed).value(shape, 0)).decode()


def from_response_format(response_format: dict[str, Any] | None, seed: int) -> str | None:
    """The text OpenAI's `response_format` asks for; None for free text. Raises Refusal."""
    kind = None if response_format is None else response_format.get("type")
    if response_format is None or kind == "text":
        return None
    if kind == "json_object":
        return json_text(None, seed)
    if kind != "json_schema":
        raise Refusal(
            f"response_format.type: {kind!r} is not one of text, json_object, json_schema", param="response_format"
        )
    wrapper = response_format.get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    if not isinstance(schema, dict):
        raise Refusal("response_format.json_schema.schema: an object is needed", param="response_format")
    return json_text(schema, seed)


def from_structured_outputs(options: dict[str, Any] | None, seed: int) -> str | None:
    """vLLM's `structured_outputs` with `json`, `json_object` or `choice`. Raises Refusal for the kinds not imitated."""
    if not options:
        return None
    schema = options.get("json")
    if isinstance(schema, str):
        schema = msgspec.json.decode(schema)
    if isinstance(schema, dict):
        return json_text(schema, seed)
    if options.get("json_object"):
        return json_text(None, seed)
    choices = options.get("choice")
    if isinstance(choices, list) and choices:
        return str(choices[mix(seed, 0, 0) % len(choices)])
    raise Refusal("structured_outputs: one of json, json_object, choice is needed", param="structured_outputs")


class _Writer:
    def __init__(self, root: Schema, seed: int) -> None:
        self._root = root
        self._seed = seed
        self._drawn = 0

    def _draw(self) -> int:
        self._drawn += 1
        return mix(self._seed, self._drawn, 1)

    def value(self, schema: Any, depth: int) -> Any:
        if not isinstance(schema, dict) or depth > DEPTH_MAX:
            return None
        if "$ref" in schema:
            return self.value(self._resolve(str(schema["$ref"])), depth + 1)
        if "const" in schema:
            return schema["const"]
        if options := schema.get("enum"):
            return options[self._draw() % len(options)]
        for key in ("anyOf", "oneOf"):
            if options := schema.get(key):
                return self.value(options[0], depth + 1)
        if parts := schema.get("allOf"):
            merged: Schema = {}
            for part in parts:
                merged |= self._resolve(part["$ref"]) if "$ref" in part else part
            return self.value(merged, depth + 1)
        return self._typed(schema, depth)

    def _typed(self, schema: Schema, depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = kind[0]
        match kind:
            case "object":
                return {key: self.value(item, depth + 1) for key, item in schema.get("properties", {}).items()}
            case "array":
                return [self.value(schema.get("items", {}), depth + 1) for _ in range(self._length(schema, "minItems"))]
            case "integer" | "number":
                return self._number(schema, kind)
            case "boolean":
                return bool(self._draw() & 1)
            case "null":
                return None
            case _:
                return self._string(schema)

    def _length(self, schema: Schema, key: str) -> int:
        least = schema.get(key, 1)
        most = schema.get(key.replace("min", "max"), LENGTH_MAX)
        return min(max(1, int(least)), int(most), LENGTH_MAX)

    def _number(self, schema: Schema, kind: str) -> int | float:
        low, high = _bounds(schema)
        if kind == "integer":
            first = int(low) + ("exclusiveMinimum" in schema)
            return first + self._draw() % max(1, int(high) - first)
        share = (self._draw() % 1000 + 1) / 1002
        return float(round(low + (high - low) * share, 6))

    def _string(self, schema: Schema) -> str:
        if known := _FORMATS.get(schema.get("format", "")):
            return known
        words = "".join(token_bytes(WORDS[self._draw() % len(WORDS)]).decode() for _ in range(2)).strip()
        least = min(int(schema.get("minLength", 0)), LENGTH_MAX)
        return words.ljust(least, "a")[: int(schema.get("maxLength", LENGTH_MAX))]

    def _resolve(self, reference: str) -> Schema:
        """A local `#/…` pointer; anything else is an empty schema."""
        node: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            node = node.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) and step else node
        return node if isinstance(node, dict) else {}


def _bounds(schema: Schema) -> tuple[float, float]:
    """The lowest and highest number allowed; 100 apart when the schema leaves that open."""
    low: Any = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    high: Any = schema.get("maximum", schema.get("exclusiveMaximum", low + 100))
    return float(low), float(high)
