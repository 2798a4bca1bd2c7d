"""The shell around one controller's mailboxes: events in, reconciles out, times kept."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from hekla.platform.api.meta import Json, Ref, ref_of
from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import Conflict, Gone, Permanent, Temporary
from hekla.platform.base.ids import Ids
from hekla.platform.base.tasks import TaskOwner
from hekla.platform.control.interface import Controller
from hekla.platform.control.mailboxes import Cause, Failed, Mailboxes, Outcome, Refused, Succeeded
from hekla.platform.store.interface import Store, Watch, WatchEvent

logger = logging.getLogger(__name__)

STUCK_AFTER_S = 300.0
"""A reconcile that runs longer is named in the log: it holds one of its controller's workers."""

TROUBLES_SHOWN_MAX = 20
"""Keys whose last error a snapshot names."""


@dataclass(frozen=True)
class ControllerStats:
    """What one controller did since its start, and where it stands."""

    reconciles: int
    errors: int
    retries: int
    """Reconciles that followed a failure of the same key."""
    relists: int
    depth: int
    """Keys that wait for a worker."""
    running: int
    failing: int
    parked: int
    """Keys that wait for their object to change."""
    troubles: dict[str, str] = field(default_factory=dict)
    """The last error of some keys that are failing or parked."""


class Pump:
    """Runs one controller. `notify` is called after every step, for those who wait until nothing is left to do."""

    def __init__(
        self, controller: Controller, store: Store, clock: Clock, ids: Ids, *, workers: int, notify: Callable[[], None]
    ) -> None:
        self._controller = controller
        self._store = store
        self._clock = clock
        self._workers = workers
        self._notify = notify
        self._mail = Mailboxes(ids.random)
        self._tasks = TaskOwner(controller.name)
        self._watch: Watch | None = None
        self._wanted: dict[Ref, int] = {}  # what each object asked for when last seen
        self._started: dict[Ref, float] = {}
        self._timer: tuple[float, asyncio.Task[None]] | None = None
        self._watchdog: asyncio.Task[None] | None = None
        self._troubles: dict[Ref, str] = {}
        self._reconciles = self._errors = self._retries = self._relists = 0
        self._is_stopping = False

    @property
    def is_idle(self) -> bool:
        """No event is unread, no key ready or running; times may be set."""
        return self._mail.is_idle and (self._watch is None or self._watch.pending == 0)

    def start(self) -> None:
        self._subscribe()
        self._tasks.spawn(self._follow(), "watch")
        self._dispatch()

    async def stop(self) -> None:
        """Cancel what runs and wait for it."""
        self._is_stopping = True
        await self._tasks.stop()
        if self._watch is not None:
            await self._watch.aclose()

    def stats(self) -> ControllerStats:
        return ControllerStats(
            reconciles=self._reconciles,
            errors=self._errors,
            retries=self._retries,
            relists=self._relists,
            depth=self._mail.depth,
            running=self._mail.running,
            failing=self._mail.failing,
            parked=self._mail.parked,
            troubles={str(key): text for key, text in sorted(self._troubles.items())[:TROUBLES_SHOWN_MAX]},
        )

    # Events in

    def _subscribe(self) -> None:
        """List and watch from there. Every object listed is woken, and every one that is missing now."""
        controller = self._controller
        listing = self._store.list(controller.kind)
        self._watch = self._store.watch((controller.kind, *controller.watches), listing.resource_version)
        for key in self._wanted.keys() - {ref_of(obj) for obj in listing.items}:
            self._forget(key)
        for obj in listing.items:
            self._observe(obj)
        for kind in controller.watches:
            for obj in self._store.list(kind).items:
                self._relate(obj)

    async def _follow(self) -> None:
        while self._watch is not None:
            try:
                async for event in self._watch:
                    self._take_in(event)
                    self._dispatch()
                return
            except Gone as gone:
                logger.warning("controller %s: %s", self._controller.name, gone)
                self._relists += 1
                self._subscribe()
                self._dispatch()

    def _take_in(self, event: WatchEvent) -> None:
        if event.type == "BOOKMARK":
            return
        obj = event.object
        if obj["kind"] == self._controller.kind:
            if event.type == "DELETED":
                self._forget(ref_of(obj))
            else:
                self._observe(obj)
        if obj["kind"] in self._controller.watches:
            self._relate(obj)

    def _observe(self, obj: Json) -> None:
        key, wanted = ref_of(obj), _wanted(obj)
        cause = Cause.OBSERVED if self._wanted.get(key) == wanted else Cause.CHANGED
        self._wanted[key] = wanted
        self._mail.wake(key, cause)

    def _forget(self, key: Ref) -> None:
        self._wanted.pop(key, None)
        self._mail.wake(key, Cause.CHANGED)

    def _relate(self, obj: Json) -> None:
        try:
            for key in self._controller.keys_for(obj):
                self._mail.wake(key, Cause.RELATED)
        except Exception:
            self._errors += 1
            logger.exception("controller %s: keys_for(%s) failed", self._controller.name, ref_of(obj))

    # Reconciles out

    def _dispatch(self) -> None:
        """Start what is ready as far as there are workers, and set the timer for what comes later."""
        while not self._is_stopping and self._mail.running < self._workers and (key := self._mail.take()) is not None:
            self._started[key] = self._clock.monotonic()
            self._tasks.spawn(self._reconcile(key), str(key))
        if not self._is_stopping:
            self._arm_timer()
            self._arm_watchdog()
        self._notify()

    async def _reconcile(self, key: Ref) -> None:
        self._reconciles += 1
        self._retries += key in self._troubles
        outcome = await self._attempt(key)
        ran_s = self._clock.monotonic() - self._started.pop(key)
        if ran_s >= STUCK_AFTER_S:
            logger.warning("controller %s: the reconcile of %s ended after %.0f s", self._controller.name, key, ran_s)
        self._mail.done(key, outcome, self._clock.monotonic())
        self._dispatch()

    async def _attempt(self, key: Ref) -> Outcome:
        try:
            again = await self._controller.reconcile(key)
        except Temporary as error:
            return self._failed(key, error, Failed(error.delay_s))
        except Conflict as error:
            return self._failed(key, error, Failed())  # someone else wrote first: read anew
        except Permanent as error:
            return self._failed(key, error, Refused())
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._failed(key, error, Failed())  # something it waited for was cancelled, not the reconcile
        except Exception as error:
            logger.exception("controller %s: the reconcile of %s failed", self._controller.name, key)
            return self._failed(key, error, Failed())
        self._troubles.pop(key, None)
        return Succeeded(None if again is None else again.after_s)

    def _failed(self, key: Ref, error: BaseException, outcome: Outcome) -> Outcome:
        self._errors += 1
        text = f"{type(error).__name__}: {error}"
        if self._troubles.get(key) != text:
            logger.info("controller %s: %s: %s", self._controller.name, key, text)
        self._troubles[key] = text
        return outcome

    # Times

    def _arm_timer(self) -> None:
        due_s = self._mail.next_due_s()
        if due_s is None or (self._timer is not None and self._timer[0] <= due_s):
            return
        if self._timer is not None:
            self._timer[1].cancel()
        self._timer = (due_s, self._tasks.spawn(self._wake_at(due_s), "timer"))

    async def _wake_at(self, due_s: float) -> None:
        await self._clock.sleep(due_s - self._clock.monotonic())
        self._timer = None
        # A clock may wake us a rounding error early; what it was set for is due all the same.
        self._mail.wake_due(max(due_s, self._clock.monotonic()))
        self._dispatch()

    def _arm_watchdog(self) -> None:
        if self._started and (self._watchdog is None or self._watchdog.done()):
            self._watchdog = self._tasks.spawn(self._watch_for_stuck(), "watchdog")

    async def _watch_for_stuck(self) -> None:
        """Names each stuck reconcile once; ends when nothing runs."""
        named: dict[Ref, float] = {}
        while self._started:
            await self._clock.sleep(STUCK_AFTER_S)
            now_s = self._clock.monotonic()
            for key, since_s in self._started.items():
                if now_s - since_s >= STUCK_AFTER_S and named.get(key) != since_s:
                    named[key] = since_s
                    text = "controller %s: the reconcile of %s has run for %.0f s"
                    logger.warning(text, self._controller.name, key, now_s - since_s)
            named = {key: since_s for key, since_s in named.items() if self._started.get(key) == since_s}

    def __repr__(self) -> str:
        return f"Pump({self._controller.name!r}, {self._mail!r})"


def _wanted(obj: Json) -> int:
    """Fingerprint of all that is not status: what a reconcile may depend on and does not write."""
    meta = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    rest = {key: value for key, value in obj.items() if key not in ("metadata", "status")}
    return hash(json.dumps([meta, rest], sort_keys=True))
