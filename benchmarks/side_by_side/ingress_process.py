"""Program: hekla's ingress in a process of its own, with the objects it is given instead of a platform's.

Its one argument is JSON: `{"host", "port", "settings": {RoutingSettings field: {field: value}}, "objects": [resource]}`.
Everything else is the product as it is: uvloop and the product's listener, as in an ingress replica.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import fields
from typing import Any, get_type_hints

import uvloop

from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SystemIds
from hekla.routing.app import build_ingress
from hekla.routing.config import AccessLogSettings, GossipSettings, RoutingSettings
from hekla.routing.process_memory import collect_seldom, return_large_blocks
from hekla.routing.server import serve
from hekla.routing.source import FakeObjectSource


async def main(job: dict[str, Any]) -> None:
    return_large_blocks()
    ingress = build_ingress(
        settings_of(job["settings"]), FakeObjectSource(*job["objects"]), clock=SystemClock(), ids=SystemIds()
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await ingress.start()
    await ingress.keeper.wait_synced()
    collect_seldom()
    listener = await serve(ingress.app, job["host"], job["port"])
    await stop.wait()
    await listener.stop()
    await ingress.stop()


def settings_of(wanted: dict[str, dict[str, Any]]) -> RoutingSettings:
    """The product's defaults, but quiet and for itself alone, and `wanted`. Raises TypeError on unknown names."""
    parts: dict[str, Any] = {
        "access_log": AccessLogSettings(enabled=False),
        "gossip": GossipSettings(host="127.0.0.1"),
    }
    hints = get_type_hints(RoutingSettings)
    for name, values in wanted.items():
        if name not in {field.name for field in fields(RoutingSettings)}:
            raise TypeError(f"RoutingSettings has no {name!r}")
        parts[name] = hints[name](**{key: _frozen(value) for key, value in values.items()})
    return RoutingSettings(**parts)


def _frozen(value: Any) -> Any:
    """JSON's lists as the tuples that settings are made of."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.argv[1])))
