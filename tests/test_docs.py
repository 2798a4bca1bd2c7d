"""What a user can set, see or type is documented; these tests keep it so."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from hekla.platform.api.registry import all_kinds
from hekla.platform.root.settings import PlatformSettings

ROOT = Path(__file__).parent.parent
ROOMS = sorted(path.name for path in (ROOT / "hekla").iterdir() if path.is_symlink())


@pytest.mark.parametrize("setting", [spec.name for spec in fields(PlatformSettings)])
def test_every_platform_setting_is_documented_with_its_variable_and_default(setting: str) -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith(f"| `{setting}` |")]
    assert f"`HEKLA_{setting.upper()}`" in row
    default = getattr(PlatformSettings(), setting)
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    assert f"`{shown}`" in row


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_a_readme(room: str) -> None:
    assert len((ROOT / room / "README.md").read_text()) > 200


@pytest.mark.parametrize("kind", sorted(all_kinds()))
def test_every_kind_is_documented(kind: str) -> None:
    assert f"`{kind}`" in (ROOT / "docs" / "kinds.md").read_text()


def prose_of(page: Path) -> str:
    """Without code, where `](` need not be a link's."""
    without_blocks = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(`+)[^\n]*?\1", "", without_blocks)


def test_links_in_the_documentation_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *(ROOT / room / "README.md" for room in ROOMS)]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose_of(page)):
            if not target.startswith(("http://", "https://")):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
