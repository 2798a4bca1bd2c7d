"""Follows the scheduler's configuration file: what it says now is used within seconds, without a restart.

A file that can't be read or says nonsense changes nothing: the configuration before stays, the log and a counter say
so, and `problem` holds why until the file is mended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from hekla.platform.base.clock import Clock
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.config import SchedulingSettings
from hekla.routing.scheduling.peer_config import BYTES_MAX

logger = logging.getLogger(__name__)

Stamp = tuple[int, int, int]
"""Time of change in ns, size, inode: a ConfigMap is changed by swapping a link, which moves the inode."""


class Readable(Protocol):
    """What a file says: `ConfigFile`, or `hekla.routing.configuration.routing_file.RoutingFile`."""

    @property
    def without_effect(self) -> tuple[str, ...]: ...


Config = TypeVar("Config", bound=Readable)


class ConfigReloader(Generic[Config]):
    """`read` makes a configuration of the file's text, or raises ValueError. `apply` puts a configuration into use and may raise ValueError, which counts as a bad file."""

    def __init__(
        self, settings: SchedulingSettings, apply: Callable[[Config], None], *, read: Callable[[str], Config],
        clock: Clock, count: Callable[[str], None] = lambda outcome: None,
    ) -> None:  # fmt: skip
        self._settings, self._apply, self._clock, self._count = settings, apply, clock, count
        self._parse = read
        self._path = Path(settings.config_file)
        self._seen: Stamp | None = None
        self._tasks = TaskOwner("scheduler-config")
        self.problem = ""
        """Why the file as it is now is not in use; empty when it is."""

    def load(self) -> None:
        """At the start: raises ValueError on a file that is missing or bad, before anything is served."""
        self._seen = _stamp(self._path)
        self._apply(self._read())

    async def start(self) -> None:
        self._tasks.spawn(self._follow(), "follow")

    async def stop(self) -> None:
        await self._tasks.stop()

    async def _follow(self) -> None:
        while True:
            await self._clock.sleep(self._settings.reload_period_s)
            await self.look()

    async def look(self) -> None:
        """Takes the file up when it has changed since it was last looked at."""
        stamp = await asyncio.to_thread(_stamp, self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            config = await asyncio.to_thread(self._read)
            self._apply(config)
        except ValueError as error:
            self.problem = str(error)
            self._count("refused")
            logger.error("%s is not used, the configuration before stays: %s", self._path, error)
            return
        self.problem = ""
        self._count("ok")
        logger.info("%s is in use", self._path)
        for place in config.without_effect:
            logger.warning("%s: %s has no effect here", self._path, place)

    def _read(self) -> Config:
        try:
            with self._path.open("rb") as file:
                text = file.read(BYTES_MAX + 1).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{self._path} can't be read: {error}") from error
        try:
            return self._parse(text)
        except ValueError as error:
            raise ValueError(f"{self._path}: {error}") from error


def _stamp(path: Path) -> Stamp | None:
    """None: it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)
