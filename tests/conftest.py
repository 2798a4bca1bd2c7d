"""Fixtures that more than one suite uses. The Ray cluster is started once, and only when a test asks for it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_worker_register_timeout_seconds": "120",
}
# Ray reads some of them when it is imported, so they are set before any test module is.
os.environ.update(RAY_ENVIRONMENT)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[str]:
    """One local Ray for the whole run, with its own folder and ports; yields its address. Serve may be started on it."""
    import ray

    folder = Path(tempfile.mkdtemp(prefix="hk-"))  # short: Ray puts sockets below it, and their paths are limited
    context = ray.init(
        address="local",
        num_cpus=4,
        num_gpus=2,  # only numbers: Ray hands out device ids without looking for devices
        object_store_memory=100 << 20,
        include_dashboard=False,
        namespace="hekla",
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=str(folder),
    )
    try:
        yield context.address_info["gcs_address"]
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
