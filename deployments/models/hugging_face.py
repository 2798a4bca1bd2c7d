"""`hf://org/name`: a model of a Hugging Face hub.

Environment: HF_ENDPOINT (another hub), HF_TOKEN or HF_AUTH_TOKEN, HF_REVISION. When the hub can't be reached and the
machine's own Hugging Face cache has the model, that copy is used.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hekla.deployments.models.source import Progress, not_reachable
from hekla.platform.base.errors import Permanent

IGNORED = ["*.pth", "*.gguf", "original/*", "*.onnx", "*.msgpack", "*.h5", "*.tflite", "coreml/*", "onnx/*"]
"""Other formats of the same weights: no engine here reads them, and they double the download."""


def download(uri: str, into: Path, env: Mapping[str, str], progress: Progress) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    repo = uri.removeprefix("hf://").strip("/")
    revision = env.get("HF_REVISION") or None
    try:
        snapshot_download(
            repo,
            revision=revision,
            local_dir=into,
            endpoint=env.get("HF_ENDPOINT") or None,
            token=env.get("HF_TOKEN") or env.get("HF_AUTH_TOKEN") or None,
            ignore_patterns=IGNORED,
            tqdm_class=_progress_bar(progress),
        )
    except GatedRepoError as error:
        raise Permanent(f"{uri}: is gated; accept its terms on the hub and set HF_TOKEN ({_first(error)})") from error
    except RepositoryNotFoundError as error:
        raise Permanent(f"{uri}: no such model, or HF_TOKEN has no access to it ({_first(error)})") from error
    except RevisionNotFoundError as error:
        raise Permanent(f"{uri}: has no revision {revision!r}; HF_REVISION is a branch, tag or commit") from error
    except HFValidationError as error:
        raise Permanent(f"{uri}: the form is hf://organisation/name ({_first(error)})") from error
    except Exception as error:
        if not _is_unreachable(error):
            raise
        if not _from_machine_cache(repo, revision, into):
            raise not_reachable(uri, error) from error


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _is_unreachable(error: Exception) -> bool:
    """The hub library's connection errors come from two HTTP libraries and itself."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    kinds = (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, httpx.TransportError, ConnectionError)
    return isinstance(error, kinds)


def _from_machine_cache(repo: str, revision: str | None, into: Path) -> bool:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        return False
    if not (found / "config.json").exists():
        return False
    shutil.copytree(found, into, dirs_exist_ok=True, copy_function=_link_or_copy)
    return True


def _link_or_copy(source: str, target: str) -> None:
    """Entries of the hub's cache are links to blobs: a hard link to the blob costs no space."""
    blob = os.path.realpath(source)
    try:
        os.link(blob, target)
    except OSError:
        shutil.copyfile(blob, target)


def _progress_bar(progress: Progress) -> type[Any]:
    """A progress bar class for the hub library that draws nothing and reports."""
    from tqdm.auto import tqdm

    class Reporting(tqdm):  # type: ignore[misc]  # tqdm has no types
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            self._counts_bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **{**kwargs, "disable": False, "file": _Nowhere()})

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if self._counts_bytes and self.total:
                detail = f"{self.n / 2**20:.0f} of {self.total / 2**20:.0f} MiB"
                progress(min(1.0, self.n / self.total), detail)
            return shown

    return Reporting


class _Nowhere:
    """A terminal that isn't there."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass
