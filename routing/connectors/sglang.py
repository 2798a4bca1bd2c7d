"""`sglang`: both engines are asked at once, and meet in a room at the prefill engine's bootstrap server.

Both requests carry room, host and port, as SGLang's own load balancer sends them (Kthena gives the prefill request
the room alone, which an engine accepts as well). A port that is not known is left out: the decode engine then takes its own
`--disaggregation-bootstrap-port`, which by default is the prefill engine's too.
"""

from __future__ import annotations

from typing import Any

from hekla.routing.body import Body
from hekla.routing.connectors.interface import HandOver, one_token


class SGLang:
    name = "sglang"
    is_concurrent = True
    bootstrap_port = 0
    leaves_decode_able = False
    """Started with `--disaggregation-mode decode` it refuses a request without a room."""

    def prefill_body(self, body: Body, hand_over: HandOver) -> Body:
        return body.edited({**one_token(body), **_bootstrap(hand_over)})

    def decode_body(self, body: Body, hand_over: HandOver) -> Body:
        return body.edited(_bootstrap(hand_over))


def _bootstrap(hand_over: HandOver) -> dict[str, Any]:
    told = {"bootstrap_host": hand_over.prefill_host, "bootstrap_room": hand_over.room}
    return told | ({"bootstrap_port": hand_over.bootstrap_port} if hand_over.bootstrap_port else {})
