"""Every plugin, argument and old name is in docs/scheduling.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from hekla.routing.scheduling.catalog import FILTERS, SCORERS
from hekla.routing.scheduling.peer_config import OLD_ARGUMENTS, OLD_FILTERS, OLD_SCORERS

PAGE = (Path(__file__).parents[3] / "docs" / "scheduling.md").read_text()
NAMES = {
    *FILTERS, *SCORERS, *OLD_FILTERS, *OLD_SCORERS,
    *(argument for old in OLD_ARGUMENTS.values() for argument in old),
    *(argument for table in (FILTERS, SCORERS) for plugin in table.values() for argument in plugin.arguments),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_a_configuration_may_have_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE
