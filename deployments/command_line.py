"""Understands the command lines that manifests give engines. Pure.

`python3 -m vllm.entrypoints.openai.api_server --model hf://a/b …` and `vllm serve hf://a/b …` both say: the usual
command, this model, these arguments. What is not understood (a shell script, another program) is kept as it is.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field

from hekla.deployments.engines.flags import is_flag
from hekla.deployments.launch import EngineType

_MODULES: dict[EngineType, str] = {
    "vLLM": "vllm.entrypoints.openai.api_server",
    "SGLang": "sglang.launch_server",
    "Simulated": "hekla.deployments.simengine",
}
_MODEL_FLAGS = ("--model", "--model-path")
_SERVED_FLAGS = ("--served-model-name",)


@dataclass(frozen=True)
class ParsedCommand:
    command: list[str] = field(default_factory=list)
    """Empty: the engine's usual command."""
    args: list[str] = field(default_factory=list)
    model_uri: str = ""
    served_model_name: str = ""
    port: int = 0

    @property
    def all_args(self) -> list[str]:
        return [*self.command, *self.args]


def parse_command(engine: EngineType, command: list[str], args: list[str]) -> ParsedCommand:
    """The command in its parts. A model without a scheme (a hub id) is left for the engine itself to resolve."""
    rest = _arguments_of_usual_command(engine, command, args)
    served = flag_value([*command, *args] if rest is None else rest, _SERVED_FLAGS)
    # Several served names stay in the arguments: the launch has room for one.
    taken = (*_MODEL_FLAGS, *_SERVED_FLAGS) if rest and len(flag_values(rest, _SERVED_FLAGS)) == 1 else _MODEL_FLAGS
    port = _as_port(flag_value([*command, *args] if rest is None else rest, ("--port",)))
    if rest is None:
        return ParsedCommand([*command, *args], [], "", served, port)
    model = flag_value(rest, _MODEL_FLAGS)
    if not is_fetched(model):
        return ParsedCommand([], rest, "", served, port)
    return ParsedCommand([], without_flags(rest, taken), model, served, port)


def is_fetched(model: str) -> bool:
    """True for a model source that hekla brings to the node: a URI or an absolute path."""
    return "://" in model or model.startswith("/")


def _arguments_of_usual_command(engine: EngineType, command: list[str], args: list[str]) -> list[str] | None:
    """The arguments after the engine's usual command; None when the command is something else."""
    if engine == "Command":
        return None
    if not command:
        return args
    words = [*command, *args]
    module = _MODULES[engine]
    if len(words) > 2 and words[1] == "-m" and words[2] == module and "python" in words[0]:
        return words[3:]
    if words[:2] == ["vllm", "serve"] and engine == "vLLM":
        rest = words[2:]
        return ["--model", *rest] if rest and not rest[0].startswith("-") else rest
    return None


def flag_values(args: list[str], names: tuple[str, ...]) -> list[str]:
    """The values of the last of these flags, as `--flag a b` or `--flag=a`; none when absent."""
    found: list[str] = []
    for index, arg in enumerate(args):
        name, has_value, value = arg.partition("=")
        if is_flag(arg) and _canonical(name) in names:
            following = itertools.takewhile(lambda word: not is_flag(word), args[index + 1 :])
            found = [value] if has_value else list(following)
    return found


def flag_value(args: list[str], names: tuple[str, ...]) -> str:
    """The first value of the last of these flags; empty when absent."""
    return next(iter(flag_values(args, names)), "")


def without_flags(args: list[str], names: tuple[str, ...]) -> list[str]:
    """The arguments without these flags and their values (all values of a flag that takes several)."""
    kept: list[str] = []
    skipping = False
    for arg in args:
        name, has_value, _ = arg.partition("=")
        if is_flag(arg):
            skipping = _canonical(name) in names and not has_value
            if _canonical(name) in names:
                continue
        elif skipping:
            continue
        kept.append(arg)
    return kept


def kv_role(args: list[str]) -> str:
    """`kv_role` of a `--kv-transfer-config`; empty when there is none or it is no JSON object."""
    try:
        config = json.loads(flag_value(args, ("--kv-transfer-config",)) or "{}")
    except ValueError:
        return ""
    return str(config.get("kv_role", "")) if isinstance(config, dict) else ""


def _canonical(flag: str) -> str:
    return flag.replace("_", "-")


def _as_port(text: str) -> int:
    return int(text) if text.isdigit() and 0 < int(text) < 65536 else 0
