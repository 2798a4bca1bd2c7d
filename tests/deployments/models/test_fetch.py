"""The cache: one download per node and URI, no half models, clear refusals."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from hekla.deployments.models.fetch import cache_folder, destination, fetch
from hekla.deployments.models.source import FetchCancelled, Progress, disk_error
from hekla.platform.base.errors import Permanent, Temporary


def silent(progress: float, detail: str) -> None:
    pass


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """A source that is nothing but a GGUF-less local file, to see refusals without a network."""
    path = tmp_path / "not.gguf"
    path.write_bytes(b"no model")
    return path


def test_a_path_on_the_node_is_used_where_it_is(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    assert fetch(str(model), tmp_path / "cache", {}, silent) == model
    assert fetch(f"file://{model}", tmp_path / "cache", {}, silent) == model
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (
            "ftp://host/model",
            r"unknown scheme 'ftp'; allowed are hf://, ms://, s3://, obs://, gguf://, pvc://, file://",
        ),
        ("/no/such/folder", "there is no /no/such/folder on this node"),
        ("relative/folder", "must be absolute"),
        ("gguf://no_such_package/x.gguf", "no installed package 'no_such_package'.*pip install no-such-package"),
        ("gguf://json/../../x.gguf", "the form is"),
        ("gguf:///no/such.gguf", "there is no file /no/such.gguf"),
        ("s3://", "names no bucket"),
    ],
)
def test_a_uri_that_cannot_work_is_refused_with_the_reason(uri: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=words):
        fetch(uri, tmp_path, {}, silent)


def test_a_file_that_is_no_gguf_is_refused(tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="is no GGUF file"):
        fetch(f"gguf://{tokens}", tmp_path / "cache", {}, silent)


def test_a_claim_is_a_folder_below_the_root(tmp_path: Path) -> None:
    env = {"HEKLA_PVC_ROOT": str(tmp_path)}
    model = tmp_path / "claim" / "models" / "m"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    assert fetch("pvc://claim/models/m", tmp_path, env, silent) == model
    assert cache_folder("pvc://claim", tmp_path, env) == tmp_path / "claim"


@pytest.mark.parametrize("uri", ["pvc://claim/../other", "pvc://../etc", "pvc:///etc", "pvc://claim/link"])
def test_a_path_that_leaves_its_claim_is_refused(uri: str, tmp_path: Path) -> None:
    (tmp_path / "claim").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "claim" / "link").symlink_to(tmp_path / "other")
    with pytest.raises(Permanent, match=r"leaves its claim|names no claim"):
        fetch(uri, tmp_path, {"HEKLA_PVC_ROOT": str(tmp_path)}, silent)


def test_the_cache_a_manifest_names_is_used(tmp_path: Path) -> None:
    assert cache_folder("", tmp_path, {}) == tmp_path
    assert cache_folder("hostpath:///var/models", tmp_path, {}) == Path("/var/models")
    with pytest.raises(Permanent, match="allowed are hostpath:///dir and pvc://claim"):
        cache_folder("nfs://x", tmp_path, {})


def test_another_revision_is_another_folder(tmp_path: Path) -> None:
    plain = destination("hf://a/b", tmp_path, {})
    assert plain.name == hashlib.md5(b"hf://a/b").hexdigest()
    assert destination("hf://a/b", tmp_path, {"HF_REVISION": "v2"}) != plain
    assert destination("s3://a/b", tmp_path, {"HF_REVISION": "v2"}) == destination("s3://a/b", tmp_path, {})


class CountingSource:
    """A source that ships its own gate: it waits inside the download until it is let through."""

    def __init__(self) -> None:
        self.downloads = 0
        self.inside = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, uri: str, into: Path, env: Mapping[str, str], progress: object) -> None:
        self.downloads += 1
        (into / "config.json").write_text("{}")
        self.inside.set()
        assert self.go_on.wait(30)


@pytest.fixture
def counting() -> CountingSource:
    return CountingSource()


def test_two_engines_of_one_node_download_once_and_the_second_reports_that_it_waits(
    counting: CountingSource, tmp_path: Path
) -> None:
    found: list[Path] = []
    told = threading.Event()

    def second_tells(progress: float, detail: str) -> None:
        if "waiting for another engine" in detail:
            told.set()
            counting.go_on.set()

    def run(progress: Progress) -> threading.Thread:
        thread = threading.Thread(
            target=lambda: found.append(fetch("counting://m", tmp_path, {}, progress, sources={"counting": counting}))
        )
        thread.start()
        return thread

    first = run(silent)
    assert counting.inside.wait(30)
    second = run(second_tells)
    first.join(30)
    second.join(30)
    assert told.is_set()
    assert counting.downloads == 1
    assert len(found) == 2
    assert found[0] == found[1]
    assert (found[0] / "config.json").exists()


def test_an_interrupted_download_leaves_no_model_and_is_taken_up_again(
    counting: CountingSource, tmp_path: Path
) -> None:
    counting.go_on.set()
    target = destination("counting://m", tmp_path, {})
    partial = target.with_suffix(".partial")
    partial.mkdir(parents=True)
    (partial / "weights").write_text("half")
    assert not target.exists()
    assert (fetch("counting://m", tmp_path, {}, silent, sources={"counting": counting}) / "weights").exists()
    assert not partial.exists()
    fetch("counting://m", tmp_path, {}, silent, sources={"counting": counting})
    assert counting.downloads == 1


def test_a_folder_without_its_marker_is_not_believed(counting: CountingSource, tmp_path: Path) -> None:
    counting.go_on.set()
    destination("counting://m", tmp_path, {}).mkdir(parents=True)
    fetch("counting://m", tmp_path, {}, silent, sources={"counting": counting})
    assert counting.downloads == 1


def test_waiting_for_another_can_be_cancelled(counting: CountingSource, tmp_path: Path) -> None:
    def cancelled(progress: float, detail: str) -> None:
        raise FetchCancelled("nobody needs it")

    first = threading.Thread(target=lambda: fetch("counting://m", tmp_path, {}, silent, sources={"counting": counting}))
    first.start()
    assert counting.inside.wait(30)
    with pytest.raises(FetchCancelled):
        fetch("counting://m", tmp_path, {}, cancelled, sources={"counting": counting})
    counting.go_on.set()
    first.join(30)


def test_a_full_disk_needs_a_person_and_a_flaky_one_does_not(tmp_path: Path) -> None:
    full = disk_error("hf://a/b", tmp_path / "not" / "there", OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(full, Permanent)
    assert "the disk is full" in str(full)
    assert isinstance(disk_error("hf://a/b", tmp_path, OSError(errno.EIO, os.strerror(errno.EIO))), Temporary)


def test_a_missing_optional_package_is_named_with_its_extra(tmp_path: Path) -> None:
    try:
        import modelscope  # noqa: F401
    except ImportError:
        with pytest.raises(Permanent, match=r'pip install "hekla\[ms\]"'):
            fetch("ms://a/b", tmp_path, {}, silent)
    else:
        pytest.skip("modelscope is installed here")
