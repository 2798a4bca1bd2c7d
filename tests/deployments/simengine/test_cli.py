from __future__ import annotations

import pytest

from hekla.deployments.simengine.cli import HOST_VARIABLE, PORT_VARIABLE, parse
from hekla.deployments.simengine.structured import json_text


def test_the_defaults_are_vllms() -> None:
    settings = parse(["--model", "m"], {})
    assert settings.served_names == ("m",)
    assert (settings.max_model_len, settings.max_num_seqs, settings.block_size) == (32_768, 256, 16)
    assert settings.side_channel_port == 5600


def test_the_side_channel_comes_from_vllms_variables() -> None:
    settings = parse(["m"], {HOST_VARIABLE: "10.0.0.1", PORT_VARIABLE: "5601"})
    assert (settings.side_channel_host, settings.side_channel_port) == ("10.0.0.1", 5601)


def test_hardware_decides_how_many_blocks_there_are() -> None:
    settings = parse(["--model", "m", "--hardware", "H100", "--model-shape", "Llama-3-8B"], {})
    assert settings.blocks() == pytest.approx(436_778 / 16, rel=0.01)


def test_flags_of_vllm_that_change_nothing_are_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["--model", "m", "--dtype", "bfloat16", "--enforce-eager"], {}).model == "m"
    assert "--enforce-eager" in capsys.readouterr().out


def test_adapters_come_as_pairs_or_json() -> None:
    settings = parse(["--model", "m", "--enable-lora", "--lora-modules", "a=/a", '{"name": "b", "path": "/b"}'], {})
    assert settings.adapters == (("a", "/a"), ("b", "/b"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model: a name is needed"),
        (["--model", "m", "--block-size", "0"], "--block-size"),
        (["--model", "m", "--error-rate", "2"], "not in [0, 1]"),
        (["--model", "m", "--kv-events-config", "{"], "--kv-events-config"),
        (["--model", "m", "--kv-events-config", '{"endpoit": "x"}'], "endpoit"),
        (["--model", "m", "--kv-transfer-config", '{"kv_load_failure_policy": "x"}'], "not fail or recompute"),
        (["--model", "m", "--hardware", "L4", "--params-b", "70"], "does not fit 1 x L4"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments, {})
    assert message in capsys.readouterr().err


def test_a_recursive_schema_ends() -> None:
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}}
    assert json_text(schema, 1).count("next") <= 32
