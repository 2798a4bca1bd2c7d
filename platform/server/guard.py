"""Lets only the ingress speak to the resource API: callers are judged there, and it shows this token.

The API listens on the node's own address, as ingress replicas of other nodes need it; without this, whoever reaches that
port would pass the ingress's door by.
"""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from hekla.platform.base.errors import Unauthorized
from hekla.platform.server import answers

OPEN_PATHS = frozenset({"/healthz"})


class TokenGuard:
    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._expected = app, f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and not self._is_known(scope):
            error = Unauthorized("this port is the ingress's; use the endpoint that `hekla up` names")
            await answers.refusal(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(shown) == 1 and hmac.compare_digest(shown[0], self._expected)
