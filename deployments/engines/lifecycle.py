"""The life of one engine as its supervisor sees it: `(state, event, now) -> (state, instructions)`. Pure.

Starting -> Fetching -> Loading -> Ready -> Draining -> Stopped
    any of them but Stopped -> Failed (its process is then killed) or Stopped
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from hekla.platform.api.kinds.engine import Phase

LEGAL: dict[Phase, frozenset[Phase]] = {
    "Starting": frozenset({"Fetching", "Loading", "Failed", "Stopped"}),
    "Fetching": frozenset({"Loading", "Failed", "Stopped"}),
    "Loading": frozenset({"Ready", "Failed", "Stopped"}),
    "Ready": frozenset({"Draining", "Failed", "Stopped"}),
    "Draining": frozenset({"Failed", "Stopped"}),
    "Failed": frozenset({"Stopped"}),
    "Stopped": frozenset(),
}
ENDED: frozenset[Phase] = frozenset({"Failed", "Stopped"})

FETCH_ATTEMPTS_MAX = 6
FETCH_PAUSE_S = 15.0
"""Before the second attempt; each further pause is twice as long. All six take about eight minutes."""
FETCH_PAUSE_MAX_S = 300.0

WEIGHTS_LOADED = 0.5
"""Progress from which on the engine has its weights (see the milestones in `log_reading.py`)."""


class Do(Enum):
    """What the supervisor has to do."""

    KILL = "kill the process tree now"
    DRAIN = "wait until idle, then end the process gently"


@dataclass(frozen=True)
class Fetching:
    """The weights are on their way; `progress` 0…1."""

    progress: float
    detail: str = ""


@dataclass(frozen=True)
class FetchFailed:
    """The weights can't be had now; `delay_s` is the earliest sensible retry, None if unknown."""

    reason: str
    delay_s: float | None = None


@dataclass(frozen=True)
class Spawned:
    """The process runs. The start-up time counts from here."""

    pid: int
    address: str
    kv_events: str = ""
    kv_replay: str = ""
    bootstrap_port: int = 0


@dataclass(frozen=True)
class Loaded:
    """The engine's log tells how far it is."""

    progress: float
    detail: str


@dataclass(frozen=True)
class Healthy:
    models: tuple[str, ...]
    max_model_len: int = 0


@dataclass(frozen=True)
class Serves:
    """The names it answers to have changed: LoRA adapters came or went."""

    models: tuple[str, ...]


@dataclass(frozen=True)
class Alive:
    """A process that serves no HTTP, a group's worker, still runs."""


@dataclass(frozen=True)
class Unhealthy:
    reason: str


@dataclass(frozen=True)
class Exited:
    """The process is over; `how` tells the exit code or signal and its last words."""

    how: str


@dataclass(frozen=True)
class Broken:
    """It could not be started: the fetch or the command failed."""

    reason: str


@dataclass(frozen=True)
class DrainAsked:
    pass


@dataclass(frozen=True)
class StopAsked:
    pass


Event = (
    Fetching
    | FetchFailed
    | Spawned
    | Loaded
    | Healthy
    | Serves
    | Alive
    | Unhealthy
    | Exited
    | Broken
    | DrainAsked
    | StopAsked
)


@dataclass(frozen=True)
class Limits:
    startup_timeout_s: float
    health_failures_max: int
    settled_s: float = 0.0
    """A worker whose log doesn't say that it has its weights is taken for ready after this long."""


@dataclass(frozen=True)
class State:
    limits: Limits
    phase: Phase = "Starting"
    message: str = ""
    progress: float = 0.0
    address: str = ""
    pid: int = 0
    models: tuple[str, ...] = ()
    max_model_len: int = 0
    kv_events: str = ""
    kv_replay: str = ""
    bootstrap_port: int = 0
    spawned_at: float = 0.0
    failures: int = field(default=0, compare=False)
    """Failed probes in a row."""
    fetch_failures: int = 0
    fetch_again_in_s: float = 0.0
    """The pause before the next attempt, after a failed one."""


class IllegalTransition(AssertionError):
    """A defect of hekla's own: the table above forbids it."""


def advance(state: State, event: Event, now: float) -> tuple[State, tuple[Do, ...]]:
    """The state after `event`, and what to do. `now` is monotonic seconds. Late events of an ended life change nothing."""
    if isinstance(event, StopAsked):
        return (state, ()) if state.phase == "Stopped" else (_to(state, "Stopped", "stopped on request"), (Do.KILL,))
    if state.phase in ENDED:
        return state, ()
    match event:
        case Fetching():
            return _fetching(state, event), ()
        case FetchFailed():
            return _fetch_failed(state, event)
        case Spawned():
            if state.phase not in ("Starting", "Fetching"):
                return state, ()
            state = replace(state, kv_events=event.kv_events, kv_replay=event.kv_replay)
            state = replace(state, bootstrap_port=event.bootstrap_port)
            state = replace(state, address=event.address, pid=event.pid, spawned_at=now)
            return _to(state, "Loading", "the engine is starting"), ()
        case Loaded():
            return _loading(state, event), ()
        case Healthy():
            return _healthy(state, event), ()
        case Serves():
            return replace(state, models=event.models), ()
        case Alive():
            has_weights = state.progress >= WEIGHTS_LOADED or now - state.spawned_at >= state.limits.settled_s
            return (_healthy(state, Healthy(())) if has_weights else state), ()
        case Unhealthy():
            return _unhealthy(state, event, now)
        case Exited():
            ended: Phase = "Stopped" if state.phase == "Draining" else "Failed"
            return _to(state, ended, "drained" if ended == "Stopped" else event.how), ()
        case Broken():
            return _to(state, "Failed", event.reason), (Do.KILL,)
        case DrainAsked():
            return _drain(state)


def _fetching(state: State, event: Fetching) -> State:
    if state.phase not in ("Starting", "Fetching"):
        return state
    moved = state if state.phase == "Fetching" else _to(state, "Fetching", "")
    return replace(moved, progress=round(min(1.0, max(0.0, event.progress)), 3), message=event.detail)


def _fetch_failed(state: State, event: FetchFailed) -> tuple[State, tuple[Do, ...]]:
    if state.phase not in ("Starting", "Fetching"):
        return state, ()
    failures = state.fetch_failures + 1
    if failures >= FETCH_ATTEMPTS_MAX:
        return _to(state, "Failed", f"{event.reason} ({failures} attempts)"), (Do.KILL,)
    pause = min(FETCH_PAUSE_MAX_S, max(FETCH_PAUSE_S * 2 ** (failures - 1), event.delay_s or 0.0))
    detail = f"{event.reason}; attempt {failures + 1} of {FETCH_ATTEMPTS_MAX} in {pause:g} s"
    return replace(_fetching(state, Fetching(0.0, detail)), fetch_failures=failures, fetch_again_in_s=pause), ()


def _loading(state: State, event: Loaded) -> State:
    if state.phase != "Loading" or event.progress < state.progress:
        return state
    return replace(state, progress=event.progress, message=event.detail)


def _healthy(state: State, event: Healthy) -> State:
    state = replace(state, failures=0, models=event.models, max_model_len=event.max_model_len)
    if state.phase == "Loading":
        return _to(state, "Ready", "")
    return replace(state, message="") if state.phase == "Ready" else state


def _unhealthy(state: State, event: Unhealthy, now: float) -> tuple[State, tuple[Do, ...]]:
    limits = state.limits
    if state.phase == "Loading":
        if now - state.spawned_at < limits.startup_timeout_s:
            return state, ()
        reason = f"not healthy {limits.startup_timeout_s:g} s after its start: {event.reason}"
        return _to(state, "Failed", reason), (Do.KILL,)
    if state.phase != "Ready":
        return state, ()
    failures = state.failures + 1
    if failures < limits.health_failures_max:
        message = f"health probe failed {failures} of {limits.health_failures_max} times: {event.reason}"
        return replace(state, failures=failures, message=message), ()
    return _to(state, "Failed", f"{failures} health probes failed in a row: {event.reason}"), (Do.KILL,)


def _drain(state: State) -> tuple[State, tuple[Do, ...]]:
    if state.phase == "Draining":
        return state, ()
    if state.phase == "Ready":
        return _to(state, "Draining", "finishing what it carries"), (Do.DRAIN,)
    # Nothing was ever sent to it: there is nothing to wait for.
    return _to(state, "Stopped", "stopped before it was ready"), (Do.KILL,)


def _to(state: State, phase: Phase, message: str) -> State:
    if phase not in LEGAL[state.phase]:
        raise IllegalTransition(f"{state.phase} -> {phase}: {message}; {state}")
    return replace(state, phase=phase, message=message, progress=0.0, failures=0)
