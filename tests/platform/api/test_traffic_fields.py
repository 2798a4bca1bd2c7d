"""What admission says of the traffic fields that hekla adds to ModelRoute and ModelServer."""

from __future__ import annotations

from typing import Any

import pytest

from hekla.platform.api.kinds.modelroute import references

RULE = "spec.rules[0]"
POLICY = "spec.trafficPolicy"


@pytest.mark.parametrize(
    ("kind", "changes", "path", "says"),
    [
        ("route", {"spec.sessionSticky": {}}, "spec.sessionSticky", "allowed: sources, setCookie or both"),
        ("route", {"spec.sessionSticky": {"sources": [{"type": "Body", "name": "x"}]}},
         "spec.sessionSticky.sources[0].type", "JWTClaim"),
        ("route", {"spec.sessionSticky": {"sources": [{"type": "Header", "name": ""}]}},
         "spec.sessionSticky.sources[0].name", "1"),
        ("route", {"spec.sessionSticky": {"setCookie": {"name": "a;b"}}}, "spec.sessionSticky.setCookie.name", "a;b"),
        ("route", {"spec.sessionSticky": {"setCookie": {"path": "/\r\nSet-Cookie: x"}}},
         "spec.sessionSticky.setCookie.path", ""),
        ("route", {"spec.sessionSticky": {"setCookie": {}, "ttlSeconds": 0}}, "spec.sessionSticky.ttlSeconds", "1"),
        ("route", {f"{RULE}.mirror": {"modelServerName": "x", "percent": 101}}, f"{RULE}.mirror.percent", "100"),
        ("route", {f"{RULE}.mirror": {}}, f"{RULE}.mirror.modelServerName", ""),
        ("route", {f"{RULE}.failover": [{}]}, f"{RULE}.failover[0]", "exactly one"),
        ("server", {f"{POLICY}.outlierDetection": {"window": "1ms"}}, f"{POLICY}.outlierDetection.window", "100ms"),
        ("server", {f"{POLICY}.outlierDetection": {"maxEjectionPercent": 100}},
         f"{POLICY}.outlierDetection.maxEjectionPercent", "99"),
        ("server", {f"{POLICY}.idleTimeout": "soon"}, f"{POLICY}.idleTimeout", "duration"),
    ],
)  # fmt: skip
def test_a_bad_field_is_refused_by_name(
    manifest: Any, problems: Any, kind: str, changes: Any, path: str, says: str
) -> None:
    found = problems(manifest(kind, changes))
    assert list(found) == [path]
    assert says in found[path]


def test_the_good_ones_are_admitted(manifest: Any, problems: Any) -> None:
    sticky = {"sources": [{"type": kind, "name": "x"} for kind in ("Header", "Query", "Cookie", "JWTClaim")],
              "setCookie": {"secure": True}}  # fmt: skip
    rule = {f"{RULE}.mirror": {"modelServerName": "x", "percent": 0.5}, f"{RULE}.failover": [{"modelServerName": "y"}]}
    assert problems(manifest("route", {"spec.sessionSticky": sticky, **rule})) == {}
    detection = {"consecutiveFailures": 3, "window": "10s", "baseEjectionTime": "5s", "maxEjectionPercent": 30}
    policy = {"idleTimeout": "1m", "totalTimeout": "1h", "outlierDetection": detection}
    assert problems(manifest("server", {f"{POLICY}.{name}": value for name, value in policy.items()})) == {}


def test_mirror_and_failover_name_objects_that_should_exist(manifest: Any) -> None:
    route = manifest("route", {
        f"{RULE}.mirror": {"modelServerName": "x"},
        f"{RULE}.failover": [{"modelServerName": "y"}, {"externalModelProviderName": "z"}],
    })  # fmt: skip
    named = [found for found in references(route) if "failover" in found[0] or "mirror" in found[0]]
    assert named == [
        (f"{RULE}.failover[0].modelServerName", "ModelServer", "y"),
        (f"{RULE}.failover[1].externalModelProviderName", "ExternalModelProvider", "z"),
        (f"{RULE}.mirror.modelServerName", "ModelServer", "x"),
    ]
