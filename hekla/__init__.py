"""hekla: a serving platform for AI workloads on one Ray cluster.

The code lives in the repository's rooms (``platform/``, ``deployments/``, ``routing/`` …); this
folder holds one relative link to each, so that ``./routing`` is ``hekla.routing`` everywhere.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not (Path(__file__).parent / "platform").is_dir():
    # A tree unpacked from a zip archive has text files where the links were.
    __path__.append(str(Path(__file__).parent.parent))

if TYPE_CHECKING:
    from hekla.platform.sdk import ApiError, AsyncClient, Client

__version__ = "0.1.0"
__all__ = ["ApiError", "AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    # Engines and Ray workers import `hekla` thousands of times: the SDK loads only when asked for.
    if name in __all__:
        return getattr(import_module("hekla.platform.sdk"), name)
    raise AttributeError(f"module 'hekla' has no attribute {name!r}")
