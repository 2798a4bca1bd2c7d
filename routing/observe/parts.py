"""The parts of one ingress replica that can be looked into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hekla.routing.admission.gate import Gate
from hekla.routing.config import RoutingSettings
from hekla.routing.limits.service import RateLimits
from hekla.routing.load import LoadBook
from hekla.routing.prefix.service import PrefixService
from hekla.routing.scheduling.service import SchedulingService
from hekla.routing.table import RoutingTable
from hekla.routing.traffic.guard import Traffic


@dataclass(frozen=True)
class Parts:
    """Of one ingress replica."""

    settings: Callable[[], RoutingSettings]
    table: Callable[[], RoutingTable]
    loads: LoadBook
    scheduling: SchedulingService
    traffic: Traffic
    prefix: PrefixService
    gate: Gate
    limits: RateLimits
    awaiting_restart: Callable[[], tuple[str, ...]]
