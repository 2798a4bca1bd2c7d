"""Serve's HAProxy finds its sockets where hekla puts them."""

from __future__ import annotations

from pathlib import Path

from hekla.platform.root.ray_processes import haproxy_environment

SERVE_ADDS = "/" + 56 * "f"
SOCKET_PATH_CHARS_MAX = 97


def test_socket_paths_fit_and_lie_in_the_clusters_folder() -> None:
    temp_dir = Path("/tmp/hekla-0123abcd-abcdefgh")
    found = haproxy_environment(temp_dir)
    for name in ("SOCKET_PATH", "METRICS_SOCKET_PATH"):
        path = found[f"RAY_SERVE_HAPROXY_{name}"]
        assert path.startswith(f"{temp_dir}/")
        assert len(path) + len(SERVE_ADDS) <= SOCKET_PATH_CHARS_MAX


def test_side_ports_differ() -> None:
    found = haproxy_environment(Path("/tmp/x"))
    assert found["RAY_SERVE_HAPROXY_METRICS_PORT"] != found["RAY_SERVE_HAPROXY_STATS_PORT"]
