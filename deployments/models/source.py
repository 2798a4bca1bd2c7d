"""The nouns of fetching: a source of weights, its progress, its failures."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from hekla.platform.base.errors import HeklaError, Permanent, Temporary

Progress = Callable[[float, str], None]
"""Called with 0…1 and what is going on; raising from it ends the fetch."""

RETRY_AFTER_S = 15.0
"""A hub or object store that can't be reached is tried again after this long."""


class FetchCancelled(HeklaError):
    """Nobody needs the model any more."""


class Source(Protocol):
    """Brings the weights behind `uri` into the folder `into`, which may hold the rest of an earlier attempt.

    Raises Permanent (wrong name, no access, disk full) or Temporary (not reachable now).
    """

    def __call__(self, uri: str, into: Path, env: Mapping[str, str], progress: Progress) -> None: ...


def not_reachable(uri: str, error: Exception) -> Temporary:
    return Temporary(f"{uri}: can't be reached now: {error}", RETRY_AFTER_S)


def disk_error(uri: str, folder: Path, error: OSError) -> HeklaError:
    """A full disk and missing rights need a person; other failures of a disk may pass."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free_mib = shutil.disk_usage(_existing(folder)).free / 2**20
        return Permanent(f"{uri}: the disk is full: {folder} has {free_mib:.0f} MiB left")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Permanent(f"{uri}: no right to write to {folder} (user {os.getuid()}): {error}")
    return Temporary(f"{uri}: {error}", RETRY_AFTER_S)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
