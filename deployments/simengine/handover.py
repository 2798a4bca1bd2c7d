"""What a request says of its KV cache: to keep it for another engine, or to fetch it from one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec

from hekla.deployments.simengine import meeting
from hekla.deployments.simengine.refusal import Refusal
from hekla.deployments.simengine.sequence import RemoteKv
from hekla.deployments.simengine.wire import Sampling


class Told(NamedTuple):
    remote: RemoteKv | None = None
    """To be fetched."""
    holds: bool = False
    """To be kept."""
    held_as: str = ""
    """Under this name; empty: the request's id, which the answer tells."""


@dataclass(frozen=True)
class Handover:
    connector: str = ""
    """vLLM's `kv_connector`; empty: none."""
    mode: Literal["", "prefill", "decode"] = ""
    """SGLang's `--disaggregation-mode`."""
    bootstrap_port: int = 8998
    """Taken for the prefill engine's when a request does not say."""

    @property
    def is_on(self) -> bool:
        return bool(self.connector or self.mode)

    @property
    def meets(self) -> bool:
        """This engine has a bootstrap server."""
        return self.mode == "prefill" or self._is_mooncake

    @property
    def _is_mooncake(self) -> bool:
        return self.connector.startswith("Mooncake")

    def told(self, sampling: Sampling, prompt_tokens: int) -> Told:
        """Raises Refusal."""
        if self.mode:
            place = (sampling.bootstrap_host, sampling.bootstrap_port, sampling.bootstrap_room)
            remote, name = meeting.sglang(self.mode, place, self.bootstrap_port, prompt_tokens)
            return Told(remote, bool(name), name)
        params = sampling.kv_transfer_params
        if not params or not self.connector:
            return Told()
        if self._is_mooncake:
            remote, name = meeting.mooncake(params, prompt_tokens)
            return Told(remote, bool(name), name)
        return _nixl(params)


def _nixl(params: dict[str, Any]) -> Told:
    if not params.get("do_remote_prefill"):
        return Told(holds=bool(params.get("do_remote_decode")))
    try:
        wanted = {key: params[f"remote_{key}"] for key in ("engine_id", "request_id", "host", "port")}
        remote = msgspec.convert(wanted | {"tokens": params.get("remote_num_tokens") or 0}, RemoteKv)
    except (KeyError, msgspec.ValidationError) as error:
        raise Refusal(f"kv_transfer_params: do_remote_prefill needs {error}", param="kv_transfer_params") from error
    return Told(remote)
