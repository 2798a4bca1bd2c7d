"""Where a session's home is, when it gives way, and how a request names its session."""

from __future__ import annotations

from collections import Counter

import pytest

from hekla.routing.backend import Backend, ModelServer
from hekla.routing.load import Counts, LoadBook
from hekla.routing.matching import Route, Rule, Target
from hekla.routing.table import Match
from hekla.routing.traffic.affinity import Affinity
from hekla.routing.traffic.sessions import Facts, SessionPolicy, policy_of
from hekla.routing.traffic.settings import StickySettings
from hekla.routing.traffic.sticky import SessionMemory

ENGINES = [f"default/e{i}" for i in range(5)]


def test_a_session_returns_to_the_engine_it_was_sent_to_last() -> None:
    memory = SessionMemory(10)
    memory.remember("s", "a", ENGINES[1], 0.0, ttl_s=60)
    assert memory.home("s", "a", ENGINES, 59.0) == ENGINES[1]


def test_an_engine_that_is_gone_is_no_home() -> None:
    memory = SessionMemory(10)
    memory.remember("s", "a", "default/gone", 0.0, ttl_s=60)
    assert memory.home("s", "a", ENGINES, 1.0) in ENGINES
    assert memory.home("s", "a", [], 1.0) is None


def test_a_session_is_forgotten_after_its_time_and_each_use_extends_it() -> None:
    memory = SessionMemory(10)
    memory.remember("s", "a", ENGINES[0], 0.0, ttl_s=60)
    memory.remember("s", "a", ENGINES[0], 50.0, ttl_s=60)
    assert memory.remembered("s", "a", 109.0) == ENGINES[0]
    assert memory.remembered("s", "a", 110.0) is None
    assert len(memory) == 0


def test_memory_is_bounded_and_the_least_recently_used_goes_first() -> None:
    memory = SessionMemory(2)
    for session in ("a", "b", "a", "c"):
        memory.remember("s", session, ENGINES[0], 0.0, ttl_s=60)
    assert [memory.remembered("s", session, 1.0) for session in "abc"] == [ENGINES[0], None, ENGINES[0]]


def test_replicas_that_share_nothing_agree_on_a_sessions_home() -> None:
    homes = [
        [SessionMemory(10).home("s", f"user-{i}", order, 0.0) for i in range(50)] for order in (ENGINES, ENGINES[::-1])
    ]
    assert homes[0] == homes[1]


def test_sessions_spread_evenly_and_one_engine_less_moves_only_its_own() -> None:
    memory = SessionMemory(10)
    before = {i: memory.home("s", f"user-{i}", ENGINES, 0.0) for i in range(5000)}
    assert all(800 < count < 1200 for count in Counter(before.values()).values())
    after = {i: memory.home("s", f"user-{i}", ENGINES[1:], 0.0) for i in range(5000)}
    assert all(after[i] == before[i] for i in before if before[i] != ENGINES[0])


STICKY = SessionPolicy((("Header", "x-user"),), 60.0)


class Site:
    def __init__(self, sticky: SessionPolicy | None = STICKY, session: str = "a") -> None:
        self.loads, self.memory = LoadBook(), SessionMemory(100)
        self.affinity = Affinity(StickySettings(load_factor=1.5, requests_free=4), self.memory, self.loads.load)
        backends = tuple(Backend(key, "http://x") for key in ENGINES)
        self.server = ModelServer(("default", "s"), "m", "vLLM", backends)
        target = Target("s", 100)
        rule = Rule("all", (target,))
        route = Route("default/r", "default", "m", (), (rule,), ("", 0, "r"), sticky)
        self.match = Match(route, rule, target, self.server, False, session)

    def home(self, *tried: str, now_s: float = 1.0) -> str | None:
        left_out = self.affinity.others(self.server, self.match, tried, now_s)
        if left_out is None:
            return None
        (home,) = set(ENGINES) - left_out
        return home


def test_the_home_is_the_engine_the_session_went_to() -> None:
    site = Site()
    site.affinity.went(site.server, site.match, ENGINES[3], 0.0)
    assert site.home() == ENGINES[3]


@pytest.mark.parametrize("site", [Site(sticky=None), Site(session="")], ids=["no policy", "no session"])
def test_without_a_policy_or_a_session_nothing_is_kept(site: Site) -> None:
    site.affinity.went(site.server, site.match, ENGINES[3], 0.0)
    assert site.home() is None
    assert len(site.memory) == 0


def test_a_home_gives_way_when_it_was_tried_ejected_or_suspect() -> None:
    site = Site()
    site.affinity.went(site.server, site.match, ENGINES[3], 0.0)
    assert site.home(ENGINES[3]) != ENGINES[3]
    site.loads.load(ENGINES[3]).suspect_until_s = 2.0
    assert site.home(now_s=1.0) != ENGINES[3]
    assert site.home(now_s=2.0) == ENGINES[3]
    site.loads.load(ENGINES[3]).ejected = True
    assert site.home(now_s=2.0) != ENGINES[3]


def test_a_home_gives_way_above_its_bounded_share_of_the_work() -> None:
    site = Site()
    site.affinity.went(site.server, site.match, ENGINES[3], 0.0)
    site.loads.add(ENGINES[3], Counts(3))
    assert site.home() == ENGINES[3], "few requests are always welcome at home"
    site.loads.add(ENGINES[3], Counts(7))
    assert site.home() is None, "10 of 10 requests: the scheduler chooses"
    for key in ENGINES:
        site.loads.add(key, Counts(20))
    assert site.home() == ENGINES[3], "30 where the mean is 22"


FACTS = Facts(
    {"x-user": "h", "cookie": 'a=1; sid="c"; b=2'}, "x=1&user=q%20q", {"sub": "j", "org": {"id": 7}, "list": [1]}
)


@pytest.mark.parametrize(
    ("kind", "name", "session"),
    [
        ("Header", "X-User", "h"),
        ("Query", "user", "q q"),
        ("Cookie", "sid", "c"),
        ("JWTClaim", "sub", "j"),
        ("JWTClaim", "org.id", "7"),
        ("JWTClaim", "list", ""),
        ("Header", "x-other", ""),
        ("Query", "other", ""),
        ("Cookie", "si", ""),
    ],
)
def test_a_session_is_read_from_header_query_cookie_or_claim(kind: str, name: str, session: str) -> None:
    policy = policy_of({"sources": [{"type": kind, "name": name}]})
    assert policy is not None
    assert policy.session_of(FACTS) == session
    assert policy.ttl_s == 10800, "three hours, as proposed for the original"


def test_the_first_source_with_a_value_names_the_session() -> None:
    sources = [
        {"type": "Header", "name": "absent"},
        {"type": "Query", "name": "user"},
        {"type": "Cookie", "name": "sid"},
    ]
    policy = policy_of({"sources": sources})
    assert policy is not None
    assert policy.session_of(FACTS) == "q q"


def test_a_claim_counts_only_when_the_token_was_verified() -> None:
    policy = policy_of({"sources": [{"type": "JWTClaim", "name": "sub"}]})
    assert policy is not None
    assert policy.session_of(Facts({"authorization": "Bearer e30.eyJzdWIiOiJqIn0."})) == ""


def test_a_long_session_name_is_hashed_and_stays_the_same() -> None:
    policy = policy_of({"sources": [{"type": "Header", "name": "x"}]})
    assert policy is not None
    one, other = (policy.session_of(Facts({"x": letter * 100_000})) for letter in "ab")
    assert len(one) == 32
    assert one != other
    assert one == policy.session_of(Facts({"x": "a" * 100_000}))


def test_too_many_query_fields_name_no_session() -> None:
    policy = policy_of({"sources": [{"type": "Query", "name": "z"}]})
    assert policy is not None
    assert policy.session_of(Facts({}, "&".join(f"a{i}=1" for i in range(100)) + "&z=1")) == ""


def test_an_unknown_source_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"sources\[0\].*'Body'.*Header, Query, Cookie, JWTClaim"):
        policy_of({"sources": [{"type": "Body", "name": "x"}]})


def test_the_cookie_is_for_http_only_and_lasts_as_long_as_the_session() -> None:
    policy = policy_of({"setCookie": {"secure": True, "path": "/v1"}, "ttlSeconds": 60})
    assert policy is not None
    assert policy.cookie is not None
    assert policy.cookie.header("abc", 60) == (
        "hekla-session=abc; Path=/v1; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
    )
    assert policy.session_of(Facts({"cookie": "hekla-session=abc"})) == "abc"
