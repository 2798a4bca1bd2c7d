"""A new engine's share of the traffic. Pure."""

from __future__ import annotations

from hekla.routing.traffic.settings import SlowStartSettings


def share(age_s: float, settings: SlowStartSettings) -> float:
    """In (0, 1], growing evenly with the engine's age until the window is over."""
    if age_s >= settings.window_s:
        return 1.0
    return max(settings.share_min, age_s / settings.window_s)
