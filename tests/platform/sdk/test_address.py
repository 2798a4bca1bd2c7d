from __future__ import annotations

from pathlib import Path

import pytest

from hekla.platform.base.errors import BadRequest
from hekla.platform.sdk.address import DEFAULT_ADDRESS, find_address


def test_the_argument_wins_then_the_variable_then_the_file_then_the_default(tmp_path: Path) -> None:
    home = {"HEKLA_HOME": str(tmp_path)}
    assert find_address(None, home) == DEFAULT_ADDRESS
    (tmp_path / "cluster.json").write_text('{"endpoint": "http://file:1"}')
    assert find_address(None, home) == "http://file:1"
    assert find_address(None, {**home, "HEKLA_ADDRESS": "http://variable:2/"}) == "http://variable:2"
    assert find_address("https://argument:3", {**home, "HEKLA_ADDRESS": "http://variable:2"}) == "https://argument:3"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"endpoint": 7}'])
def test_a_file_that_says_nothing_useful_is_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "cluster.json").write_text(content)
    assert find_address(None, {"HEKLA_HOME": str(tmp_path)}) == DEFAULT_ADDRESS


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://x", "http://"])
def test_what_is_no_url_is_refused_with_where_it_was_written(address: str) -> None:
    with pytest.raises(BadRequest, match="HEKLA_ADDRESS"):
        find_address(None, {"HEKLA_ADDRESS": address})
