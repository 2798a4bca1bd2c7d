"""Settings from the environment and from options, and the file that tells where the platform is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hekla.platform.base.errors import Invalid, Permanent
from hekla.platform.root.settings import ClusterFile, PlatformSettings
from hekla.platform.sdk.address import find_address

CLUSTER = ClusterFile(
    "http://127.0.0.1:9000", "127.0.0.1:6379", "hekla", "abc", "/tmp/ray dir", "http://127.0.0.1:8265"
)


def problems(environ: dict[str, str], **options: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as refused:
        PlatformSettings.read(environ, **options)
    return {cause.path: cause.problem for cause in refused.value.causes}


def test_without_anything_set_the_defaults_hold() -> None:
    assert PlatformSettings.read({}) == PlatformSettings()


def test_a_variable_sets_a_setting_and_an_option_wins_over_it() -> None:
    environ = {"HEKLA_PORT": "9000", "HEKLA_DRAIN_S": "2.5", "HEKLA_LOG_LEVEL": "DEBUG", "OTHER": "x"}
    read = PlatformSettings.read(environ, port=9100, host=None)
    assert (read.port, read.drain_s, read.log_level, read.host) == (9100, 2.5, "DEBUG", "127.0.0.1")


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert PlatformSettings.read({"HEKLA_HOME": "", "HEKLA_PORT": ""}) == PlatformSettings()


def test_every_bad_value_is_named_with_where_it_came_from_and_what_is_allowed() -> None:
    environ = {"HEKLA_PORT": "70000", "HEKLA_DRAIN_S": "nan", "HEKLA_BODY_BYTES_MAX": "lots"}
    assert problems(environ, data_plane="pigeon", home="") == {
        "HEKLA_PORT": "70000 is out of range; allowed is 1 to 65535",
        "HEKLA_DRAIN_S": "nan is out of range; allowed is 0 to 3600",
        "HEKLA_BODY_BYTES_MAX": "'lots' is not a number",
        "--data-plane": "'pigeon' is not allowed; choose one of direct, haproxy",
        "--home": "is empty",
    }


def test_a_home_may_begin_with_a_tilde_and_hold_spaces() -> None:
    assert PlatformSettings(home="~/my models").home_path == Path.home() / "my models"
    assert PlatformSettings(home="~/my models").store_path == Path.home() / "my models" / "store.db"


def test_settings_survive_the_way_to_an_actor() -> None:
    settings = PlatformSettings(home="~/my models", port=9000, drain_s=1.5)
    assert PlatformSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


@pytest.mark.parametrize(("host", "endpoint"), [
    ("127.0.0.1", "http://127.0.0.1:8000"),
    ("0.0.0.0", "http://127.0.0.1:8000"),
    ("::", "http://[::1]:8000"),
    ("::1", "http://[::1]:8000"),
    ("gpu-box", "http://gpu-box:8000"),
])  # fmt: skip
def test_the_endpoint_is_an_address_that_can_be_called(host: str, endpoint: str) -> None:
    assert PlatformSettings(host=host).endpoint == endpoint


def test_the_cluster_file_is_read_as_it_was_written_by_us_and_by_the_sdk(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    assert ClusterFile.read(home) is None
    CLUSTER.write(home)
    assert ClusterFile.read(home) == CLUSTER
    assert find_address(environ={"HEKLA_HOME": str(home)}) == "http://127.0.0.1:9000"
    assert [path.name for path in home.iterdir()] == ["cluster.json"]
    ClusterFile.remove(home)
    ClusterFile.remove(home)
    assert ClusterFile.read(home) is None


NO_FOLDER = '{"endpoint": "x", "ray_address": "y", "ray_namespace": "z", "cluster_id": "abc"}'


@pytest.mark.parametrize("text", ["", "{", "[]", '{"endpoint": "x"}', '{"endpoint": 1, "ray_address": 2}', NO_FOLDER])
def test_a_broken_cluster_file_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(Permanent, match=r"cluster\.json"):
        ClusterFile.read(tmp_path)


def test_a_cluster_file_of_a_later_version_with_more_in_it_can_still_be_read(tmp_path: Path) -> None:
    CLUSTER.write(tmp_path)
    file = tmp_path / "cluster.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"novelty": True}))
    assert ClusterFile.read(tmp_path) == CLUSTER
