"""Every condition, reason, event, label, annotation and variable in the code is in docs/deployments.md."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from hekla.deployments import naming
from hekla.deployments.booster import controller as booster_controller
from hekla.deployments.booster import status as booster_status
from hekla.deployments.serving import announcements, placing
from hekla.deployments.serving import status as serving_status
from hekla.deployments.serving.retirement import ROUTER_NOTICE_S

PAGE = (Path(__file__).parents[2] / "docs" / "deployments.md").read_text()
MODULES: list[tuple[ModuleType, tuple[str, ...]]] = [
    (booster_status, ("CONDITION_", "REASON_")),
    (serving_status, ("CONDITION_", "REASON_")),
    (booster_controller, ("EVENT_",)),
    (announcements, ("EVENT_",)),
    (naming, ("LABEL_", "ANNOTATION_", "FINALIZER_")),
    (placing, ("NODE_IP_", "NODE_NAME_")),
]
NAMES = sorted({vars(module)[name] for module, starts in MODULES for name in vars(module) if name.startswith(starts)})


@pytest.mark.parametrize("name", NAMES)
def test_every_name_a_user_can_see_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_the_names_were_found() -> None:
    assert len(NAMES) > 40


def test_the_times_in_the_page_are_those_in_the_code() -> None:
    assert f"{placing.PLACE_TIMEOUT_S:g} s for all of them" in PAGE
    assert f"{placing.PLACE_RETRY_S:g} s after the cluster" in PAGE
    assert f"| {ROUTER_NOTICE_S:g} s, so that" in PAGE
