"""Failures: what is restarted in place, what is replaced, and how long a crash loop has to wait. Pure.

A failed engine is restarted in its own bundle at once when `restartGracePeriodSeconds` gives it time to come back;
if it is not ready when that time is over, the recovery policy replaces its role replica or its group. Policy `None`
only ever restarts in place (a role replica whose node is gone has no place left and is replaced, alone). The first
failure is answered at once, each further one after 1 s, 2 s, 4 s … 60 s.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hekla.deployments.serving.instructions import Instruction, RestartEngine
from hekla.deployments.serving.model import Crash, Engine, Group, Unit, World
from hekla.deployments.serving.scaling import retired

CRASH_DELAY_FIRST_S = 1.0
CRASH_DELAY_MAX_S = 60.0
CRASH_FORGET_S = 300.0
"""A unit that has run this long since its last failure starts anew, without a debt."""

REASON_FAILED = "an engine of it failed"
REASON_DAMAGED = "an engine of it was deleted"


def crash_delay_s(failures: int) -> float:
    """Seconds between the answer to the last failure and the answer to the next one."""
    return min(CRASH_DELAY_MAX_S, CRASH_DELAY_FIRST_S * 2.0 ** min(failures - 1, 30))


@dataclass
class Recovery:
    """Collects the answers to all failures of one moment."""

    world: World
    now: float
    instructions: list[Instruction] = field(default_factory=list)
    crashes: dict[str, Crash] = field(default_factory=dict)
    timers: list[float] = field(default_factory=list)

    def run(self, groups: tuple[Group, ...]) -> None:
        self.crashes = {key: crash for key, crash in self.world.crashes.items() if self._is_remembered(key, groups)}
        for group in groups:
            if self._recreates_groups and not group.is_deleting:
                self._recover_whole(group)
            else:
                for unit in group.units:
                    self._recover_unit(unit)

    @property
    def _recreates_groups(self) -> bool:
        return self.world.serving.recovery == "ServingGroupRecreate"

    def _recover_whole(self, group: Group) -> None:
        damaged = any(unit.is_damaged for unit in group.units)
        lost = [unit for unit in group.live if self._is_lost(unit)]
        if damaged or (lost and self._may_act(str(group.ordinal))):
            reason = REASON_DAMAGED if damaged else REASON_FAILED
            self.instructions += [retired(unit, reason) for unit in group.units if not unit.is_retired]
            return
        for unit in group.live:
            self._restart_in_place(unit)

    def _recover_unit(self, unit: Unit) -> None:
        if unit.is_retired:
            return
        if unit.is_damaged:
            self.instructions.append(retired(unit, REASON_DAMAGED))
        elif self._is_lost(unit):
            if self._may_act(str(unit.id)):
                self.instructions.append(retired(unit, REASON_FAILED))
        else:
            self._restart_in_place(unit)

    def _is_lost(self, unit: Unit) -> bool:
        """It can't come back where it is, or has not in time."""
        return any(self._has_no_place(engine) or self._is_overdue(engine) for engine in unit.engines)

    def _has_no_place(self, engine: Engine) -> bool:
        return engine.is_broken and engine.node not in self.world.alive_nodes

    def _is_overdue(self, engine: Engine) -> bool:
        if self.world.serving.recovery == "None" or engine.failed_at is None or engine.phase == "Ready":
            return False
        due = engine.failed_at + self.world.serving.grace_s
        if self.now < due:
            self.timers.append(due)
        return self.now >= due

    def _restart_in_place(self, unit: Unit) -> None:
        broken = [engine for engine in unit.engines if engine.is_broken]
        if broken and self._may_act(str(unit.id)):
            self.instructions += [RestartEngine(engine.name, engine.uid) for engine in broken]

    def _may_act(self, key: str) -> bool:
        """False while the last answer is too recent; True counts one more."""
        last = self.crashes.get(key)
        if last is None:
            self.crashes[key] = Crash(1, self.now)
            return True
        due = last.last_s + crash_delay_s(last.failures)
        if self.now < due:
            self.timers.append(due)
            return False
        self.crashes[key] = Crash(last.failures + 1, self.now)
        return True

    def _is_remembered(self, key: str, groups: tuple[Group, ...]) -> bool:
        crash = self.world.crashes[key]
        if self.now - crash.last_s < CRASH_FORGET_S:
            return True
        units = [unit for group in groups for unit in group.units if key in (str(group.ordinal), str(unit.id))]
        return any(not unit.is_running for unit in units)
