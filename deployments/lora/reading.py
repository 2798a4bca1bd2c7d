"""From stored objects to the nouns of placement. Pure; the objects have been admitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hekla.deployments.lora.demand import DemandReport
from hekla.deployments.lora.model import Adapter, Host
from hekla.platform.api.kinds.modelserver import ModelServerSpec
from hekla.platform.api.meta import Json, matches_labels

FRESH_S = 60.0
"""A demand report older than this is history: it is what the store kept while this controller was away."""
STALE_S = 3600.0
"""An ingress replica silent for so long is taken off the status."""

HOLDING = ("Fetching", "Loading", "Loaded")


@dataclass(frozen=True)
class Pool:
    """A ModelServer's adapters and the engines that can hold them."""

    owner: str
    adapters: tuple[Adapter, ...]
    hosts: Mapping[str, tuple[Json, ...]]
    """By host: its engines. One engine, or a group's prefill and decode engines."""
    without_lora: tuple[str, ...]
    """Ready engines that run without `--enable-lora`."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(adapter.name for adapter in self.adapters)


@dataclass(frozen=True)
class Told:
    """A demand report with its envelope."""

    replica: str
    report: DemandReport
    at_s: float
    started_s: float


def owner_of(server: Json) -> str:
    return f"{server['metadata'].get('namespace') or 'default'}/{server['metadata']['name']}"


def read_adapters(server: Json) -> tuple[Adapter, ...]:
    spec = ModelServerSpec.model_validate(server["spec"])
    return tuple(
        Adapter(found.name, found.uri, found.pinned, found.replicas_min, found.max_replicas)
        for found in spec.lora_adapters
    )


def is_usable(engine: Json) -> bool:
    """Ready, staying, and the one of its role replica that serves."""
    is_ready = (engine.get("status") or {}).get("phase") == "Ready"
    return is_ready and not engine["metadata"].get("deletionTimestamp") and not engine["spec"].get("index", 0)


def selects(server: Json, engine: Json) -> bool:
    return matches_labels(engine, server["spec"]["workloadSelector"]["matchLabels"])


def read_pool(server: Json, engines: Iterable[Json]) -> Pool:
    """`engines` are those of the namespace."""
    usable = [engine for engine in engines if is_usable(engine) and selects(server, engine)]
    able = [engine for engine in usable if slots_of(engine)]
    without = tuple(name_of(engine) for engine in usable if not slots_of(engine))
    pairing = server["spec"]["workloadSelector"].get("pdGroup")
    hosts: dict[str, list[Json]] = {}
    for engine in able:
        value = _host_of(engine, pairing)
        if value is not None:
            hosts.setdefault(value, []).append(engine)
    return Pool(
        owner_of(server), read_adapters(server), {key: tuple(found) for key, found in sorted(hosts.items())}, without
    )


def _host_of(engine: Json, pairing: Json | None) -> str | None:
    """Engines that may serve one request together hold the same adapters."""
    if not pairing:
        return name_of(engine)
    if pairing.get("scope") == "pool":
        return "pool"
    value = (engine["metadata"].get("labels") or {}).get(pairing.get("groupKey"))
    return None if value is None else str(value)


def name_of(engine: Json) -> str:
    return str(engine["metadata"]["name"])


def slots_of(engine: Json) -> int:
    return int((engine.get("status") or {}).get("adapterSlots") or 0)


def adapters_on(engine: Json) -> Mapping[str, Json]:
    """By name: what the engine's status says of its adapters."""
    return {found["name"]: found for found in (engine.get("status") or {}).get("adapters") or ()}


def read_host(
    key: str, engines: Sequence[Json], owner: str, since: Mapping[str, float], failed: frozenset[str]
) -> Host:
    """`since`: when each adapter was first seen there; an adapter is held where any of the host's engines has it."""
    held: dict[str, float] = {}
    room = []
    for engine in engines:
        found = adapters_on(engine)
        others = sum(1 for one in found.values() if one.get("owner") not in (owner, "") and one["state"] in HOLDING)
        room.append(max(0, slots_of(engine) - others))
        for name, one in found.items():
            if one["state"] in HOLDING and one.get("owner") == owner:
                held[name] = since.get(name, 0.0)
    return Host(key, min(room, default=0), held, failed)


def read_reports(server: Json) -> list[Told]:
    """What ingress replicas have written into the status; what is no report is passed over."""
    found = []
    for replica, told in ((server.get("status") or {}).get("loraDemand") or {}).items():
        try:
            counts = {str(name): int(count) for name, count in told["counts"].items()}
            report = DemandReport(counts, tuple(map(str, told.get("waiting") or ())))
            found.append(Told(str(replica), report, float(told["at"]), float(told.get("startedAt") or 0)))
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return found
