"""Supervises one engine process: fetches its model, starts it, watches it, drains it, and reports.

The class is plain asyncio: it runs inside a Ray actor, a test or a script. What to do is decided in
`engines/lifecycle.py`; this file does it and turns what happens into events.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hekla.deployments.commands import model_to_fetch, plan_process, understood
from hekla.deployments.engines.affinity import bring_back, let_loose
from hekla.deployments.engines.claims import Claims
from hekla.deployments.engines.lifecycle import (
    ENDED,
    Alive,
    Broken,
    Do,
    DrainAsked,
    Event,
    Exited,
    FetchFailed,
    Fetching,
    Healthy,
    Limits,
    Loaded,
    Serves,
    Spawned,
    State,
    StopAsked,
    Unhealthy,
    advance,
)
from hekla.deployments.engines.log_file import LogFile
from hekla.deployments.engines.log_reading import RecentLines, loading_progress
from hekla.deployments.engines.node import NodeFacts
from hekla.deployments.engines.plan import Site, core_threads
from hekla.deployments.engines.probe import EngineProbe, ProbeFailed
from hekla.deployments.engines.process import KeptProcess
from hekla.deployments.launch import EngineLaunch, EngineReport, EngineType
from hekla.deployments.lora.supervised import SupervisedAdapters
from hekla.deployments.models.fetch import SOURCES, cache_folder, fetch
from hekla.deployments.models.source import FetchCancelled, Source
from hekla.platform.base.clock import Clock, SystemClock
from hekla.platform.base.errors import HeklaError, Temporary
from hekla.platform.base.tasks import TaskOwner

logger = logging.getLogger(__name__)

TERM_GRACE_S = 10.0
"""Between SIGTERM to a drained engine and SIGKILL to its tree."""

SPARE_PORTS = 3

STARTUP_PROBE_PERIOD_S = 0.25
"""While loading: short, so that a ready engine is used at once."""

IDLE_PERIOD_S = 0.25
IDLE_READINGS = 2
"""A drained engine counts as idle after this many readings in a row: requests may still be on their way to it."""

WORKER_SETTLED_S: dict[EngineType, float] = {"vLLM": 60.0, "SGLang": 60.0}
"""An engine's worker dies in its first seconds, if it dies: importing takes some 10 s, the weights longer. Others: 5 s."""
WORKER_SETTLED_DEFAULT_S = 5.0

MODELS_EVERY_PROBES = 5
"""How often, in health probes, the list of models is read again: LoRA adapters come and go."""


class EngineSupervisor:
    """See the contract at the end of `hekla/deployments/launch.py`; `tests/contracts/test_supervisor.py` is it in full."""

    def __init__(
        self,
        launch: dict[str, Any],
        node: NodeFacts | None = None,
        clock: Clock | None = None,
        *,
        sources: Mapping[str, Source] = SOURCES,
    ) -> None:
        self._launch = understood(EngineLaunch.model_validate(launch))
        # The one place where the environment is read: an actor has no other way to tell where it runs.
        self._node = node or NodeFacts.read(os.environ)
        self._clock = clock or SystemClock()
        self._sources = sources
        settled_s = WORKER_SETTLED_S.get(self._launch.engine, WORKER_SETTLED_DEFAULT_S)
        self._state = State(Limits(self._launch.startup_timeout_s, self._launch.health_failures_max, settled_s))
        self._version = 1
        self._changed = asyncio.Event()
        self._tasks = TaskOwner(f"supervisor {self._launch.name}")
        self._life: asyncio.Task[None] | None = None
        self._cancelled = threading.Event()
        self._unwanted = asyncio.Event()
        """Set with `_cancelled`, for those who wait in the loop."""
        self._claims = Claims(self._node.run_dir)
        self._log: LogFile | None = None
        self._lines = RecentLines()
        self._process: KeptProcess | None = None
        self._probe: EngineProbe | None = None
        self._adapters = SupervisedAdapters(
            self._launch, self._node, sources, clock=self._clock, tasks=self._tasks, on_change=self._tell_adapters
        )
        self._adapter_changes = 0
        self._told = self._report()
        self._cores: tuple[int, ...] = ()
        self._gone = asyncio.Event()
        """Set when no process is left, or none was ever started."""

    async def start(self) -> None:
        if self._life is None and self._state.phase not in ENDED:
            self._life = self._tasks.spawn(self._live(), "life")

    async def report(self, seen: int, wait_s: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(wait_s):
                while self._version <= seen:
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self._report().model_dump()

    async def drain(self, grace_s: float) -> None:
        self._apply(DrainAsked())
        if self._state.phase == "Draining" and self._process is not None and self._probe is not None:
            await self._wait_until_idle(self._probe, grace_s)
            self._process.terminate()
        await self._ended()

    async def set_adapters(self, owner: str, wanted: list[dict[str, Any]]) -> None:
        self._adapters.ask(owner, wanted)

    async def stop(self) -> None:
        self._apply(StopAsked())
        await self._ended()

    async def logs(self, offset: int, limit: int) -> dict[str, Any]:
        if self._log is None:
            return {"text": "", "next": 0, "size": 0}
        data, following = self._log.read(offset, limit)
        return {"text": data.decode(errors="replace"), "next": following, "size": self._log.size}

    async def _live(self) -> None:
        try:
            await self._bring_up()
        except FetchCancelled:
            pass
        except Exception as error:
            if not isinstance(error, HeklaError | OSError):
                logger.exception("engine %s could not be started", self._launch.name)
            self._apply(Broken(str(error) or type(error).__name__))
        try:
            if self._process is not None:
                await self._accompany(self._process)
        finally:
            self._claims.release()
            self._gone.set()

    async def _bring_up(self) -> None:
        """Fetch, plan, start. Raises what went wrong."""
        model = await self._fetch_model()
        if self._state.phase in ENDED:
            return
        site = self._site(model)
        plan = plan_process(self._launch, site)
        self._log = LogFile(self._log_path())
        self._log.write(f"+ {' '.join(plan.argv)}\n".encode())
        env = {**self._node.environ, **plan.env}
        self._process = await KeptProcess.start(
            plan.argv, env, TERM_GRACE_S, self._log.path.parent, scratch=self._claims.scratch()
        )
        address = f"http://{_in_url(site.node_ip)}:{site.port}"
        self._apply(Spawned(self._process.pid, address, plan.kv_events, plan.kv_replay, plan.bootstrap_port))
        if self._state.phase in ENDED:
            self._process.kill()

    async def _fetch_model(self) -> str:
        uri = model_to_fetch(self._launch)
        if not uri:
            return ""
        loop = asyncio.get_running_loop()
        self._apply(Fetching(0.0, f"fetching {uri}"))

        def tell(progress: float, detail: str) -> None:
            if self._cancelled.is_set():
                raise FetchCancelled(uri)
            loop.call_soon_threadsafe(self._apply, Fetching(progress, detail))

        env = {**self._node.environ, **self._launch.env}
        folder = cache_folder(self._launch.cache_uri, self._node.cache_dir, env)
        attempt = functools.partial(fetch, uri, folder, env, tell, sources=self._sources)
        while True:
            try:
                return str(await asyncio.to_thread(attempt))
            except Temporary as failure:
                self._apply(FetchFailed(str(failure), failure.delay_s))
            await self._pause(self._state.fetch_again_in_s)
            if self._unwanted.is_set():
                raise FetchCancelled(uri)

    async def _pause(self, seconds: float) -> None:
        """Returns after `seconds`, or when the engine is not wanted any more."""
        async with TaskOwner(self._tasks.name) as tasks:
            waits = [tasks.spawn(self._clock.sleep(seconds), "pause"), tasks.spawn(self._unwanted.wait(), "unwanted")]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)

    def _site(self, model: str) -> Site:
        node = self._node
        port, *spare = self._claims.ports(1 + SPARE_PORTS, node.node_ip)
        whole_cores = self._launch.cpus >= 1 and self._launch.engine in ("vLLM", "SGLang") and not node.has_accelerator
        cores = self._claims.cores(core_threads(self._launch), node.cores) if whole_cores else ()
        self._cores = cores
        scratch = str(self._claims.scratch().path)
        return Site(node.node_ip, port, tuple(spare), node.python, model, cores, node.has_accelerator, scratch)

    def _log_path(self) -> Path:
        return self._node.log_dir.expanduser() / self._launch.namespace / f"{self._launch.name}.log"

    async def _accompany(self, process: KeptProcess) -> None:
        """From the process's start to its end."""
        self._probe = EngineProbe(self._state.address, self._launch.health_path, self._launch.health_timeout_s)
        async with TaskOwner(self._tasks.name) as tasks:
            output = tasks.spawn(process.relay_output(self._take_output), "output")
            tasks.spawn(self._watch_health(self._probe), "health")
            ending = await process.wait()
            await asyncio.wait([output], timeout=TERM_GRACE_S)
        await self._adapters.close()
        await self._probe.close()
        words = self._lines.last_words()
        self._apply(Exited(f"the engine {ending}" + (f": {words}" if words else "")))

    def _take_output(self, data: bytes) -> None:
        assert self._log is not None
        self._log.write(data)
        for line in self._lines.feed(data):
            if self._state.phase == "Loading" and (milestone := loading_progress(line)):
                self._apply(Loaded(*milestone))

    async def _watch_health(self, probe: EngineProbe) -> None:
        if self._launch.role == "worker":
            await self._watch_worker()
            return
        rounds = 0
        while self._state.phase not in ENDED:
            try:
                await probe.check_health()
            except ProbeFailed as failure:
                self._apply(Unhealthy(str(failure)))
            else:
                await self._tell_healthy(probe, rounds)
                rounds += 1
            loading = self._state.phase == "Loading"
            await self._clock.sleep(STARTUP_PROBE_PERIOD_S if loading else self._launch.health_period_s)

    async def _watch_worker(self) -> None:
        """Workers of a group serve no HTTP: once it has its weights a worker is healthy while its process lives."""
        while self._state.phase == "Loading":
            self._apply(Alive())
            await self._clock.sleep(STARTUP_PROBE_PERIOD_S)

    async def _tell_healthy(self, probe: EngineProbe, rounds: int) -> None:
        if rounds % MODELS_EVERY_PROBES:
            self._apply(Healthy(self._state.models, self._state.max_model_len))
            return
        await asyncio.to_thread(self._keep_to_cores)
        changes = self._adapter_changes
        served = await probe.served(self._launch.served_model_name)
        # An adapter that went while the list was on its way must not come back with it.
        listed = served.models if changes == self._adapter_changes else self._state.models
        self._apply(Healthy(self._adapters.models(listed), served.max_model_len))
        if self._state.phase == "Ready":
            self._adapters.open(self._state.address)

    def _tell_adapters(self) -> None:
        """Adapters came or went: clients are told at once, not at the next probe."""
        self._adapter_changes += 1
        self._apply(Serves(self._adapters.models(self._state.models)))

    def _keep_to_cores(self) -> None:
        if self._process is None or self._launch.engine != "vLLM" or self._node.has_accelerator:
            return
        if self._cores:
            bring_back(self._process.pid, self._cores)
        else:
            let_loose(self._process.pid, self._node.cores)

    async def _wait_until_idle(self, probe: EngineProbe, grace_s: float) -> None:
        """An engine whose metrics don't tell is asked to end at once: it has its own way of finishing."""
        deadline = self._clock.monotonic() + grace_s
        readings = 0
        while readings < IDLE_READINGS and self._clock.monotonic() < deadline and not self._gone.is_set():
            work = await probe.requests_in_work()
            if work is None:
                return
            readings = 0 if work else readings + 1
            await self._clock.sleep(IDLE_PERIOD_S)

    async def _ended(self) -> None:
        """Returns when nothing of the engine is left."""
        self._give_up_fetch()
        if self._life is not None:
            await self._gone.wait()

    def _give_up_fetch(self) -> None:
        self._cancelled.set()
        self._unwanted.set()

    def _apply(self, event: Event) -> None:
        self._state, todo = advance(self._state, event, self._clock.monotonic())
        if self._state.phase in ENDED:
            self._give_up_fetch()
        if Do.KILL in todo and self._process is not None:
            self._process.kill()
        if self._report() != self._told:
            self._version += 1
            self._told = self._report()
            self._changed.set()
            self._changed = asyncio.Event()

    def _report(self) -> EngineReport:
        state = self._state
        return EngineReport(
            version=self._version,
            phase=state.phase,
            message=state.message,
            progress=state.progress,
            address=state.address,
            node_name=self._node.node_name,
            pid=state.pid,
            supervisor_pid=os.getpid(),
            models=list(state.models),
            max_model_len=state.max_model_len,
            adapters=self._adapters.state,
            adapter_slots=self._adapters.slots,
            kv_events=state.kv_events,
            kv_replay=state.kv_replay,
            bootstrap_port=state.bootstrap_port,
        )

    def __repr__(self) -> str:
        state = self._state
        return f"EngineSupervisor({self._launch.name!r}, {state.phase}, pid={state.pid}, {state.message!r})"


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address
