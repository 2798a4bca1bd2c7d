"""Weights that are on this node already: a path, `file://`, or a mounted claim `pvc://claim/path`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hekla.platform.base.errors import Permanent

PVC_ROOT_DEFAULT = "/mnt/pvc"
"""Where claims are mounted, one folder per claim, unless `HEKLA_PVC_ROOT` says otherwise."""


def find(uri: str, env: Mapping[str, str]) -> Path:
    """The folder (or single file) itself: nothing is copied. Raises Permanent when it isn't there."""
    path = claim_path(uri, env) if uri.startswith("pvc://") else Path(uri.removeprefix("file://")).expanduser()
    if not path.is_absolute():
        raise Permanent(f"model path {uri!r}: must be absolute")
    if not path.exists():
        raise Permanent(f"model path {uri!r}: there is no {path} on this node")
    if path.is_dir() and not any(path.iterdir()):
        raise Permanent(f"model path {uri!r}: {path} is empty")
    return path


def claim_path(uri: str, env: Mapping[str, str]) -> Path:
    """`<HEKLA_PVC_ROOT>/claim/path`; a path that leaves its claim, by `..` or by a link, is refused."""
    root = Path(env.get("HEKLA_PVC_ROOT") or PVC_ROOT_DEFAULT)
    claim, _, inside = uri.removeprefix("pvc://").partition("/")
    if not claim or claim in (".", ".."):
        raise Permanent(f"{uri!r}: names no claim; the form is pvc://claim/path")
    base = (root / claim).resolve()
    path = (base / inside.lstrip("/")).resolve()
    if not path.is_relative_to(base):
        raise Permanent(f"{uri!r}: leaves its claim")
    return path
