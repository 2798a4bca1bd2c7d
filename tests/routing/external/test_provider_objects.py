"""The kind ExternalModelProvider: what is admitted, and what its conditions say."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from hekla.platform.api.admission import admit
from hekla.platform.api.kinds.external_model_provider import CREDENTIAL_LABEL
from hekla.platform.api.meta import Json, Ref
from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.errors import Invalid
from hekla.platform.base.ids import SeededIds
from hekla.platform.control.runtime import ControllerRuntime
from hekla.platform.store.memory import MemoryStore
from hekla.routing.external.controller import ExternalModelProviderController
from hekla.routing.external.provider import resolved
from hekla.routing.external.wire import url_for

REF = Ref("ExternalModelProvider", "default", "p")


def provider(**spec: Any) -> Json:
    return {
        "apiVersion": "networking.serving.volcano.sh/v1alpha1",
        "kind": "ExternalModelProvider",
        "metadata": {"name": "p"},
        "spec": {"baseURL": "https://api.example.com", **spec},
    }


def secret(data: dict[str, str], labels: Json | None = None) -> Json:
    coded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    meta = {"name": "keys", "labels": {CREDENTIAL_LABEL: "true"} if labels is None else labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": coded}


AUTH = {"auth": {"secretRef": {"name": "keys", "key": "api-key"}}}


def test_defaults_are_those_of_the_reference() -> None:
    spec = admit(provider())["spec"]
    assert (spec["providerType"], spec["insecureSkipVerify"]) == ("OpenAI", False)


@pytest.mark.parametrize(
    ("spec", "path", "said"),
    [
        ({"baseURL": "http://a"}, "spec.baseURL", "https://"),
        ({"baseURL": "api.example.com"}, "spec.baseURL", "https://"),
        ({"baseURL": "https://"}, "spec.baseURL", "https://"),
        ({"baseURL": "https://user:hunter2@a"}, "spec.baseURL", "a user or a password"),
        ({"baseURL": "https://a?x=1"}, "spec.baseURL", "a query or a fragment"),
        ({"baseURL": "https://a#x"}, "spec.baseURL", "a query or a fragment"),
        ({"baseURL": "https://a:99999"}, "spec.baseURL", "is not a URL"),
        ({"providerType": "Gemini"}, "spec.providerType", "OpenAI"),
        ({"model": "x" * 257}, "spec.model", "256"),
        ({"auth": {"scheme": "Basic", **AUTH["auth"]}}, "spec.auth.scheme", "Bearer"),
        ({"auth": {"scheme": "Bearer"}}, "spec.auth.secretRef", "required"),
        (
            {"auth": {"secretRef": {"name": "a", "key": "b", "optional": True}}},
            "spec.auth.secretRef.optional",
            "allowed: False",
        ),
        ({"headers": {"Authorization": "x"}}, "spec.headers.Authorization", "is reserved"),
        ({"headers": {"X-API-Key": "x"}}, "spec.headers.X-API-Key", "is reserved"),
        ({"headers": {"te": "x"}}, "spec.headers.te", "is reserved"),
        ({"headers": {"a b": "x"}}, 'spec.headers["a b"]', "name of a header"),
        ({"headers": {"a": "x\r\nb: y"}}, "spec.headers.a", "one line"),
        ({"headers": {"A": "x", "a": "y"}}, "spec.headers.a", "twice"),
        ({"headers": {f"h{i}": "x" for i in range(33)}}, "spec.headers", "33"),
    ],
)
def test_a_mistake_is_refused_by_name(spec: Json, path: str, said: str) -> None:
    with pytest.raises(Invalid) as refused:
        admit(provider(**spec))
    (problem,) = refused.value.causes
    assert said in problem.problem
    assert "hunter2" not in str(refused.value)
    assert problem.path == path


def findings(obj: Json, *secrets: Json) -> tuple[Any, Any]:
    found = resolved(admit(obj), {("default", s["metadata"]["name"]): admit(s) for s in secrets})
    assert (found.provider is not None) == found.ready.holds
    return found.ready.reason, found.credentials.reason


@pytest.mark.parametrize(
    ("secrets", "expected"),
    [
        ([], "CredentialNotFound"),
        ([secret({"other": "x"})], "CredentialKeyNotFound"),
        ([secret({"api-key": "x"}, labels={})], "CredentialInvalid"),
        ([secret({"api-key": ""})], "CredentialInvalid"),
        ([secret({"api-key": "a\nb"})], "CredentialInvalid"),
        ([secret({"api-key": "é"})], "CredentialInvalid"),
        ([secret({"api-key": "x" * 8193})], "CredentialInvalid"),
    ],
)
def test_a_credential_that_can_not_be_had_is_said_in_both_conditions(secrets: list[Json], expected: str) -> None:
    assert findings(provider(**AUTH), *secrets) == (expected, expected)


def test_reasons_of_providers_that_are_ready() -> None:
    assert findings(provider()) == ("Ready", "CredentialNotRequired")
    assert findings(provider(**AUTH), secret({"api-key": "sk-1\n"})) == ("Ready", "CredentialResolved")


def test_an_object_that_got_in_before_a_rule_did_is_configuration_invalid() -> None:
    for spec in ({"baseURL": "http://a"}, {"headers": {"Host": "x"}}, {"nonsense": 1}):
        found = resolved({**provider(**spec), "metadata": {"name": "p"}}, {})
        assert (found.ready.reason, found.provider) == ("ConfigurationInvalid", None)


@pytest.mark.parametrize(
    ("kind", "scheme", "header", "value"),
    [
        ("OpenAI", None, "authorization", "Bearer sk-1"),
        ("Anthropic", None, "x-api-key", "sk-1"),
        ("OpenAI", "APIKey", "x-api-key", "sk-1"),
        ("Anthropic", "Bearer", "authorization", "Bearer sk-1"),
    ],
)
def test_the_credential_goes_where_the_scheme_says(kind: str, scheme: Any, header: str, value: str) -> None:
    auth = {"auth": {**AUTH["auth"], **({"scheme": scheme} if scheme else {})}}
    obj = admit(provider(providerType=kind, **auth))
    found = resolved(obj, {("default", "keys"): admit(secret({"api-key": "sk-1\n"}))}).provider
    assert found is not None
    assert dict(found.headers) == {header: value}
    assert "sk-1" not in repr(found)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://a", "https://a/v1/messages"), ("https://a/", "https://a/v1/messages"),
        ("https://a/v1/", "https://a/v1/messages"), ("https://a/x/y", "https://a/x/y/v1/messages"),
    ],
)  # fmt: skip
def test_the_path_is_put_behind_the_base_url(base: str, url: str) -> None:
    found = resolved(admit(provider(baseURL=base)), {}).provider
    assert found is not None
    assert url_for(found, "/v1/messages", b"") == url


async def test_the_controller_follows_the_secret() -> None:
    clock, store = VirtualClock(), MemoryStore(VirtualClock(), SeededIds(1))
    runtime = ControllerRuntime(store, [ExternalModelProviderController(store, clock)], clock, SeededIds(2))
    await runtime.start()

    def condition(kind: str) -> tuple[str, str]:
        (found,) = [one for one in store.get(REF)["status"]["conditions"] if one["type"] == kind]
        return found["status"], found["reason"]

    store.create(admit(provider(**AUTH)))
    await clock.advance(1)
    assert condition("Ready") == condition("CredentialsResolved") == ("False", "CredentialNotFound")
    store.create(admit(secret({"api-key": "sk-1"})))
    await clock.advance(1)
    assert (condition("Ready"), condition("CredentialsResolved")) == (("True", "Ready"), ("True", "CredentialResolved"))
    assert "sk-1" not in str(store.get(REF)), "a status never holds the value"
    store.delete(Ref("Secret", "default", "keys"))
    await clock.advance(1)
    assert condition("Ready") == ("False", "CredentialNotFound")
    store.delete(REF)
    await clock.advance(1)
    await runtime.stop()
