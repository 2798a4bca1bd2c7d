"""Keeps the ingress's settings what `routing.yaml` says, while it changes."""

from __future__ import annotations

import logging
from collections.abc import Callable

from hekla.platform.base.clock import Clock
from hekla.routing.config import RoutingSettings
from hekla.routing.configuration.live import change
from hekla.routing.configuration.routing_file import RoutingFile, read_routing_file
from hekla.routing.scheduling.reload import ConfigReloader

logger = logging.getLogger(__name__)


class LiveSettings:
    """`now` is what holds: `base`, with what the file named in its `scheduling.config_file` says, if one is named.

    `use` takes a change into use and may raise ValueError, which counts as a bad file. Raises ValueError on a file that
    is missing or bad at the start.
    """

    def __init__(
        self, base: RoutingSettings, use: Callable[[RoutingSettings], None], *, clock: Clock,
    ) -> None:  # fmt: skip
        self.now, self._base, self._use = base, base, use
        self.held: tuple[str, ...] = ()
        """Settings that the file has changed and that need a restart."""
        self.count: Callable[[str], None] = lambda outcome: None
        """Told `ok` or `refused` of every change of the file."""
        self._has_started = False
        self.reloader: ConfigReloader[RoutingFile] | None = None
        if base.scheduling.config_file:
            self.reloader = ConfigReloader(
                base.scheduling, self._apply, read=lambda text: read_routing_file(text, base), clock=clock,
                count=lambda outcome: self.count(outcome),
            )  # fmt: skip
            self.reloader.load()
        self._has_started = True

    async def start(self) -> None:
        if self.reloader is not None:
            await self.reloader.start()

    async def stop(self) -> None:
        if self.reloader is not None:
            await self.reloader.stop()

    def _apply(self, file: RoutingFile) -> None:
        if not self._has_started:
            self.now = file.settings
            return
        wanted = change(self.now, file.settings)
        self._use(wanted.settings)
        self.now, self.held = wanted.settings, wanted.held
        for name in wanted.held:
            logger.warning("%s is changed in the file; it takes effect when the ingress is started again", name)
