"""From settings to a running engine. The only place here that makes a clock, ids or a random source."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from dataclasses import replace

from hekla.deployments.simengine.core import CoreConfig, EngineCore
from hekla.deployments.simengine.events import Event
from hekla.deployments.simengine.handover import Handover
from hekla.deployments.simengine.intake import Intake
from hekla.deployments.simengine.meeting import Bootstrap
from hekla.deployments.simengine.metrics import EngineMetrics
from hekla.deployments.simengine.models import Models
from hekla.deployments.simengine.publisher import KvEventPublisher
from hekla.deployments.simengine.runner import Runner
from hekla.deployments.simengine.scheduler import Limits
from hekla.deployments.simengine.settings import Settings
from hekla.deployments.simengine.sidechannel import SideChannel, TcpPeer
from hekla.deployments.simengine.steps import Scaled, Transfer
from hekla.platform.base.clock import Clock
from hekla.platform.base.ids import Ids
from hekla.platform.base.tasks import TaskOwner


def build_core(settings: Settings, *, engine_id: str = "simengine-0") -> EngineCore:
    """The pure engine of these settings; a simulation needs no more. Raises ValueError for limits that clash."""
    timing = settings.timing
    limits = Limits(
        settings.max_num_seqs,
        settings.max_num_batched_tokens,
        settings.max_model_len,
        settings.max_loras,
        settings.long_prefill_tokens,
    )
    transfer = Transfer(
        settings.kv_bytes_per_token(), settings.transfer_gb_s, settings.transfer_setup_ms, timing.time_scale
    )
    config = CoreConfig(
        settings.model,
        settings.blocks(),
        settings.block_size,
        limits,
        settings.policy,
        settings.prefix_caching,
        settings.mean_output_tokens,
        settings.lease_s,
        transfer,
        settings.kv_load_failure,
        engine_id,
        settings.side_channel_host,
        settings.side_channel_port,
        timing.tensor_parallel,
    )
    return EngineCore(config, Scaled(timing.step_model(), timing.time_scale))


class Engine:
    """The parts of one engine in one event loop. `start` before use, `stop` after."""

    def __init__(self, settings: Settings, clock: Clock, ids: Ids) -> None:
        self.settings = settings
        self.clock = clock
        self.ids = ids
        self.chance = random.Random(settings.seed)
        self.engine_id = settings.engine_id or ids.uid()
        self.core = build_core(settings, engine_id=self.engine_id)
        self.metrics = EngineMetrics(settings.served_names[0], settings.max_model_len)
        self.models = Models(
            settings.model,
            settings.served_names,
            settings.max_model_len,
            int(clock.now()),
            loras_enabled=settings.max_loras > 0,
        )
        for name, path in settings.adapters:
            self.models.load(name, path)
        self._handover = Handover(settings.kv_connector, settings.disaggregation_mode, settings.bootstrap_port)
        self.intake = Intake(self.models, self._draw_seed, self._handover)
        self.publisher: KvEventPublisher | None = None
        self.runner = Runner(self.core, clock, self.metrics, peer=TcpPeer(), publish=self._publish)
        self.started_at = clock.monotonic()
        self._side_channel = SideChannel(self.engine_id, self.runner.collect_lease, clock)
        self._bootstrap = Bootstrap(
            self.engine_id, lambda: (settings.side_channel_host, self.core.config.side_channel_port)
        )
        self._tasks = TaskOwner("simengine")
        self.runner.fault = self._fault()

    def _draw_seed(self) -> int:
        return self.chance.getrandbits(62) + 1

    def _publish(self, events: list[Event]) -> None:
        if self.publisher is not None:
            self.publisher.publish(events)

    def _fault(self) -> Callable[[int], bool] | None:
        """What the runner asks after each step with the tokens generated so far: True stops it for good."""
        faults = self.settings.faults
        if not (faults.die_after_tokens or faults.hang_after_tokens):
            return None

        def struck(generated: int) -> bool:
            if faults.die_after_tokens and generated >= faults.die_after_tokens:
                os.kill(os.getpid(), signal.SIGKILL)
            return bool(faults.hang_after_tokens) and generated >= faults.hang_after_tokens

        return struck

    async def start(self) -> None:
        """Raises OSError or zmq.ZMQError when a port is taken."""
        settings = self.settings
        if self._handover.is_on:
            port = await self._side_channel.start(settings.side_channel_host, settings.side_channel_port)
            self.core.config = replace(self.core.config, side_channel_port=port)
        if self._handover.meets and settings.bootstrap_port:
            await self._bootstrap.start(settings.host, settings.bootstrap_port)
        if settings.kv_events.enable_kv_cache_events:
            self.publisher = KvEventPublisher(settings.kv_events, self.clock)
            self.publisher.serve_replays(self._tasks)
        self._tasks.spawn(self.runner.run(), "runner")

    async def stop(self) -> None:
        await self._tasks.stop()
        await self._side_channel.stop()
        await self._bootstrap.stop()
        if self.publisher is not None:
            self.publisher.close()

    @property
    def is_healthy(self) -> bool:
        limit = self.settings.faults.fail_health_after_s
        return not limit or self.clock.monotonic() - self.started_at < limit
