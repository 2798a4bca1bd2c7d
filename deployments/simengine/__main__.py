"""`python -m hekla.deployments.simengine --model NAME --port 8000`; `--help` lists the rest."""

from __future__ import annotations

import logging
import os
import sys
import time

import uvicorn

from hekla.deployments.simengine.app import App
from hekla.deployments.simengine.assembly import Engine
from hekla.deployments.simengine.cli import parse
from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SystemIds

CONNECTIONS_BACKLOG = 4096
GRACE_S = 30


def main() -> None:
    settings = parse(sys.argv[1:], os.environ)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    clock = SystemClock()
    time.sleep(settings.startup_s)

    try:
        engine = Engine(settings, clock, SystemIds())
    except ValueError as error:
        sys.exit(f"simengine: {error}")
    config = uvicorn.Config(
        App(engine),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        backlog=CONNECTIONS_BACKLOG,
        timeout_graceful_shutdown=GRACE_S,
    )
    print(f"simengine: {settings.model} on {settings.host}:{settings.port}", flush=True)
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
