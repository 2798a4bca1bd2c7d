"""Secrets: Kubernetes' manifests are taken as they are, and no answer shows a value to anyone but the ingress."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from hekla.platform.api.hiding import HIDDEN, REVEAL_HEADER, from_kubernetes
from hekla.platform.api.kinds.secret import value_of
from hekla.platform.api.meta import Json, Ref

KEY = "sk-very-secret"
CODED = base64.b64encode(KEY.encode()).decode()
SECRETS = "/apis/hekla.io/v1alpha1/namespaces/default/secrets"
ONE = SECRETS + "/openai"
REVEAL = {REVEAL_HEADER: "1"}


def kubernetes_secret(**fields: Any) -> Json:
    values = fields or {"data": {"api-key": CODED}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "openai"}, "type": "Opaque", **values}


async def apply(api: Any, *objects: Json) -> Any:
    return await api.http.post("/hekla/v1/apply", json={"objects": list(objects)})


async def test_a_secret_written_for_kubernetes_applies_unchanged(api: Any) -> None:
    for fields in ({"data": {"api-key": CODED}}, {"stringData": {"api-key": KEY}}):
        assert (await apply(api, kubernetes_secret(**fields))).status_code == 200
        stored = api.store.get(Ref("Secret", "default", "openai"))
        assert value_of(stored, "api-key") == KEY.encode()
        assert value_of(stored, "other") is None


async def test_no_way_to_read_a_secret_shows_its_values(api: Any) -> None:
    await apply(api, kubernetes_secret(), {**kubernetes_secret(stringData={"k": KEY}), "metadata": {"name": "b"}})
    changed = {"metadata": {"labels": {"a": "b"}}}
    own = {**from_kubernetes(kubernetes_secret(stringData={"k": KEY})), "metadata": {"name": "third"}}
    patched = api.http.patch(ONE, json=changed, headers={"content-type": "application/merge-patch+json"})
    answers = [
        await api.http.get(ONE), await api.http.get(SECRETS), await api.http.get("/apis/hekla.io/v1alpha1/secrets"),
        await api.http.post(SECRETS, json=own), await patched, await api.http.get(ONE + "/status"),
    ]  # fmt: skip
    for answer in answers:
        assert answer.status_code in (200, 201), answer.text
        assert HIDDEN in answer.text
        assert KEY not in answer.text
        assert CODED not in answer.text
    assert value_of(api.store.get(Ref("Secret", "default", "openai")), "api-key") == KEY.encode(), "a patch keeps it"


async def test_a_watch_shows_values_only_to_the_ingress(api: Any) -> None:
    await apply(api, kubernetes_secret())
    for headers, shown in (({}, False), (REVEAL, True)):
        path = SECRETS + "?watch=true&sendInitialEvents=true&timeoutSeconds=1"
        answer, _ = await asyncio.gather(api.http.get(path, headers=headers), api.clock.advance(2))
        lines = [json.loads(line) for line in answer.text.splitlines()]
        (added,) = [line["object"] for line in lines if line["type"] == "ADDED"]
        assert added["spec"]["data"] == {"api-key": CODED if shown else HIDDEN}


async def test_the_ingress_reads_values(api: Any) -> None:
    await apply(api, kubernetes_secret())
    assert (await api.http.get(ONE, headers=REVEAL)).json()["spec"]["data"] == {"api-key": CODED}


async def test_what_was_hidden_can_not_be_written_back(api: Any) -> None:
    await apply(api, kubernetes_secret())
    shown = (await api.http.get(ONE)).json()
    refused = await api.http.put(ONE, json=shown)
    assert refused.status_code == 422
    assert "was hidden from you" in refused.text


async def test_a_mistake_in_a_value_is_named_without_the_value(api: Any) -> None:
    for fields in ({"data": {"a": KEY + "!"}}, {"data": {"a b": CODED}}, {"stringData": {"a": "x" * (2**20 + 1)}}):
        answer = await apply(api, kubernetes_secret(**fields))
        assert answer.status_code in (413, 422)
        assert KEY not in answer.text


async def test_an_immutable_secret_keeps_its_values(api: Any) -> None:
    await apply(api, kubernetes_secret(data={"a": CODED}, immutable=True))
    answer = await apply(api, kubernetes_secret(data={"a": ""}, immutable=True))
    assert answer.status_code == 422
    assert "immutable" in answer.text
