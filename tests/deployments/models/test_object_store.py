"""s3:// and obs:// against a real S3 server (moto's), over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hekla.deployments.models.fetch import fetch
from hekla.deployments.models.source import FetchCancelled
from hekla.platform.base.errors import Permanent, Temporary

boto3 = pytest.importorskip("boto3")
moto_server = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def env(endpoint: str) -> dict[str, str]:
    return {"ENDPOINT": endpoint, "ACCESS_KEY": "key", "SECRET_KEY": "secret"}


@pytest.fixture
def bucket(endpoint: str) -> Iterator[Any]:
    store = boto3.resource(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    bucket = store.create_bucket(Bucket="models")
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()


def silent(progress: float, detail: str) -> None:
    pass


@pytest.mark.parametrize("scheme", ["s3", "obs"])
def test_a_prefix_is_copied_as_a_folder_with_progress(
    scheme: str, bucket: Any, env: dict[str, str], tmp_path: Path
) -> None:
    bucket.put_object(Key="smol/config.json", Body=b"{}")
    bucket.put_object(Key="smol/sub/weights.bin", Body=b"w" * (3 << 20))
    bucket.put_object(Key="smol/sub/", Body=b"")
    bucket.put_object(Key="smollest/other.bin", Body=b"not mine")
    told: list[float] = []
    folder = fetch(f"{scheme}://models/smol", tmp_path, env, lambda progress, _: told.append(progress))
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == [".hekla-model.json", "config.json", "sub/weights.bin"]
    assert (folder / "sub/weights.bin").read_bytes() == b"w" * (3 << 20)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) > 3


def test_a_model_in_the_cache_needs_no_store(bucket: Any, env: dict[str, str], tmp_path: Path) -> None:
    bucket.put_object(Key="m/config.json", Body=b"{}")
    folder = fetch("s3://models/m", tmp_path, env, silent)
    assert fetch("s3://models/m", tmp_path, {"ENDPOINT": "http://127.0.0.1:9"}, silent) == folder


def test_a_cancelled_download_goes_on_where_it_stopped(bucket: Any, env: dict[str, str], tmp_path: Path) -> None:
    bucket.put_object(Key="m/a.bin", Body=b"a" * 100)
    bucket.put_object(Key="m/b.bin", Body=b"b" * 100)
    told: list[float] = []

    def cancel_in_the_second_file(progress: float, detail: str) -> None:
        told.append(progress)
        if progress > 0.5:
            raise FetchCancelled("enough")

    with pytest.raises(FetchCancelled):
        fetch("s3://models/m", tmp_path, env, cancel_in_the_second_file)
    (partial,) = tmp_path.glob("*.partial")
    assert (partial / "a.bin").read_bytes() == b"a" * 100
    assert not (partial / "b.bin").exists()
    first = (partial / "a.bin").stat().st_ino
    folder = fetch("s3://models/m", tmp_path, env, silent)
    assert (folder / "a.bin").stat().st_ino == first, "what was there was not downloaded again"
    assert (folder / "b.bin").read_bytes() == b"b" * 100
    assert not list(folder.glob("*.incomplete"))


@pytest.mark.parametrize(
    ("uri", "words"), [("s3://models/none", "there is no object below"), ("s3://nobucket/x", "NoSuchBucket")]
)
def test_what_is_not_there_is_a_permanent_error(
    uri: str, words: str, bucket: Any, env: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(Permanent, match=words):
        fetch(uri, tmp_path, env, silent)
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and path.suffix != ".partial"]


def test_a_store_that_cannot_be_reached_is_a_temporary_error(tmp_path: Path) -> None:
    env = {"ENDPOINT": "http://127.0.0.1:9", "ACCESS_KEY": "k", "SECRET_KEY": "s"}
    with pytest.raises(Temporary, match="can't be reached now"):
        fetch("s3://models/m", tmp_path, env, silent)


def test_an_object_whose_name_leaves_the_folder_is_refused(bucket: Any, env: dict[str, str], tmp_path: Path) -> None:
    bucket.put_object(Key="m//etc/passwd", Body=b"x")
    with pytest.raises(Permanent, match="leaves the folder"):
        fetch("s3://models/m", tmp_path, env, silent)
