"""Where the platform is: an argument, else `HEKLA_ADDRESS`, else what `hekla up` wrote down, else this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from hekla.platform.base.errors import BadRequest

DEFAULT_ADDRESS = "http://127.0.0.1:8000"
ADMIN_KEY_FILE = "admin-key"
"""In the home folder, once authentication is on."""


def find_address(base_url: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """The platform's URL without a trailing slash. Raises BadRequest when what is configured isn't an http(s) URL."""
    environ = os.environ if environ is None else environ
    if base_url:
        return _checked(base_url, "base_url")
    if environ.get("HEKLA_ADDRESS"):
        return _checked(environ["HEKLA_ADDRESS"], "HEKLA_ADDRESS")
    home = Path(environ.get("HEKLA_HOME") or "~/.hekla").expanduser()
    recorded = _recorded_endpoint(home / "cluster.json")
    return _checked(recorded, str(home / "cluster.json")) if recorded else DEFAULT_ADDRESS


def find_api_key(base_url: str, environ: Mapping[str, str] | None = None) -> str:
    """The key to show: `HEKLA_API_KEY`, else the admin key that `hekla up` left for its own endpoint, else none (empty).

    The file's key goes to no other endpoint than the one recorded beside it.
    """
    environ = os.environ if environ is None else environ
    if environ.get("HEKLA_API_KEY"):
        return environ["HEKLA_API_KEY"].strip()
    home = Path(environ.get("HEKLA_HOME") or "~/.hekla").expanduser()
    if _recorded_endpoint(home / "cluster.json") != base_url:
        return ""
    try:
        return (home / ADMIN_KEY_FILE).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _recorded_endpoint(file: Path) -> str | None:
    try:
        recorded = json.loads(file.read_text())
    except (OSError, ValueError):
        # No file, or one that `hekla up` is about to replace: the default is as good a guess.
        return None
    endpoint = recorded.get("endpoint") if isinstance(recorded, dict) else None
    return endpoint if isinstance(endpoint, str) else None


def _checked(url: str, source: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise BadRequest(f"{source}: {url!r} is not a URL; write it as http://host:port")
    return url.rstrip("/")
