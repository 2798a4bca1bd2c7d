"""What a connector does to a request that is prefilled on one engine and decoded on another. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from hekla.routing.body import Body


@dataclass(frozen=True)
class HandOver:
    """One try of a pair. What is drawn by lot is drawn anew for each try: an engine may still hold the last one's."""

    room: int
    """In [0, 2**63): names the hand-over for SGLang."""
    transfer_id: str
    """Names it for Mooncake."""
    prefill_host: str = ""
    bootstrap_port: int = 0
    """Where the prefill engine's bootstrap server listens; 0 while unknown."""
    engine_id: str = ""
    """The prefill engine's own id, as its bootstrap server tells it; empty: it has none."""
    prefill_answer: bytes = b""
    """Of the prefill engine; empty while it has not answered."""


class Connector(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def is_concurrent(self) -> bool:
        """Both engines are asked at the same time: the decode engine waits for the KV by itself."""

    @property
    def bootstrap_port(self) -> int:
        """Where a prefill engine that does not say has the bootstrap server that knows its id; 0: ids are not needed."""

    @property
    def leaves_decode_able(self) -> bool:
        """A decode engine can also compute a prompt by itself."""

    def prefill_body(self, body: Body, hand_over: HandOver) -> Body:
        """What the prefill engine gets."""

    def decode_body(self, body: Body, hand_over: HandOver) -> Body:
        """What the decode engine gets; where they follow each other, after the prefill engine's 2xx answer."""


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


def host_of(url: str) -> str:
    """Without brackets also for IPv6."""
    return urlsplit(url).hostname or ""


def in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
