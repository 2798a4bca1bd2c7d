"""What `ray start` can't be told on its command line; it calls `without_client_server` because of `RAY_START_HOOK`."""

from __future__ import annotations

from typing import Any


def without_client_server(parameters: Any, _is_head: bool) -> None:
    """Ray otherwise opens a Ray Client server, which hekla does not use, on a fixed port: two clusters would clash."""
    parameters.ray_client_server_port = None
