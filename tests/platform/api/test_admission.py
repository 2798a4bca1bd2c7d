from __future__ import annotations

import copy
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hekla.platform.api.admission import admit, admit_batch
from hekla.platform.api.meta import Json, Ref
from hekla.platform.base.errors import Invalid

Manifest = Callable[..., Json]
Problems = Callable[..., dict[str, str]]

NAMES = [("booster"), ("pair"), ("serving"), ("server"), ("route")]
MISSING = "<missing>"


def nothing_exists(_ref: Ref) -> bool:
    return False


@pytest.mark.parametrize("name", NAMES)
def test_admitting_twice_changes_nothing(manifest: Manifest, name: str) -> None:
    once = admit(manifest(name))
    assert admit(once, once) == once


@pytest.mark.parametrize("name", NAMES)
def test_the_object_given_is_not_changed(manifest: Manifest, name: str) -> None:
    given_one = manifest(name, {"metadata.labels": {"a": "b"}})
    before = copy.deepcopy(given_one)
    admit(given_one)["metadata"]["labels"]["a"] = "changed"
    assert given_one == before


def test_null_means_unset(manifest: Manifest) -> None:
    changes = {"spec.replicas": None, "spec.recoveryPolicy": None, "metadata.creationTimestamp": None}
    admitted = admit(manifest("serving", changes))
    assert admitted["spec"]["replicas"] == 1
    assert "creationTimestamp" not in admitted["metadata"]


def test_metadata_of_other_clients_is_kept(manifest: Manifest) -> None:
    fields = [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]
    admitted = admit(
        manifest("route", {"metadata.managedFields": fields, "metadata.annotations": {"a.io/b": "any thing"}})
    )
    assert admitted["metadata"] == {
        "name": "chat",
        "namespace": "default",
        "managedFields": fields,
        "annotations": {"a.io/b": "any thing"},
    }


def test_status_is_kept(manifest: Manifest) -> None:
    assert admit(manifest("route", {"status": {"any": ["thing"]}}))["status"] == {"any": ["thing"]}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"kind": MISSING}, "kind", "required; known: "),
    ({"kind": "ModelServng"}, "kind", 'no resource kind "ModelServng"; did you mean "ModelServ'),
    ({"kind": "Toaster"}, "kind", 'no resource kind "Toaster"; known: '),
    ({"kind": 5}, "kind", "required"),
    ({"apiVersion": MISSING}, "apiVersion", 'required; allowed: "networking.serving.volcano.sh/v1alpha1"'),
    ({"apiVersion": "v1"}, "apiVersion", '"v1" has no kind ModelRoute; allowed: "networking.'),
    ({"spec": MISSING}, "spec", "required"),
    ({"spec": []}, "spec", "must be an object, got []"),
    ({"status": 3}, "status", "must be an object, got 3"),
    ({"specs": {}}, "specs", 'unknown field; did you mean "spec"? allowed: apiVersion, kind, metadata, spec, status'),
    ({"metadata": MISSING}, "metadata.name", "required"),
    ({"metadata": "chat"}, "metadata", "must be an object"),
    ({"metadata.name": MISSING}, "metadata.name", "required"),
    ({"metadata.name": 5}, "metadata.name", 'must be text, got 5; quote it: "5"'),
    ({"metadata.name": "Chat"}, "metadata.name", '"Chat" is not a valid name; allowed: lower-case'),
    ({"metadata.name": "chat\n"}, "metadata.name", "is not a valid name"),
    ({"metadata.name": "c" * 254}, "metadata.name", "has 254 characters; allowed: at most 253"),
    ({"metadata.name": "../../etc"}, "metadata.name", "is not a valid name"),
    ({"metadata.namespace": "a.b"}, "metadata.namespace", "is not a valid name"),
    ({"metadata.namespace": "n" * 64}, "metadata.namespace", "allowed: at most 63"),
    ({"metadata.labels": {"-a": "b"}}, "metadata.labels", '"-a" is not a valid name'),
    ({"metadata.labels": {"a/": "b"}}, "metadata.labels", "has no name"),
    ({"metadata.labels": {"A_B/c": "b"}}, "metadata.labels", "the prefix"),
    ({"metadata.labels": {"a": "b" * 64}}, "metadata.labels.a", "allowed: at most 63"),
    ({"metadata.labels": {"a.io/b": "c d"}}, 'metadata.labels["a.io/b"]', "not a valid name"),
    ({"metadata.labels": ["a"]}, "metadata.labels", "must be an object"),
    ({"metadata.annotations": {"a b": ""}}, "metadata.annotations", "not a valid name"),
    ({"metadata.annotations": {"a": "b" * 300_000}}, "metadata.annotations", "allowed: at most 262144"),
    ({"metadata.finalizers": "x"}, "metadata.finalizers", "must be a list"),
    ({"metadata.ownerReferences": [{"kind": "X"}]}, "metadata.ownerReferences[0].uid", "required"),
]


@pytest.mark.parametrize(("changes", "path", "problem"), REFUSED, ids=[f"{case[0]}"[:80] for case in REFUSED])
def test_what_every_object_needs(
    manifest: Manifest, problems: Problems, changes: dict[str, Any], path: str, problem: str
) -> None:
    found = problems(manifest("route", changes))
    assert path in found, found
    assert problem in found[path]


def test_every_problem_is_listed_at_once(manifest: Manifest, problems: Problems) -> None:
    changes = {
        "metadata.name": "Chat",
        "spec.backend.modelURI": MISSING,
        "spec.backend.modelUri": "ftp://x",
        "spec.backend.replicas": "1",
        "spec.backend.env": [{"name": "A", "value": 1}],
        "spec.backend.workers[0].type": "prefill",
    }
    found = problems(manifest("booster", changes))
    assert {
        "metadata.name",
        "spec.backend.modelURI",
        "spec.backend.modelUri",
        "spec.backend.replicas",
        "spec.backend.env[0].value",
    } <= set(found)
    assert found["spec.backend.modelUri"].startswith('unknown field; did you mean "modelURI"? allowed: cacheURI, env,')


def test_rules_across_fields_are_asked_although_a_field_is_misspelt(manifest: Manifest, problems: Problems) -> None:
    template = manifest("serving")["spec"]["template"]
    changes = {"spec.template": MISSING, "spec.tempalte": template, "spec.replicas": "2", "spec.recovery": "None"}
    template["roles"][1]["name"] = "prefill"
    found = problems(manifest("serving", changes))
    assert 'did you mean "template"?' in found["spec.tempalte"]
    assert "allowed: unique names" in found["spec.template.roles[0].name"]


def test_an_object_nested_without_end_is_refused(manifest: Manifest, problems: Problems) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    route = manifest("route")
    route["spec"]["rules"] = deep
    assert problems(route) == {"": "is nested too deeply; allowed: at most 64 levels"}


NOT_JSON: list[tuple[Any, str, str]] = [
    ({8000: "x"}, "spec.backend.workers[0].config", "the key '8000' is not text; quote it: \"8000\""),
    ({True: "x"}, "spec.backend.workers[0].config", 'quote it: "true"'),
    (
        {"a": datetime.date(2026, 1, 2)},
        "spec.backend.workers[0].config.a",
        'is a date, which JSON does not have; quote it: "2026-01-02"',
    ),
    ({"a": [float("nan")]}, "spec.backend.workers[0].config.a[0]", "nan is not a number that JSON has"),
    ({"a": "\ud800"}, "spec.backend.workers[0].config.a", "is not Unicode text"),
    ({"\udfff": 1}, "spec.backend.workers[0].config", "a key is not Unicode text"),
]


@pytest.mark.parametrize(("config", "path", "problem"), NOT_JSON, ids=ascii)
def test_what_json_can_not_keep_is_refused(
    manifest: Manifest, problems: Problems, config: Any, path: str, problem: str
) -> None:
    found = problems(manifest("booster", {"spec.backend.workers[0].config": config}))
    assert list(found) == [path]
    assert problem in found[path]


def test_a_manifest_that_repeats_itself_without_end_is_refused(manifest: Manifest, problems: Problems) -> None:
    bomb: list[Any] = ["x"] * 10
    for _ in range(20):
        bomb = [bomb] * 10  # what YAML aliases make of a few lines
    loop: list[Any] = []
    loop.append(loop)
    for rules, problem in ((bomb, "holds too many values; allowed: at most 200000"), (loop, "is nested too deeply")):
        route = manifest("route")
        route["spec"]["rules"] = rules
        assert problem in problems(route)[""]


@pytest.mark.parametrize("thing", [None, [], "text", 5])
def test_what_is_no_object_is_refused(problems: Problems, thing: Any) -> None:
    assert "must be an object" in problems(thing)[""]


def test_a_refusal_reads_as_lines_with_paths(manifest: Manifest) -> None:
    with pytest.raises(Invalid) as refused:
        admit(manifest("serving", {"spec.replicas": -1, "metadata.namespace": "prod"}))
    assert refused.value.message == (
        "ModelServing prod/chat is invalid:\n  spec.replicas: -1 is too small; allowed: 0 or more"
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
KEYS = [
    "template",
    "roles",
    "entryTemplate",
    "spec",
    "containers",
    "rules",
    "targetModels",
    "backend",
    "workers",
    "config",
]
SPECS = st.recursive(
    JSON, lambda inner: st.dictionaries(st.sampled_from(KEYS), inner) | st.lists(inner, max_size=2), max_leaves=8
)


@given(st.sampled_from(NAMES), SPECS, JSON)
def test_no_json_makes_admission_fail_in_another_way(name: str, spec: Any, meta: Any) -> None:
    versions = {"booster": "ModelBooster", "pair": "ModelBooster", "serving": "ModelServing"}
    group = "workload" if name in versions else "networking"
    kind = versions.get(name, "ModelServer" if name == "server" else "ModelRoute")
    obj = {"apiVersion": f"{group}.serving.volcano.sh/v1alpha1", "kind": kind, "metadata": meta, "spec": spec}
    with pytest.raises(Invalid) as refused:
        admit(obj)
    assert refused.value.causes
    assert "pydantic" not in refused.value.message
    assert "Input should" not in refused.value.message


EXAMPLES = sorted((Path(__file__).resolve().parents[3] / "examples").rglob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_example_is_admitted(path: Path) -> None:
    objs = [obj for obj in yaml.safe_load_all(path.read_text()) if obj]
    assert len(admit_batch(objs, nothing_exists)) == len(objs) > 0


def test_a_batch_may_refer_to_itself_in_any_order(manifest: Manifest) -> None:
    admitted = admit_batch([manifest("route"), manifest("server")], nothing_exists)
    assert [obj["kind"] for obj in admitted] == ["ModelRoute", "ModelServer"]


def test_a_batch_may_refer_to_what_is_stored(manifest: Manifest) -> None:
    stored = Ref("ModelServer", "default", "chat")
    assert len(admit_batch([manifest("route")], lambda ref: ref == stored)) == 1


def test_a_reference_to_nothing_is_refused(manifest: Manifest) -> None:
    with pytest.raises(Invalid) as refused:
        admit_batch([manifest("route"), manifest("server", {"metadata.namespace": "other"})], nothing_exists)
    (cause,) = refused.value.causes
    assert cause.path == "ModelRoute default/chat: spec.rules[0].targetModels[0].modelServerName"
    assert cause.problem == "ModelServer default/chat does not exist, neither here nor in this manifest"


def test_a_batch_names_the_problems_of_every_object(manifest: Manifest) -> None:
    objs = [manifest("route", {"spec.modelName": ""}), manifest("server", {"spec.workloadPort.port": 0})]
    with pytest.raises(Invalid) as refused:
        admit_batch(objs, nothing_exists)
    # The route's reference counts as found: the server is in the batch, if with a mistake.
    assert [cause.path for cause in refused.value.causes] == [
        "ModelRoute default/chat: spec",
        "ModelServer default/chat: spec.workloadPort.port",
    ]


def test_the_same_object_twice_in_a_batch_is_refused(manifest: Manifest) -> None:
    with pytest.raises(Invalid) as refused:
        admit_batch([manifest("server"), manifest("server", {"metadata.namespace": "default"})], nothing_exists)
    assert [cause.path for cause in refused.value.causes] == ["ModelServer default/chat: metadata.name"]
    assert "more than once" in refused.value.causes[0].problem


def test_a_batch_keeps_immutable_fields_too(manifest: Manifest) -> None:
    stored = admit(manifest("route"))
    with pytest.raises(Invalid) as refused:
        admit_batch([manifest("route", {"spec.modelName": "other"})], lambda _ref: True, old=lambda _ref: stored)
    assert [cause.path for cause in refused.value.causes] == ["ModelRoute default/chat: spec.modelName"]


def test_a_batch_with_something_that_is_no_object_is_refused() -> None:
    broken: Any = [None, {"kind": []}, {"metadata": {"name": {}}}]
    with pytest.raises(Invalid) as refused:
        admit_batch(broken, nothing_exists)
    assert refused.value.causes[0].path == "the object"
