"""One long poll per live engine: what its supervisor reports becomes the Engine's status."""

from __future__ import annotations

import logging
from functools import partial

from hekla.deployments.engine_status import failed, reported
from hekla.deployments.naming import actor_name
from hekla.deployments.serving.engine_store import EngineStore
from hekla.platform.api.meta import Json
from hekla.platform.base.clock import Clock, rfc3339
from hekla.platform.base.errors import HeklaError, Unavailable
from hekla.platform.base.tasks import TaskOwner
from hekla.platform.cluster.interface import ActorGone, Cluster

logger = logging.getLogger(__name__)

REPORT_WAIT_S = 20.0
"""How long one poll stays open when there is no news."""
REPORT_SLACK_S = 10.0
"""A supervisor that is this late with its answer does not answer."""
START_WAIT_S = 120.0
"""A Ray worker on a busy node takes long to come up; the engine itself has its own time."""
SILENT_POLLS_MAX = 3
"""Unanswered polls in a row after which the supervisor is taken for hung."""
SILENT_PAUSE_S = 1.0
PROGRESS_PERIOD_S = 0.25
"""Progress within one phase is written no more often than this: each write wakes everyone who watches."""


class EngineWatch:
    """Watches engines by actor name, so a restarted engine is watched anew and an old watch writes nothing."""

    def __init__(self, engines: EngineStore, cluster: Cluster, clock: Clock) -> None:
        self._engines = engines
        self._cluster = cluster
        self._clock = clock
        self._tasks = TaskOwner("engine-watch")
        self._watched: set[str] = set()

    def ensure(self, engine: Json) -> None:
        """Begin to watch, unless it is watched already. `start` is idempotent, so re-adoption starts nothing anew."""
        actor = actor_name(engine)
        if actor not in self._watched:
            self._watched.add(actor)
            self._tasks.spawn(self._watch(engine, actor), actor)

    async def stop(self) -> None:
        await self._tasks.stop()

    async def _watch(self, engine: Json, actor: str) -> None:
        try:
            await self._cluster.call(actor, "start", timeout_s=START_WAIT_S)
            await self._poll(engine, actor)
        except ActorGone as error:
            self._fail(engine, actor, str(error))
        except HeklaError as error:
            self._fail(engine, actor, f"its supervisor does not answer: {error}")
        except Exception as error:
            logger.exception("watch of %s failed", actor)
            self._fail(engine, actor, f"its supervisor failed: {type(error).__name__}: {error}")
        finally:
            self._watched.discard(actor)

    async def _poll(self, engine: Json, actor: str) -> None:
        seen, silent, phase = -1, 0, ""
        while self._is_current(engine, actor):
            try:
                report = await self._cluster.call(
                    actor, "report", seen, REPORT_WAIT_S, timeout_s=REPORT_WAIT_S + REPORT_SLACK_S
                )
            except Unavailable:
                silent += 1
                if silent >= SILENT_POLLS_MAX:
                    raise
                await self._clock.sleep(SILENT_PAUSE_S)
                continue
            silent, seen = 0, report["version"]
            if self._is_current(engine, actor):
                self._engines.set_status(engine, partial(self._reported, report))
            if report["phase"] in ("Stopped", "Failed"):
                return
            if report["phase"] == phase:
                await self._clock.sleep(PROGRESS_PERIOD_S)
            phase = report["phase"]

    def _reported(self, report: Json, old: Json) -> Json:
        return reported(old, report, self._now())

    def _is_current(self, engine: Json, actor: str) -> bool:
        found = self._engines.again(engine)
        return found is not None and actor_name(found) == actor

    def _fail(self, engine: Json, actor: str, reason: str) -> None:
        found = self._engines.again(engine)
        # An engine that is being stopped loses its actor on purpose.
        if found is not None and actor_name(found) == actor and not found["metadata"].get("deletionTimestamp"):
            self._engines.set_status(engine, lambda old: failed(old, reason, self._now()))

    def _now(self) -> str:
        return rfc3339(self._clock.now())

    def __repr__(self) -> str:
        return f"EngineWatch({len(self._watched)} engines)"
