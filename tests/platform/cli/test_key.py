from __future__ import annotations

import json
from typing import Any

import pytest

from hekla.platform.base.clock import SystemClock, parse_rfc3339
from hekla.routing.identity.api_keys import id_of, is_key_of


def spec_of(hekla: Any, name: str = "ci") -> Any:
    return hekla.client.get("ApiKey", name)["spec"]


def test_a_key_is_shown_once_and_stored_as_a_digest(hekla: Any) -> None:
    made = hekla("key", "create", "ci", "--user", "bot", "--scope", "metrics", "--model", "a*", "--expires", "2h")
    assert made.exit_code == 0, made.stderr
    secret = made.stdout.strip()
    spec = spec_of(hekla)
    assert id_of(secret.encode()) == spec["id"]
    assert is_key_of(secret.encode(), spec["digest"])
    assert (spec["tenant"], spec["user"], spec["scopes"], spec["models"]) == ("default", "bot", ["metrics"], ["a*"])
    assert abs(parse_rfc3339(spec["expiresAt"]) - SystemClock().now() - 7200) < 600
    listed = hekla("key", "list")
    assert spec["id"] in listed.stdout
    told = listed.stdout + hekla("key", "list", "-o", "json").stdout + hekla("get", "apikeys", "-o", "yaml").stdout
    assert secret not in told


def test_a_second_key_of_the_same_name_is_refused_and_the_first_stays(hekla: Any) -> None:
    secret = hekla("key", "create", "ci").stdout.strip()
    again = hekla("key", "create", "ci")
    assert again.exit_code == 1
    assert "hekla key rotate ci" in again.stderr
    assert is_key_of(secret.encode(), spec_of(hekla)["digest"])


def test_a_key_of_a_tenant_that_is_not_there_is_refused(hekla: Any) -> None:
    made = hekla("key", "create", "ci", "--tenant", "ghost")
    assert made.exit_code == 1
    assert "Tenant default/ghost does not exist" in made.stderr
    assert not made.stdout


def test_a_key_is_revoked_by_name_or_id_and_stays_in_the_list(hekla: Any) -> None:
    hekla("key", "create", "one")
    hekla("key", "create", "two")
    assert hekla("key", "revoke", "one").exit_code == 0
    assert hekla("key", "revoke", spec_of(hekla, "two")["id"]).exit_code == 0
    assert spec_of(hekla, "one")["revoked"]
    assert spec_of(hekla, "two")["revoked"]
    assert hekla("key", "list").stdout.count("revoked") == 2
    assert hekla("key", "revoke", "three").exit_code == 1


def test_a_rotation_keeps_the_old_secret_for_its_grace(hekla: Any) -> None:
    old = hekla("key", "create", "ci", "--user", "bot").stdout.strip()
    rotated = hekla("key", "rotate", "ci", "--grace", "30m")
    new, spec = rotated.stdout.strip(), spec_of(hekla)
    assert new != old
    assert is_key_of(new.encode(), spec["digest"])
    assert is_key_of(old.encode(), spec["previous"]["digest"])
    assert abs(parse_rfc3339(spec["previous"]["expiresAt"]) - SystemClock().now() - 1800) < 600
    assert spec["user"] == "bot"
    assert hekla("key", "rotate", id_of(old.encode()) or "").exit_code == 0, "by the old id too"


def test_a_revoked_key_is_not_rotated_back_to_life(hekla: Any) -> None:
    hekla("key", "create", "ci")
    hekla("key", "revoke", "ci")
    assert "is revoked" in hekla("key", "rotate", "ci").stderr


@pytest.mark.parametrize("span", ["soon", "5", "-1h", "1y", "9999999d", "1.5h", ""])
def test_a_time_span_that_is_none_is_refused(hekla: Any, span: str) -> None:
    made = hekla("key", "rotate", "ci", "--grace", span)
    assert made.exit_code == 1
    assert "--grace" in made.stderr


def test_a_tenant_is_an_object_like_any_other(hekla: Any, tmp_path: Any) -> None:
    spec = {"weight": 2, "models": ["chat-*"], "budgets": [{"window": "month", "tokens": 5, "money": 1.5}]}
    tenant = {"apiVersion": "hekla.io/v1alpha1", "kind": "Tenant", "metadata": {"name": "team"}, "spec": spec}
    file = tmp_path / "tenant.yaml"
    file.write_text(json.dumps(tenant))
    assert hekla("apply", "-f", str(file)).exit_code == 0
    assert "chat-*" in hekla("get", "tenants").stdout
    assert hekla("key", "create", "ci", "--tenant", "team").exit_code == 0
