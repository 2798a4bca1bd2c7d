"""Calendar windows of budgets, in UTC. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hekla.routing.identity.interface import Window


def window_at(window: Window, now_s: float) -> tuple[int, int]:
    """Begin and end, in Unix seconds, of the window that holds `now_s`. The end belongs to the next."""
    now = datetime.fromtimestamp(now_s, UTC)
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if window == "hour":
        begin = now.replace(minute=0, second=0, microsecond=0)
        end = begin + timedelta(hours=1)
    elif window == "day":
        begin, end = day, day + timedelta(days=1)
    elif window == "week":
        begin = day - timedelta(days=day.weekday())
        end = begin + timedelta(days=7)
    else:
        begin = day.replace(day=1)
        end = (begin + timedelta(days=32)).replace(day=1)
    return int(begin.timestamp()), int(end.timestamp())
