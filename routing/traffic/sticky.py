"""Sticky sessions: which engine a conversation belongs to, and when it may leave. Pure.

Affinity is breakable. A session's home is the engine it was last sent to, as this replica remembers; where it remembers
nothing, the first of a rendezvous hash (Thaler & Ravishankar 1998) over the engines that can take requests, so that
replicas which share no memory agree, and an engine that comes or goes moves only its own sessions. A home gives way when
it can't be used, or holds more than its bounded share of the work (consistent hashing with bounded loads, Mirrokni et
al. 2018); where the request then goes becomes the new home, since the conversation's cache is built there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

SCALE = 2.0**64


NEWS_MAX = 4096
"""Moved sessions that wait to be told; beyond it the oldest is not."""


class Home(NamedTuple):
    engine: str
    expires_s: float
    has_moved: bool = False
    """It is not where a replica without memory would look."""


class MovedSession(NamedTuple):
    """News for the other replicas."""

    session: int
    """`session_id` of its pool and name: short, and it tells nobody a user's."""
    engine: str
    left_s: float
    """Until it is forgotten."""


def session_id(scope: str, session: str) -> int:
    """63 bits of a hash."""
    digest = blake2b(f"{scope}\0{session}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


class SessionMemory:
    """Where sessions live: bounded, the least recently used one is forgotten first.

    `scope` keeps the sessions of different pools apart; callers use the ModelServer's name, or the model's where no server is
    at hand, but the same everywhere for one pool.
    """

    def __init__(self, sessions_max: int) -> None:
        self._sessions_max = sessions_max
        self._homes: OrderedDict[tuple[str, str], Home] = OrderedDict()
        self._heard: OrderedDict[int, Home] = OrderedDict()
        """Of moved sessions, what peers told."""
        self._news: OrderedDict[int, Home] = OrderedDict()

    def remembered(self, scope: str, session: str, now_s: float) -> str | None:
        """The engine the session was last sent to; None when unknown or too long ago."""
        found = self._latest(scope, session, now_s)
        return None if found is None else found.engine

    def _latest(self, scope: str, session: str, now_s: float) -> Home | None:
        """Where it was last sent, from here or by a peer."""
        found = self._homes.get((scope, session))
        if found is not None and found.expires_s <= now_s:
            del self._homes[(scope, session)]
            found = None
        if self._heard:
            heard = self._heard.get(session_id(scope, session))
            if heard is not None and heard.expires_s > (now_s if found is None else found.expires_s):
                return heard
        return found

    def home(self, scope: str, session: str, engines: Collection[str], now_s: float) -> str | None:
        """The engine among `engines` (keys) the session belongs to; None only when there are none.

        The remembered one when it is among them, else the first by rendezvous hash.
        """
        remembered = self.remembered(scope, session, now_s)
        if remembered is not None and remembered in engines:
            return remembered
        return max(engines, key=lambda engine: rendezvous(session, engine), default=None)

    def remember(
        self, scope: str, session: str, engine: str, now_s: float, *, ttl_s: float, has_moved: bool = False
    ) -> None:
        """The session was sent to `engine` now; forgotten `ttl_s` after the last time. `has_moved`: away from its home."""
        before = self._latest(scope, session, now_s)
        home = Home(engine, now_s + ttl_s, has_moved or (before is not None and before.has_moved))
        self._homes[(scope, session)] = home
        if home.has_moved:
            self._news[session_id(scope, session)] = home
            if len(self._news) > NEWS_MAX:
                self._news.popitem(last=False)
        self._homes.move_to_end((scope, session))
        if len(self._homes) > self._sessions_max:
            self._homes.popitem(last=False)

    def news(self, now_s: float, count_max: int) -> list[MovedSession]:
        """Sessions that were sent to another engine than a replica without memory would send them to, once each time."""
        count = min(count_max, len(self._news))
        moved = [self._news.popitem(last=False) for _ in range(count)]
        return [MovedSession(session, home.engine, home.expires_s - now_s) for session, home in moved]

    def hear(self, moved: Iterable[MovedSession], now_s: float) -> None:
        """A peer's news."""
        for session, engine, left_s in moved:
            self._heard[session] = Home(engine, now_s + left_s, has_moved=True)
            self._heard.move_to_end(session)
            if len(self._heard) > self._sessions_max:
                self._heard.popitem(last=False)

    def __len__(self) -> int:
        return len(self._homes)

    def __repr__(self) -> str:
        return f"SessionMemory({len(self._homes)} of at most {self._sessions_max} sessions)"


def rendezvous(session: str, name: str) -> float:
    """A number in [0, 1) of a session and a name: the same in every process, without relation for other pairs."""
    digest = blake2b(f"{session}\0{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / SCALE


def has_room(requests: int, others: Sequence[int], *, load_factor: float, requests_free: int) -> bool:
    """Whether a home with `requests` in flight may take one more beside `others`, the rest of the pool's counts.

    It may hold `load_factor` times the mean of the pool, and always `requests_free`: a few more on one engine cost less
    than computing a conversation's prompt again on another.
    """
    if requests < requests_free:
        return True
    mean = (requests + sum(others) + 1) / (1 + len(others))
    return requests + 1 <= load_factor * mean
