"""The command line: vLLM's flags where vLLM has them, the simulation's own beside them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hekla.deployments.simengine.hardware import HARDWARE, SHAPES
from hekla.deployments.simengine.publisher import KvEventsConfig
from hekla.deployments.simengine.settings import Faults, Settings, Timing
from hekla.deployments.simengine.steps import Linear

BOOTSTRAP_VARIABLE = "VLLM_MOONCAKE_BOOTSTRAP_PORT"
HOST_VARIABLE, PORT_VARIABLE = "VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT"


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Exits with a message for bad arguments, as argparse does. vLLM flags that change nothing here are ignored."""
    parser = build_parser()
    values, ignored = parser.parse_known_args(arguments)
    model = values.model or values.model_tag
    if not model:
        parser.error("--model: a name is needed")
    try:
        settings = _settings(values, model, environment)
        settings.blocks()
    except ValueError as error:
        parser.error(str(error))
    if ignored:
        print(f"simengine: ignored, they change nothing here: {' '.join(ignored)}", flush=True)
    return settings


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hekla.deployments.simengine",
        description="An engine that speaks vLLM's HTTP, metrics and KV events and computes nothing but time.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    _add_server(parser.add_argument_group("server (vLLM's flags)"))
    _add_engine(parser.add_argument_group("engine (vLLM's flags)"))
    _add_time(parser.add_argument_group("time"))
    _add_faults(parser.add_argument_group("faults on purpose"))
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a number >= 0")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1]")
    return value


def _add_server(group: Any) -> None:
    add = group.add_argument
    add("model_tag", nargs="?", default="", help="the model's name; --model wins")
    add("--model", default="", help="the model's name; no weights are read")
    add("--served-model-name", nargs="+", default=[], help="names in the API; default: the model's")
    add("--host", default="0.0.0.0")
    add("--port", type=int, default=8000)
    add("--api-key", default="", help="ask for `Authorization: Bearer KEY` under /v1")
    add("--startup-s", type=_seconds, default=0.0, help="seconds of loading before the port opens")


def _add_engine(group: Any) -> None:
    add = group.add_argument
    add("--max-model-len", type=_positive, default=32_768, help="context in tokens")
    add("--max-num-seqs", type=_positive, default=256, help="sequences in a step")
    add("--max-num-batched-tokens", type=_positive, default=2048, help="tokens in a step")
    add(
        "--max-num-queued-reqs",
        type=int,
        default=0,
        help="unfinished requests after which new ones get 503; 0: no limit",
    )
    add("--block-size", type=_positive, default=16, help="tokens in a KV block")
    add("--num-gpu-blocks-override", type=_positive, default=0, help="KV blocks; default: what the hardware holds")
    add("--tensor-parallel-size", "-tp", type=_positive, default=1)
    add("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=True)
    add("--long-prefill-token-threshold", type=int, default=0, help="longest chunk of one prompt; 0: no limit")
    add("--scheduling-policy", choices=("fcfs", "priority"), default="fcfs")
    add("--enable-lora", action="store_true")
    add("--max-loras", type=_positive, default=1, help="adapters in a step")
    add("--lora-modules", nargs="+", default=[], help="NAME=PATH or JSON with name and path")
    add("--seed", type=int, default=0)
    add("--kv-events-config", default="{}", help="vLLM's JSON")
    add("--kv-transfer-config", default="", help="vLLM's JSON; kv_connector, engine_id, kv_load_failure_policy count")
    add("--kv-side-channel-port", type=int, default=None, help=f"0: any free one; default: ${PORT_VARIABLE} or 5600")
    add("--disaggregation-mode", choices=("prefill", "decode"), default="", help="SGLang's: requests meet in rooms")
    add("--disaggregation-bootstrap-port", type=int, default=None, help=f"default: ${BOOTSTRAP_VARIABLE} or 8998")
    add("--kv-lease-s", type=_seconds, default=30.0, help="seconds a prefill's blocks wait for the decode engine")
    add("--mean-output-tokens", type=float, default=128.0, help="mean length of an answer that nothing else ends")


def _add_time(group: Any) -> None:
    add = group.add_argument
    add("--hardware", choices=sorted(HARDWARE), default="", help="roofline of this accelerator; else the linear model")
    add("--params-b", type=float, default=8.03, help="billions of parameters, with --hardware")
    add("--model-shape", choices=[shape.name for shape in SHAPES], default="", help="instead of --params-b")
    linear = Linear()
    add("--step-ms-base", type=_seconds, default=linear.base_ms, help="milliseconds of every step")
    add("--step-ms-per-prefill-token", type=_seconds, default=linear.prefill_token_ms)
    add("--step-ms-per-decode", type=_seconds, default=linear.decode_sequence_ms)
    add("--step-ms-per-context-token", type=_seconds, default=linear.context_token_ms)
    add("--time-scale", type=_seconds, default=1.0, help="multiplies all modelled times; 0: answer at once")
    add("--transfer-gb-s", type=float, default=25.0, help="KV between engines, GB/s")
    add("--transfer-setup-ms", type=_seconds, default=5.0)


def _add_faults(group: Any) -> None:
    add = group.add_argument
    add("--error-rate", type=_share, default=0.0, help="share of requests refused")
    add("--error-code", type=int, default=500, help="status of those")
    add("--fail-health-after", type=_seconds, default=0.0, help="seconds until /health answers 503; 0: never")
    add("--die-after-tokens", type=int, default=0, help="exit at once after so many generated tokens; 0: never")
    add("--hang-after-tokens", type=int, default=0, help="stop generating after so many tokens; 0: never")


def _settings(values: argparse.Namespace, model: str, environment: Mapping[str, str]) -> Settings:
    transfer = _json("--kv-transfer-config", values.kv_transfer_config or "{}", dict[str, Any])
    policy = transfer.get("kv_load_failure_policy", "fail")
    if policy not in ("fail", "recompute"):
        raise ValueError(f"--kv-transfer-config: kv_load_failure_policy is {policy!r}, not fail or recompute")
    port, bootstrap_port = values.kv_side_channel_port, values.disaggregation_bootstrap_port
    return Settings(
        model=model,
        served_names=tuple(values.served_model_name) or (model,),
        host=values.host,
        port=values.port,
        api_key=values.api_key,
        max_model_len=values.max_model_len,
        max_num_seqs=values.max_num_seqs,
        max_num_batched_tokens=values.max_num_batched_tokens,
        block_size=values.block_size,
        gpu_blocks=values.num_gpu_blocks_override,
        prefix_caching=values.enable_prefix_caching,
        policy=values.scheduling_policy,
        long_prefill_tokens=values.long_prefill_token_threshold,
        max_loras=values.max_loras if values.enable_lora else 0,
        adapters=tuple(_adapter(text) for text in values.lora_modules),
        max_queued_requests=values.max_num_queued_reqs,
        mean_output_tokens=values.mean_output_tokens,
        seed=values.seed,
        timing=_timing(values),
        faults=_faults(values),
        kv_events=_json("--kv-events-config", values.kv_events_config, KvEventsConfig),
        kv_connector=str(transfer.get("kv_connector") or ""),
        disaggregation_mode=values.disaggregation_mode,
        bootstrap_port=int(environment.get(BOOTSTRAP_VARIABLE, "8998")) if bootstrap_port is None else bootstrap_port,
        engine_id=str(transfer.get("engine_id") or ""),
        kv_load_failure=policy,
        side_channel_host=environment.get(HOST_VARIABLE, "127.0.0.1"),
        side_channel_port=int(environment.get(PORT_VARIABLE, "5600")) if port is None else port,
        lease_s=values.kv_lease_s,
        transfer_gb_s=values.transfer_gb_s,
        transfer_setup_ms=values.transfer_setup_ms,
        startup_s=values.startup_s,
    )


def _timing(values: argparse.Namespace) -> Timing:
    linear = Linear(
        values.step_ms_base,
        values.step_ms_per_prefill_token,
        values.step_ms_per_decode,
        values.step_ms_per_context_token,
    )
    return Timing(
        values.hardware, values.params_b, values.model_shape, values.tensor_parallel_size, linear, values.time_scale
    )


def _faults(values: argparse.Namespace) -> Faults:
    return Faults(
        values.error_rate,
        values.error_code,
        values.fail_health_after,
        values.die_after_tokens,
        values.hang_after_tokens,
    )


def _json(flag: str, text: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise ValueError(f"{flag}: {error}") from error


def _adapter(text: str) -> tuple[str, str]:
    if text.startswith("{"):
        value = _json("--lora-modules", text, dict[str, Any])
        return str(value.get("name", "")), str(value.get("path", ""))
    name, _, path = text.partition("=")
    return name, path
