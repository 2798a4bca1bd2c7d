"""Every example is admitted as it stands, and its engines can be started."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest

from hekla.deployments.booster.generate import generate
from hekla.deployments.commands import plan_process, understood
from hekla.deployments.engine_reading import Place, read_engine
from hekla.deployments.engines.plan import Site
from hekla.deployments.launch import EngineLaunch
from hekla.deployments.simengine.cli import parse
from hekla.platform.api.admission import admit, admit_batch
from hekla.platform.api.meta import Json
from hekla.platform.sdk.manifests import load

EXAMPLES = Path(__file__).parent.parent / "examples"
FOLDERS = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
SITE = Site(node_ip="127.0.0.1", port=9000, spare_ports=(9001, 9002, 9003), python="python", model="")


def admitted(folder: str) -> list[Json]:
    objects = [manifest.object for manifest in load([str(EXAMPLES / folder)])]
    return admit_batch(objects, exists=lambda _ref: False)


def launches(folder: str) -> dict[str, EngineLaunch]:
    """The engine of each role, as its supervisor would get it."""
    found = {}
    for obj in admitted(folder):
        made = copy.deepcopy(obj)
        made["metadata"]["uid"] = "uid"
        objects = [admit(child) for child in generate(made)] if obj["kind"] == "ModelBooster" else [obj]
        for serving in (one for one in objects if one["kind"] == "ModelServing"):
            for role in serving["spec"]["template"]["roles"]:
                place = Place("default", f"{folder}-0", role["name"], 1, 0)
                found[role["name"]] = understood(read_engine(role["entryTemplate"], place).launch)
    return found


def model_names(folder: str) -> set[str]:
    names = set()
    for obj in admitted(folder):
        if obj["kind"] == "ModelBooster":
            names.add(obj["spec"].get("name") or obj["metadata"]["name"])
        elif obj["kind"] == "ModelRoute":
            names.add(obj["spec"]["modelName"])
    return names


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_example_is_admitted_and_its_readme_asks_for_a_model_that_it_serves(folder: str) -> None:
    (row,) = [line for line in (EXAMPLES / "README.md").read_text().splitlines() if line.startswith(f"| `{folder}` |")]
    asked = re.search(r"`hekla chat ([\w.-]+)`", row)
    assert asked is not None
    assert model_names(folder) == {asked[1]}


def test_no_two_examples_share_an_object_or_a_model_name() -> None:
    objects = [(obj["kind"], obj["metadata"]["name"]) for folder in FOLDERS for obj in admitted(folder)]
    names = [name for folder in FOLDERS for name in model_names(folder)]
    assert len(objects) == len(set(objects))
    assert len(names) == len(set(names))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_examples_engines_can_be_planned(folder: str) -> None:
    for launch in launches(folder).values():
        assert plan_process(launch, SITE).argv[0] == "python"


@pytest.mark.parametrize("folder", ["native", "simulated"])
def test_simulated_examples_need_no_weights_and_their_flags_mean_something(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = launches(folder)
    assert set(found) == {"prefill", "decode"}
    for launch in found.values():
        assert launch.engine == "Simulated"
        settings = parse(plan_process(launch, SITE).argv[3:], {})
        assert settings.kv_connector == "NixlConnector"
        assert settings.timing.time_scale < 1
    assert "ignored" not in capsys.readouterr().out
