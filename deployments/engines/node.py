"""What a supervisor knows of its node: read once from the environment, passed down."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

DEVICE_FILES = ("/dev/nvidiactl", "/dev/davinci_manager", "/dev/kfd", "/dev/dri/renderD128")


def default_run_dir() -> Path:
    """Where nobody names one: in the temporary folder of the machine, one per user."""
    return Path(tempfile.gettempdir()) / f"hekla-run-{os.getuid()}"


@dataclass(frozen=True)
class NodeFacts:
    node_ip: str = "127.0.0.1"
    """Address the engines bind and report."""
    node_name: str = ""
    cache_dir: Path = Path("~/.hekla/models")
    """Where models without a cache URI of their own go."""
    log_dir: Path = Path("~/.hekla/logs")
    run_dir: Path = field(default_factory=default_run_dir)
    """Locks and engines' temporary folders: one per node and cluster, else per node and user; never in a home folder,
    which nodes may share."""
    has_accelerator: bool = False
    cores: tuple[int, ...] = ()
    """CPU cores this process may run on."""
    python: str = sys.executable
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        home = Path(environ.get("HEKLA_HOME") or "~/.hekla").expanduser().absolute()
        cache = environ.get("HEKLA_CACHE")
        return cls(
            node_ip=environ.get("HEKLA_NODE_IP") or "127.0.0.1",
            node_name=environ.get("HEKLA_NODE_NAME") or socket.gethostname(),
            cache_dir=Path(cache).expanduser().absolute() if cache else home / "models",
            log_dir=home / "logs",
            run_dir=Path(environ["HEKLA_RUN_DIR"]).absolute() if environ.get("HEKLA_RUN_DIR") else default_run_dir(),
            has_accelerator=any(Path(name).exists() for name in DEVICE_FILES),
            cores=tuple(sorted(os.sched_getaffinity(0))),
            environ=dict(environ),
        )
