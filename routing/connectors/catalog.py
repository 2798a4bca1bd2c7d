"""Connectors by the name `ModelServer.spec.kvConnector.type` uses."""

from __future__ import annotations

from collections.abc import Mapping

from hekla.routing.connectors.interface import Connector
from hekla.routing.connectors.nixl import Nixl
from hekla.routing.connectors.shared_store import SharedStore

CONNECTORS: Mapping[str, Connector] = {
    connector.name: connector
    for connector in (SharedStore("http"), SharedStore("lmcache"), Nixl("nixl"), Nixl("mooncake"))
}
