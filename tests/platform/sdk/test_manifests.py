"""Manifests: what is read, and what is refused with file, document and line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from hekla.platform.base.errors import BadRequest, NotFound
from hekla.platform.sdk.manifests import load, load_path, load_text, objects_of

GOOD = "apiVersion: a/v1\nkind: K\nmetadata: {name: one}\n"


def test_several_documents_keep_their_number_and_line() -> None:
    found = load_text(f"# a comment\n---\n---\n{GOOD}---\n{GOOD.replace('one', 'two')}", "m.yaml")
    assert [(m.object["metadata"]["name"], m.document, m.line) for m in found] == [("one", 2, 4), ("two", 3, 8)]


def test_a_list_is_its_items() -> None:
    text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: a/v1, kind: K, metadata: {name: x}}\n" \
           "- {apiVersion: a/v1, kind: K, metadata: {name: y}}\n"  # fmt: skip
    assert [obj["metadata"]["name"] for obj in objects_of(text)] == ["x", "y"]


def test_a_folder_is_read_in_the_order_of_names_and_only_its_manifests(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", "c.json"):
        (tmp_path / name).write_text(
            '{"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "NAME"}}'.replace("NAME", name[0])
        )
    (tmp_path / "notes.txt").write_text("not a manifest")
    assert [m.object["metadata"]["name"] for m in load([str(tmp_path)])] == ["a", "b", "c"]


def test_standard_input_is_a_dash() -> None:
    assert load(["-"], io.StringIO(GOOD))[0].source == "standard input"


def test_dates_stay_text_and_quoted_numbers_too() -> None:
    (obj,) = objects_of(GOOD + "spec: {when: 2026-01-01, at: 2026-01-01T00:00:00Z, cpu: '1', port: 80}\n")
    assert obj["spec"] == {"when": "2026-01-01", "at": "2026-01-01T00:00:00Z", "cpu": "1", "port": 80}


def test_an_alias_repeats_a_value_and_a_merge_key_merges() -> None:
    (obj,) = objects_of(GOOD + "spec: {a: &x {k: 1}, b: *x, c: {<<: *x, l: 2}}\n")
    assert obj["spec"] == {"a": {"k": 1}, "b": {"k": 1}, "c": {"k": 1, "l": 2}}


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "line 1"),
        (f"{GOOD}---\nkind: K\n  bad: indent\n", "document 2, line 6"),
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1: key 'a' comes twice"),
        ("spec:\n  80: x\n", "line 2, column 3: key '80' is not text"),
        ("a: .inf\n", "not a number that JSON knows"),
        ("a: !!python/object:os.system {}\n", "line 1"),
        ("a: &x [*x]\n", "contains itself"),
        (BOMB, "aliases written out"),
        ("[" * 1500, "nested too deeply"),
        ("- 1\n- 2\n", "is a list, must be an object"),
        ("just words\n", "is a str, must be an object"),
        ("kind: K\nmetadata: {name: x}\n", "apiVersion: is None"),
        ("apiVersion: 1\nkind: K\n", "apiVersion: is 1"),
        ("apiVersion: a/v1\nkind: K\n", "metadata.name"),
        ("apiVersion: a/v1\nkind: K\nmetadata: {name: 7}\n", "metadata.name"),
        ("# nothing\n", "holds no object"),
    ],
)
def test_what_is_no_manifest_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        load_text(text, "file.yaml")
    assert str(refused.value).startswith("file.yaml")
    assert said in str(refused.value)


def test_a_file_that_is_not_there_not_text_or_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.yaml: no such file"):
        objects_of("nowhere.yaml")
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadRequest, match="UTF-8"):
        load_path(tmp_path / "x.yaml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadRequest, match="holds no"):
        load_path(tmp_path / "empty")


def test_objects_are_taken_as_they_are() -> None:
    obj = {"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "x"}}
    assert objects_of(obj) == objects_of([obj]) == [obj]
