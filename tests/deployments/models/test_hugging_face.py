"""hf:// against a small hub on this machine that speaks the hub's HTTP API."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hekla.deployments.models.fetch import fetch
from hekla.platform.base.errors import Permanent, Temporary

COMMIT = "1" * 40
FILES = {"config.json": b"{}", "model.safetensors": b"w" * (2 << 20), "pytorch_model.gguf": b"other format"}


class Hub(http.server.BaseHTTPRequestHandler):
    """`org/name` with FILES; `org/gated` is gated; everything else is unknown. A token is needed for `org/private`."""

    protocol_version = "HTTP/1.1"
    downloads: list[str]

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        if "org/gated" in path:
            return self.send(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "ask first"})
        if "org/private" in path and self.headers.get("Authorization") != "Bearer good":
            return self.send(401, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no such repo"})
        if not any(name in path for name in ("org/name", "org/private")):
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no such repo"})
        if "no-such-branch" in path:
            return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "no such revision"})
        if "/resolve/" in path:
            return self.send_file(path.rpartition("/")[2])
        if "/tree/" in path:
            return self.send(200, json.dumps([entry(name) for name in FILES]).encode(), {})
        return self.send(200, json.dumps(info()).encode(), {})

    def send_file(self, name: str) -> None:
        if self.command == "GET":
            type(self).downloads.append(name)
        etag = f'"{hashlib.sha1(FILES[name]).hexdigest()}"'
        self.send(200, FILES[name], {"ETag": etag, "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"})

    def send(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def entry(name: str) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(FILES[name]), "oid": hashlib.sha1(FILES[name]).hexdigest()}


def info() -> dict[str, object]:
    siblings = [{"rfilename": name, "size": len(body)} for name, body in FILES.items()]
    return {"id": "org/name", "modelId": "org/name", "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}


@pytest.fixture
def endpoint() -> Iterator[str]:
    Hub.downloads = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def silent(progress: float, detail: str) -> None:
    pass


def test_a_model_is_downloaded_with_progress_and_without_other_formats(endpoint: str, tmp_path: Path) -> None:
    told: list[float] = []
    folder = fetch("hf://org/name", tmp_path, {"HF_ENDPOINT": endpoint}, lambda progress, _: told.append(progress))
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert (folder / "config.json").exists()
    assert not (folder / "pytorch_model.gguf").exists()
    assert told
    assert told[-1] == 1.0


def test_a_cached_model_needs_no_hub(endpoint: str, tmp_path: Path) -> None:
    folder = fetch("hf://org/name", tmp_path, {"HF_ENDPOINT": endpoint}, silent)
    downloads = list(Hub.downloads)
    assert fetch("hf://org/name", tmp_path, {"HF_ENDPOINT": "http://127.0.0.1:9"}, silent) == folder
    assert Hub.downloads == downloads


@pytest.mark.parametrize("name", ["HF_TOKEN", "HF_AUTH_TOKEN"])
def test_a_private_model_needs_its_token(name: str, endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="no such model, or HF_TOKEN has no access"):
        fetch("hf://org/private", tmp_path, {"HF_ENDPOINT": endpoint, name: "bad"}, silent)
    assert (
        fetch("hf://org/private", tmp_path, {"HF_ENDPOINT": endpoint, name: "good"}, silent) / "config.json"
    ).exists()


@pytest.mark.parametrize(
    ("uri", "env", "words"),
    [
        ("hf://org/gated", {}, "is gated"),
        ("hf://org/none", {}, "no such model"),
        ("hf://org/name", {"HF_REVISION": "no-such-branch"}, "has no revision 'no-such-branch'"),
        ("hf://a/b/c/d", {}, "the form is hf://organisation/name"),
    ],
)
def test_what_the_hub_refuses_is_a_permanent_error(
    uri: str, env: dict[str, str], words: str, endpoint: str, tmp_path: Path
) -> None:
    with pytest.raises(Permanent, match=words):
        fetch(uri, tmp_path, {**env, "HF_ENDPOINT": endpoint}, silent)


def test_a_hub_that_cannot_be_reached_is_a_temporary_error(tmp_path: Path) -> None:
    with pytest.raises(Temporary, match="can't be reached now"):
        fetch("hf://org/unknown-here", tmp_path, {"HF_ENDPOINT": "http://127.0.0.1:9"}, silent)
