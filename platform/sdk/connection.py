"""What both transports share: limits, and how a broken connection reads as our error."""

from __future__ import annotations

import httpx

from hekla.platform.base.errors import Unavailable
from hekla.platform.sdk.calls import Call, read_json

TIMEOUT_S = 30.0
"""Longest wait for one answer."""

Headers = dict[str, str]


def headers_of(call: Call) -> Headers:
    return {"content-type": call.content_type} if call.body is not None else {}


def credential_headers(api_key: str) -> Headers:
    return {"authorization": f"Bearer {api_key}"} if api_key else {}


def unreachable(url: str, error: Exception) -> Unavailable:
    reason = str(error) or type(error).__name__
    return Unavailable(f"can't reach hekla at {url} ({reason}); is it up? try: hekla up")


def check(response: httpx.Response, url: str) -> None:
    """Raises what the (read) response refuses with; nothing when it is a success."""
    if response.status_code >= 400:
        read_json(response.status_code, response.content, url)
