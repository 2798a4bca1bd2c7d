"""What a connector does to a request that is prefilled on one engine and decoded on another. Pure."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from hekla.routing.body import Body


class Connector(Protocol):
    name: str

    def prefill_body(self, body: Body) -> Body:
        """What the prefill engine gets."""

    def decode_body(self, body: Body, prefill_answer: bytes) -> Body:
        """What the decode engine gets after the prefill engine's 2xx answer."""


def one_token(body: Body) -> dict[str, Any]:
    """The edits that stop an engine after the prompt: one token, not streamed.

    `min_tokens` goes too: an engine refuses one that is above `max_tokens`.
    """
    edits: dict[str, Any] = {
        "stream": msgspec.UNSET,
        "stream_options": msgspec.UNSET,
        "min_tokens": msgspec.UNSET,
        "return_token_ids": msgspec.UNSET,
        "max_tokens": 1,
    }
    if "max_completion_tokens" in body:
        edits["max_completion_tokens"] = 1
    return edits
