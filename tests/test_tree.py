"""The layout that makes `./routing` importable as `hekla.routing` everywhere, held by a test."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = sorted(path.name for path in (ROOT / "hekla").iterdir() if path.is_symlink())


def test_every_link_points_at_the_folder_beside_hekla() -> None:
    rooms = {"platform", "deployments", "routing", "autoscale", "agentcube", "kuberay", "simulation"}
    assert set(ROOMS) == rooms
    for room in ROOMS:
        assert (ROOT / "hekla" / room).readlink() == Path("..") / room


def test_hekla_holds_nothing_but_links_and_its_two_files() -> None:
    files = {path.name for path in (ROOT / "hekla").iterdir() if not path.is_symlink()} - {"__pycache__"}
    assert files == {"__init__.py", "py.typed"}


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_has_an_init_file_that_would_shadow_another_package(room: str) -> None:
    assert not (ROOT / room / "__init__.py").exists()


def test_with_the_root_first_on_the_path_platform_is_still_the_standard_librarys() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import platform; print(platform.system())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Linux"


def test_the_wheel_holds_exactly_the_rooms_files(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *ROOMS, "hekla/__init__.py", "hekla/py.typed"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    present = [name for name in tracked if (ROOT / name).is_file()]
    assert names == {name if name.startswith("hekla/") else f"hekla/{name}" for name in present}
