"""The LoRA controller with the ModelServing controller, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hekla.deployments.lora.failures import PAUSE_S
from hekla.deployments.lora.keeper import UNROUTED_S
from hekla.platform.api.meta import Json, Ref

Make = Callable[..., Any]
LORA = ("--enable-lora", "--max-loras")


def adapter(name: str, **more: Any) -> Json:
    return {"name": name, "uri": f"/adapters/{name}", **more}


async def test_declared_adapters_are_loaded_and_shown(make_bench: Make, serving: Make, model_server: Make) -> None:
    bench = await make_bench()
    await bench.apply(serving(2, *LORA, "2"))
    await bench.apply(model_server(adapter("a"), adapter("b")))
    await bench.rest()
    loaded = bench.loaded()
    assert sorted(name for names in loaded.values() for name in names) == ["a", "b"]
    assert bench.condition()[:2] == ("True", "Loaded")
    (a, b) = bench.status()["loraAdapters"]
    assert (a["name"], b["name"]) == ("a", "b")
    assert a["engines"] == [engine for engine, names in loaded.items() if "a" in names]


async def test_an_adapter_is_added_and_removed_while_others_stay(
    make_bench: Make, serving: Make, model_server: Make
) -> None:
    bench = await make_bench()
    await bench.apply(serving(1, *LORA, "2"))
    await bench.apply(model_server(adapter("a")))
    await bench.apply(model_server(adapter("a"), adapter("b")))
    assert bench.loaded() == {"llm-0-server-0-0": {"a", "b"}}
    api = bench.supervisor("llm-0-server-0-0").adapter_api
    api.using.add("b")
    await bench.apply(model_server(adapter("a")))
    assert bench.loaded() == {"llm-0-server-0-0": {"a"}}
    await bench.rest(60)
    assert set(api.loaded) == {"a", "b"}, "b has requests in flight: it stays on the engine"
    api.using.clear()
    await bench.rest()
    assert set(api.loaded) == {"a"}
    assert api.unloaded_in_use == []


async def test_a_waited_for_adapter_takes_an_idle_ones_slot_and_never_more_than_there_are(
    make_bench: Make, serving: Make, model_server: Make
) -> None:
    bench = await make_bench()
    await bench.apply(serving(1, *LORA, "1"))
    await bench.apply(model_server(adapter("a"), adapter("b")))
    assert bench.loaded() == {"llm-0-server-0-0": {"a"}}
    await bench.asked("b", b=1)
    await bench.rest(UNROUTED_S + 5)
    assert bench.loaded() == {"llm-0-server-0-0": {"b"}}
    assert bench.supervisor("llm-0-server-0-0").adapter_api.most_loaded == 1


async def test_pinned_adapters_are_loaded_and_stay(make_bench: Make, serving: Make, model_server: Make) -> None:
    bench = await make_bench()
    await bench.apply(serving(1, *LORA, "1"))
    await bench.apply(model_server(adapter("a"), adapter("b", pinned=True)))
    assert bench.loaded() == {"llm-0-server-0-0": {"b"}}
    await bench.asked("a", a=100)
    await bench.rest(30)
    assert bench.loaded() == {"llm-0-server-0-0": {"b"}}


async def test_a_hot_adapter_spreads_and_shrinks_only_when_its_place_is_wanted(
    make_bench: Make, serving: Make, model_server: Make
) -> None:
    bench = await make_bench()
    await bench.apply(serving(4, *LORA, "1"))
    await bench.apply(model_server(adapter("hot")))
    await bench.asked(hot=6000)
    await bench.rest()
    assert all(names == {"hot"} for names in bench.loaded().values())
    await bench.apply(model_server(adapter("hot"), adapter("new")))
    await bench.asked("new", hot=6000, new=1)
    await bench.rest(20)
    assert sorted(map(sorted, bench.loaded().values())) == [["hot"], ["hot"], ["hot"], ["new"]]


async def test_adapters_come_back_on_an_engine_that_restarted(
    make_bench: Make, serving: Make, model_server: Make
) -> None:
    bench = await make_bench()
    await bench.apply(serving(1, *LORA, "2"))
    await bench.apply(model_server(adapter("a")))
    lost = bench.supervisor("llm-0-server-0-0")
    lost.crash()
    await bench.rest(60)
    found = bench.supervisor("llm-0-server-0-0")
    assert found is not lost
    assert set(found.adapter_api.loaded) == {"a"}
    assert bench.loaded() == {"llm-0-server-0-0": {"a"}}


async def test_a_restarted_controller_moves_nothing_and_forgets_nobody(
    make_bench: Make, serving: Make, model_server: Make
) -> None:
    bench = await make_bench()
    await bench.apply(serving(3, *LORA, "2"))
    await bench.apply(model_server(*(adapter(f"a{i}") for i in range(6))))
    await bench.asked(a1=600, a2=300)
    before = bench.loaded()
    await bench.stop()
    await bench.start()
    await bench.rest(30)
    assert bench.loaded() == before


async def test_adapters_of_a_server_deleted_while_the_controller_was_away_are_unloaded(
    make_bench: Make, serving: Make, model_server: Make
) -> None:
    bench = await make_bench()
    await bench.apply(serving(1, *LORA, "2"))
    await bench.apply(model_server(adapter("a")))
    await bench.stop()
    bench.store.delete(Ref("ModelServer", "default", "llm"))
    await bench.start()
    await bench.rest(10)
    assert bench.loaded() == {"llm-0-server-0-0": set()}
    assert bench.supervisor("llm-0-server-0-0").adapter_api.loaded == {}


async def test_an_adapter_that_cannot_be_loaded_is_named_with_the_reason_and_tried_again(
    make_bench: Make, serving: Make, model_server: Make
) -> None:
    bench = await make_bench(bad="rank 64 is above 16")
    await bench.apply(serving(1, *LORA, "2"))
    await bench.apply(model_server(adapter("good"), adapter("bad")))
    status, reason, message = bench.condition()
    assert (status, reason) == ("False", "LoadFailed")
    assert message == "bad on llm-0-server-0-0: the engine refused it (400): rank 64 is above 16"
    assert bench.loaded() == {"llm-0-server-0-0": {"good"}}
    bench.refused.clear()
    await bench.rest(PAUSE_S + 10)
    assert bench.loaded() == {"llm-0-server-0-0": {"good", "bad"}}
    assert bench.condition()[:2] == ("True", "Loaded")


async def test_engines_without_lora_are_named(make_bench: Make, serving: Make, model_server: Make) -> None:
    bench = await make_bench()
    await bench.apply(serving(1))
    await bench.apply(model_server(adapter("a")))
    status, reason, message = bench.condition()
    assert (status, reason) == ("False", "LoraDisabled")
    assert "llm-0-server-0-0 run without --enable-lora" in message


async def test_minimum_replicas_without_room_say_so(make_bench: Make, serving: Make, model_server: Make) -> None:
    bench = await make_bench()
    await bench.apply(serving(2, *LORA, "1"))
    await bench.apply(model_server(adapter("a", minReplicas=2), adapter("b", pinned=True)))
    assert bench.condition()[:2] == ("False", "NoRoom")


async def test_a_server_that_declares_none_any_more_leaves_nothing_behind(
    make_bench: Make, serving: Make, model_server: Make
) -> None:
    bench = await make_bench()
    await bench.apply(serving(1, *LORA, "2"))
    await bench.apply(model_server(adapter("a")))
    await bench.apply(model_server())
    await bench.rest(5)
    assert bench.loaded() == {"llm-0-server-0-0": set()}
    assert "loraAdapters" not in bench.status()
    assert [one for one in bench.status().get("conditions", ()) if one["type"] == "AdaptersReady"] == []
