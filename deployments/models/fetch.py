"""`fetch`: the weights behind a URI as a folder on this node. Downloads happen once per node and URI.

    <cache>/<md5 of the URI>/            a complete model, with MARKER in it
    <cache>/<md5 of the URI>.partial/    a download that is under way or was interrupted; the next one goes on from it
    <cache>/<md5 of the URI>.lock        held while downloading; the others wait

A model appears under its name by one rename, after everything is on disk: there are no half models.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from hekla.deployments.models import gguf, hugging_face, local, model_scope, object_store
from hekla.deployments.models.source import Progress, Source, disk_error
from hekla.platform.base.errors import HeklaError, Permanent

MARKER = ".hekla-model.json"

LOCK_RETRY_S = 1.0
"""How often one who waits for another's download looks again, and reports that it waits."""

SOURCES: dict[str, Source] = {
    "hf": hugging_face.download,
    "ms": model_scope.download,
    "s3": object_store.download,
    "obs": object_store.download,
    "gguf": gguf.convert,
}
REVISIONS = {"hf": "HF_REVISION", "ms": "MS_REVISION"}


def fetch(
    uri: str,
    cache_dir: Path,
    env: Mapping[str, str],
    on_progress: Progress,
    *,
    sources: Mapping[str, Source] = SOURCES,
) -> Path:
    """Blocks until the model is on disk; returns its folder. A complete model in the cache costs no network.

    Raises Permanent (bad URI, no access, disk full), Temporary (not reachable now), or what `on_progress` raises.
    """
    scheme = scheme_of(uri)
    if scheme in ("", "file", "pvc"):
        return local.find(uri, env)
    if scheme not in sources:
        known = ", ".join(f"{name}://" for name in (*sources, "pvc", "file"))
        raise Permanent(f"model URI {uri!r}: unknown scheme {scheme!r}; allowed are {known} and an absolute path")
    target = destination(uri, cache_dir, env)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        return _fetch_into(
            target, functools.partial(sources[scheme], uri, env=env, progress=on_progress), uri, on_progress
        )
    except HeklaError:
        raise
    except OSError as error:
        raise disk_error(uri, cache_dir, error) from error


def scheme_of(uri: str) -> str:
    """`hf` of `hf://org/name`; empty for a path."""
    return uri.partition("://")[0].lower() if "://" in uri else ""


def destination(uri: str, cache_dir: Path, env: Mapping[str, str]) -> Path:
    """`<cache>/<md5 of the URI>`; another revision of the same URI is another folder."""
    revision = env.get(REVISIONS.get(scheme_of(uri), ""), "")
    named = f"{uri}@{revision}" if revision else uri
    return cache_dir / hashlib.md5(named.encode(), usedforsecurity=False).hexdigest()


def cache_folder(cache_uri: str, default: Path, env: Mapping[str, str]) -> Path:
    """The cache that a manifest names: `hostpath:///dir`, `pvc://claim[/path]`, or the node's own. Raises Permanent."""
    if not cache_uri:
        return default.expanduser()
    scheme, _, rest = cache_uri.partition("://")
    if scheme == "hostpath" and rest:
        return Path("/" + rest.lstrip("/"))
    if scheme == "pvc" and rest:
        return local.claim_path(cache_uri, env)
    raise Permanent(f"cacheURI {cache_uri!r}: allowed are hostpath:///dir and pvc://claim")


def is_complete(folder: Path) -> bool:
    return (folder / MARKER).is_file()


def _fetch_into(target: Path, download: Callable[[Path], None], uri: str, on_progress: Progress) -> Path:
    if is_complete(target):
        return target
    with _lock(target, uri, on_progress):
        if not is_complete(target):
            _download(target, download, uri)
            on_progress(1.0, "fetched")
    return target


@contextlib.contextmanager
def _lock(target: Path, uri: str, on_progress: Progress) -> Iterator[None]:
    """Holds the lock; waiting for it reports, so that it can be watched and cancelled."""
    lock = FileLock(target.with_suffix(".lock"))
    while not lock.is_locked:
        try:
            lock.acquire(timeout=LOCK_RETRY_S)
        except Timeout:
            on_progress(0.0, f"waiting for another engine on this node that fetches {uri}")
    try:
        yield
    finally:
        lock.release()


def _download(target: Path, download: Callable[[Path], None], uri: str) -> None:
    partial = target.with_suffix(".partial")
    if target.exists():
        # Made by an earlier tool or cut off between rename and marker: the source checks what is there.
        shutil.rmtree(partial, ignore_errors=True)
        target.rename(partial)
    partial.mkdir(exist_ok=True)
    download(partial)
    files = [path for path in partial.rglob("*") if path.is_file() and ".cache" not in path.parts]
    if not files:
        raise Permanent(f"{uri}: has no files")
    note = {"uri": uri, "files": len(files), "bytes": sum(path.stat().st_size for path in files)}
    (partial / MARKER).write_text(json.dumps(note))
    _sync(partial)
    partial.rename(target)


def _sync(folder: Path) -> None:
    """The marker must not reach the disk before what it vouches for."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
