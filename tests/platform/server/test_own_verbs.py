"""Discovery, status, version, health and logs."""

from __future__ import annotations

from typing import Any

import pytest

from hekla import __version__
from hekla.platform.api.registry import all_kinds
from hekla.platform.base.clock import settle
from hekla.platform.base.tasks import TaskOwner
from hekla.platform.server.engine_logs import LOG_POLL_S

LOG = "/hekla/v1/engines/default/chat-0-a-0-0/log"


async def test_discovery_leads_to_every_kind(api: Any) -> None:
    found = set()
    for group in (await api.http.get("/apis")).json()["groups"]:
        assert (await api.http.get(f"/apis/{group['name']}")).json() == group
        for version in group["versions"]:
            listed = (await api.http.get(f"/apis/{version['groupVersion']}")).json()
            found |= {entry["kind"] for entry in listed["resources"] if "/" not in entry["name"]}
    assert found == set(all_kinds())


async def test_discovery_offers_no_writing_verb_for_internal_kinds(api: Any) -> None:
    listed = (await api.http.get("/apis/hekla.io/v1alpha1")).json()["resources"]
    internal = [entry for entry in listed if all_kinds()[entry["kind"]].internal]
    assert {verb for entry in internal for verb in entry["verbs"]} == {"get", "list", "watch"}


@pytest.mark.parametrize("path", ["/apis/none.io", "/apis/none.io/v1", "/apis/hekla.io/v9"])
async def test_a_group_that_is_not_there_is_not_found(api: Any, path: str) -> None:
    assert (await api.http.get(path)).status_code == 404


async def test_health_version_status_and_openapi_answer(api: Any) -> None:
    assert (await api.http.get("/healthz")).text == "ok"
    assert (await api.http.get("/hekla/v1/version")).json() == {"hekla": __version__}
    assert (await api.http.get("/hekla/v1/status")).json() == {"nodes": []}
    assert (await api.http.get("/openapi/v3")).json()["openapi"].startswith("3.")


async def test_a_log_is_read_from_an_offset_with_a_limit_or_by_its_last_lines(api: Any) -> None:
    api.store.create(api.engine())
    api.logs.write("default", "chat-0-a-0-0", "one\ntwo\nthree\n")

    async def read(**params: Any) -> str:
        return str((await api.http.get(LOG, params=params)).text)

    assert await read() == "one\ntwo\nthree\n"
    assert await read(offset=4, limit=3) == "two"
    assert await read(offset=-6) == "three\n"
    assert await read(tailLines=2) == "two\nthree\n"
    assert await read(tailLines=0) == ""
    assert await read(tailLines=99) == "one\ntwo\nthree\n"


async def test_the_log_of_an_engine_that_is_not_there_is_not_found(api: Any) -> None:
    assert (await api.http.get(LOG)).status_code == 404
    api.store.create(api.engine())
    assert (await api.http.get(LOG)).status_code == 404


@pytest.mark.parametrize("params", [{"tailLines": -1}, {"offset": "x"}, {"limit": -1}, {"follow": "perhaps"}])
async def test_bad_log_parameters_are_named(api: Any, params: dict[str, Any]) -> None:
    api.store.create(api.engine())
    answer = await api.http.get(LOG, params=params)
    assert answer.status_code == 400
    assert next(iter(params)) in answer.json()["message"]


async def test_a_followed_log_goes_on_until_the_engine_is_gone(api: Any) -> None:
    api.store.create(api.engine())
    api.logs.write("default", "chat-0-a-0-0", "first\n")
    async with TaskOwner("test") as tasks:
        following = tasks.spawn(api.http.get(LOG, params={"follow": "true"}), "follow")
        await settle()
        api.logs.write("default", "chat-0-a-0-0", "second\n")
        await api.clock.advance(LOG_POLL_S)
        assert not following.done()
        api.logs.remove("default", "chat-0-a-0-0")
        await api.clock.advance(LOG_POLL_S)
        assert (await following).text == "first\nsecond\n"
