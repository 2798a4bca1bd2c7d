"""Whether and when a request may be tried again. Pure: the time and the chance are arguments.

Retries multiply load just when engines have least of it to give. A budget per ModelServer (the idea is Finagle's, 2016) lets
them be a share of the requests and a small floor, so that a brown-out stays one.
"""

from __future__ import annotations

from hekla.routing.traffic.settings import RetryBudgetSettings

DOUBLINGS_MAX = 16


class RetryBudget:
    """A token bucket that requests fill a little and further tries empty.

    Within any time T with N requests there are at most `burst + ratio * N + floor_per_s * T` further tries.
    """

    __slots__ = ("_settings", "_updated_s", "credit")

    def __init__(self, settings: RetryBudgetSettings, now_s: float) -> None:
        self._settings, self._updated_s = settings, now_s
        self.credit = settings.burst
        """Further tries that would be allowed now."""

    def request(self) -> None:
        """A client's request has come."""
        self.credit = min(self._settings.burst, self.credit + self._settings.ratio)

    def take(self, now_s: float) -> bool:
        """True when one more try is allowed; it is then spent."""
        settings, elapsed_s = self._settings, max(0.0, now_s - self._updated_s)
        self._updated_s += elapsed_s
        self.credit = min(settings.burst, self.credit + settings.floor_per_s * elapsed_s)
        if self.credit < 1:
            return False
        self.credit -= 1
        return True


class RetryBudgets:
    """One budget for each ModelServer, made when first asked for."""

    def __init__(self, settings: RetryBudgetSettings) -> None:
        self._settings = settings
        self._budgets: dict[str, RetryBudget] = {}

    def use(self, settings: RetryBudgetSettings) -> None:
        """Budgets begin anew with other settings."""
        if settings != self._settings:
            self._settings = settings
            self._budgets.clear()

    def of(self, server: str, now_s: float) -> RetryBudget:
        found = self._budgets.get(server)
        if found is None:
            found = self._budgets[server] = RetryBudget(self._settings, now_s)
        return found

    def forget(self, known: set[str]) -> None:
        """Only these servers are left."""
        for server in self._budgets.keys() - known:
            del self._budgets[server]


def backoff_s(interval_s: float, tries: int, random: float, interval_max_s: float) -> float:
    """The wait after `tries` tries (1 or more): the interval, doubled for each try after the first up to `interval_max_s`,
    and up to half of that again by chance, so that those that failed together do not return together.
    """
    doubled_s = interval_s * 2.0 ** min(max(tries - 1, 0), DOUBLINGS_MAX)
    return min(doubled_s, max(interval_s, interval_max_s)) * (1 + 0.5 * random)


def retry_after_s(value: str | None, longest_s: float) -> float:
    """Seconds of an engine's `Retry-After`, at most `longest_s`; 0 for none, and for a date, which engines never send."""
    if value is None:
        return 0.0
    text = value.strip()
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        return 0.0
    return min(float(text), longest_s)
