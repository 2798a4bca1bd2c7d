"""`ms://org/name`: a model of ModelScope. Needs the optional package: `pip install "hekla[ms]"`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hekla.deployments.models.source import Progress, not_reachable
from hekla.platform.base.errors import Permanent


def download(uri: str, into: Path, env: Mapping[str, str], progress: Progress) -> None:
    try:
        from modelscope.hub.api import HubApi
        from modelscope.hub.snapshot_download import snapshot_download
    except ImportError:
        raise Permanent(f'{uri}: needs the package modelscope: pip install "hekla[ms]"') from None
    model = uri.removeprefix("ms://").strip("/")
    progress(0.0, f"downloading {model}")
    try:
        if token := env.get("MS_TOKEN"):
            HubApi().login(token)
        snapshot_download(model, revision=env.get("MS_REVISION") or None, local_dir=str(into))
    except ValueError as error:
        raise Permanent(f"{uri}: {error}") from error
    except OSError as error:
        # Its HTTP errors are OSErrors too.
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if status in (401, 403, 404):
            raise Permanent(f"{uri}: answered {status}: wrong name, or MS_TOKEN has no access") from error
        raise not_reachable(uri, error) from error
