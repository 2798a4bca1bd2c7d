"""`nixl`: the prefill answer's `kv_transfer_params` tell the decode engine where the KV lies.

The prefill request asks for a remote decode; the parameters that come back go to the decode engine verbatim
(vLLM's NixlConnector protocol, vllm 0.32 `docs/features/nixl_connector_usage`).
"""

from __future__ import annotations

import logging

import msgspec

from hekla.routing.body import Body, MalformedBody
from hekla.routing.connectors.interface import HandOver, one_token

logger = logging.getLogger(__name__)

PARAMS = "kv_transfer_params"
ASK = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}


class Nixl:
    name = "nixl"
    is_concurrent = False
    bootstrap_port = 0
    leaves_decode_able = True

    def prefill_body(self, body: Body, hand_over: HandOver) -> Body:
        return body.edited({**one_token(body), PARAMS: ASK})

    def decode_body(self, body: Body, hand_over: HandOver) -> Body:
        return with_handed_params(body, hand_over.prefill_answer)


def with_handed_params(body: Body, prefill_answer: bytes) -> Body:
    """Without parameters in the answer the decode engine gets null, and computes the prompt itself."""
    try:
        params = Body.parse(prefill_answer).fields.get(PARAMS)
    except MalformedBody:
        params = None
    if params is None or bytes(params) == b"null":
        logger.warning("the prefill engine's answer has no %s: the prompt is computed twice", PARAMS)
        params = None
    return body.edited({PARAMS: msgspec.Raw(b"null") if params is None else params})
