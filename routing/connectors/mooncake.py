"""`mooncake`: both engines are asked at once, and meet by a `transfer_id` that the ingress made up.

This is what vLLM's MooncakeConnector does (0.32, `mooncake_connector.py`). Kthena sends it `nixl`'s edits instead: without
a `transfer_id` that connector keeps nothing for anybody, and answers no parameters, so that each prompt is computed
twice and nobody is told. The decode engine also needs the prefill engine's id, which its bootstrap server tells.

Where there is no such server, the engine is taken for one of the forks (Ascend's) whose connector does speak as NIXL's does:
the requests then follow each other, with `nixl`'s edits. The prefill request is the same in both cases.
"""

from __future__ import annotations

from hekla.routing.body import Body
from hekla.routing.connectors.interface import HandOver, in_url, one_token
from hekla.routing.connectors.nixl import ASK, PARAMS, with_handed_params

BOOTSTRAP_PORT = 8998
"""vLLM's `VLLM_MOONCAKE_BOOTSTRAP_PORT` unless it is told another."""


class Mooncake:
    name = "mooncake"
    is_concurrent = True
    bootstrap_port = BOOTSTRAP_PORT
    leaves_decode_able = True

    def prefill_body(self, body: Body, hand_over: HandOver) -> Body:
        return body.edited({**one_token(body), PARAMS: {**ASK, "transfer_id": hand_over.transfer_id}})

    def decode_body(self, body: Body, hand_over: HandOver) -> Body:
        if not hand_over.engine_id:
            return with_handed_params(body, hand_over.prefill_answer)
        address = f"http://{in_url(hand_over.prefill_host)}:{hand_over.bootstrap_port}"
        params = {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_engine_id": hand_over.engine_id,
            "remote_bootstrap_addr": address,
            "transfer_id": hand_over.transfer_id,
        }
        return body.edited({PARAMS: params})
