"""The traffic policies of one ingress replica, as the proxy and the gateway use them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from hekla.platform.base.ids import Ids
from hekla.routing.backend import ModelServer, RetryPolicy
from hekla.routing.disaggregation import AllTried, Plan
from hekla.routing.exchange import Exchange
from hekla.routing.headers import RawHeaders
from hekla.routing.load import LoadBook
from hekla.routing.matching import Route
from hekla.routing.metrics import RouterMetrics
from hekla.routing.scheduling.interface import Busy
from hekla.routing.table import Match, RoutingTable
from hekla.routing.traffic.affinity import Affinity
from hekla.routing.traffic.deadlines import Deadlines, deadlines_of
from hekla.routing.traffic.health import HealthBook
from hekla.routing.traffic.retries import RetryBudgets, backoff_s, retry_after_s
from hekla.routing.traffic.sessions import Facts, bounded
from hekla.routing.traffic.settings import TrafficSettings
from hekla.routing.traffic.sticky import SessionMemory

DEFERRED_STATUSES = frozenset({500})
"""An answer that may be the request's fault: it counts against the engine once another has served the same request."""


class Traffic:
    """What is remembered of engines, sessions and budgets between requests."""

    def __init__(self, settings: TrafficSettings, *, loads: LoadBook, metrics: RouterMetrics, ids: Ids) -> None:
        self.settings, self._loads, self._metrics, self._ids = settings, loads, metrics.traffic, ids
        self.sessions = SessionMemory(settings.sticky.sessions_max)
        """What scorers of session affinity read."""
        self.health = HealthBook(settings.ejection, settings.slow_start, loads.load, self._count_health)
        self._budgets = RetryBudgets(settings.retries)
        self._affinity = Affinity(settings.sticky, self.sessions, loads.load)

    def use(self, settings: TrafficSettings) -> None:
        """Other settings from now on."""
        self.settings = settings
        self.health.use(settings.ejection, settings.slow_start)
        self._budgets.use(settings.retries)
        self._affinity.use(settings.sticky)

    def took_table(self, table: RoutingTable, now_s: float) -> None:
        engines = {backend.key: backend for server in table.servers.values() for backend in server.backends}
        self.health.took_engines(engines.values(), now_s)
        self._budgets.forget({server.name for server in table.servers.values()})

    def session_of(self, exchange: Exchange, headers: Mapping[str, str], route: Route) -> str:
        """The request's session on this route; one that names none is given a cookie where the route says so."""
        if route.sticky is None:
            return bounded(next((headers[name] for name in self.settings.sticky.headers if headers.get(name)), ""))
        query = exchange.scope.get("query_string", b"").decode("latin-1")
        session = route.sticky.session_of(Facts(headers, query, exchange.caller.claims))
        if not session and route.sticky.cookie is not None:
            session = self._ids.uid()
            cookie = route.sticky.cookie.header(session, route.sticky.ttl_s)
            exchange.added_headers.append((b"set-cookie", cookie.encode("latin-1")))
        return session

    def choose(
        self, server: ModelServer, match: Match | None, tried: Collection[str], now_s: float,
        *, plan: Callable[[Collection[str]], Plan],
    ) -> Plan:  # fmt: skip
        """A plan for a request now; `plan` makes one without the engines it is given. Raises what `plan` raises."""
        self.health.mark(server, now_s)
        others = None if match is None else self._affinity.others(server, match, tried, now_s)
        if others is not None:
            try:
                return plan(others)
            except (Busy, AllTried):
                pass  # its home is refused by a filter: any other will do
        return plan(tried)

    def goes_to(self, server: ModelServer, match: Match | None, engine: str, now_s: float) -> None:
        """The request is sent to `engine` now."""
        if match is not None and match.route.sticky is not None and match.session:
            outcome = "home" if self._affinity.went(server, match, engine, now_s) else "away"
            self._metrics.sticky.labels(match.route.key, outcome).inc()

    def requested(self, server: ModelServer, now_s: float) -> None:
        """A request comes to the server."""
        self._budgets.of(server.name, now_s).request()

    def may_try_again(self, server: ModelServer, now_s: float) -> bool:
        """Takes one further try out of the server's budget; False when it is spent."""
        allowed = self._budgets.of(server.name, now_s).take(now_s)
        if not allowed:
            self._metrics.retries_denied.labels(server.name).inc()
        return allowed

    def wait_s(self, policy: RetryPolicy, tries: int) -> float:
        return backoff_s(policy.interval_s, tries, self._ids.random(), self.settings.retries.interval_max_s)

    def told_to_wait(self, engine: str, headers: RawHeaders, now_s: float) -> None:
        """An engine that is busy said for how long: others are preferred until then."""
        named = next((value.decode("latin-1") for name, value in headers if name.lower() == b"retry-after"), None)
        seconds = retry_after_s(named, self.settings.retries.retry_after_max_s)
        if seconds:
            load = self._loads.load(engine)
            load.suspect_until_s = max(load.suspect_until_s, now_s + seconds)

    def deadlines(self, server: ModelServer | None, asked_s: float | None, started_s: float) -> Deadlines:
        return deadlines_of(server, self.settings.timeouts, asked_s, started_s)

    def _count_health(self, server: str, event: str) -> None:
        self._metrics.engine_health.labels(server, event).inc()
