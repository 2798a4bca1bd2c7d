"""Connectors by the name `ModelServer.spec.kvConnector.type` uses."""

from __future__ import annotations

from collections.abc import Mapping

from hekla.routing.connectors.interface import Connector
from hekla.routing.connectors.mooncake import Mooncake
from hekla.routing.connectors.nixl import Nixl
from hekla.routing.connectors.sglang import SGLang
from hekla.routing.connectors.shared_store import SharedStore

_ALL: tuple[Connector, ...] = (SharedStore("http"), SharedStore("lmcache"), Nixl(), Mooncake(), SGLang())
CONNECTORS: Mapping[str, Connector] = {connector.name: connector for connector in _ALL}
