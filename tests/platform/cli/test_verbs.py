"""The verbs, as a person or a script uses them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hekla import __version__


def test_apply_says_what_it_did_and_the_second_time_that_nothing_changed(
    hekla: Any, manifest: str, tmp_path: Path
) -> None:
    (tmp_path / "m.yaml").write_text(manifest)
    assert hekla("apply", "-f", str(tmp_path)).stdout == "ModelServing default/chat created\n"
    assert hekla("apply", "-f", str(tmp_path / "m.yaml")).stdout == "ModelServing default/chat unchanged\n"


def test_apply_dry_run_changes_nothing(hekla: Any, manifest: str) -> None:
    assert "created (dry run)" in hekla("apply", "-f", "-", "--dry-run", "--wait", typed=manifest).stdout
    assert hekla.client.list("ModelServing") == []


def test_apply_refuses_with_every_field_on_standard_error_and_no_traceback(hekla: Any, manifest: str) -> None:
    result = hekla("apply", "-f", "-", typed=manifest.replace("replicas: 1", "replicas: -1\n  surprise: 1", 1))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "spec.replicas" in result.stderr and "spec.surprise" in result.stderr
    assert "Traceback" not in result.stderr


def test_apply_names_the_line_of_broken_yaml(hekla: Any) -> None:
    result = hekla("apply", "-f", "-", typed="a: 1\nb: [\n")
    assert (result.exit_code, "standard input, document 1, line 3" in result.stderr) == (1, True)


def test_apply_wait_ends_with_3_and_the_reason_when_not_ready_in_time(hekla: Any, manifest: str) -> None:
    result = hekla("apply", "-f", "-", "--wait", "--timeout", "0.1", typed=manifest)
    assert (result.exit_code, "no Available condition yet" in result.stderr) == (3, True)


def test_wait_shows_the_engines_steps_and_ends_when_ready(applied: Any) -> None:
    applied.make_engine(phase="Fetching", progress=0.4)
    applied.set_condition("False", "not yet")
    late = applied("wait", "ms", "chat", "--timeout", "0.1s")
    assert (late.exit_code, "chat-0-a-0-0: Fetching 40%" in late.stderr) == (3, True)
    applied.set_condition("True")
    done = applied("wait", "ModelServing", "chat")
    assert (done.exit_code, "ready after" in done.stdout) == (0, True)


def test_wait_for_delete_ends_when_it_is_gone(applied: Any) -> None:
    assert applied("wait", "ms", "chat", "--for=delete", "--timeout", "0.1").exit_code == 3
    applied.client.delete("ms", "chat")
    assert applied("wait", "ms", "chat", "--for=delete").exit_code == 0


def test_get_prints_the_kinds_columns(applied: Any, rows: Any) -> None:
    heading, row = rows(applied("get", "ms").stdout)
    assert heading[:2] == ["NAME", "REPLICAS"] and heading[-1] == "AGE"
    assert row[:2] == ["chat", "1"]
    assert rows(applied("get", "ms", "-A").stdout)[1][0] == "default"


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_get_prints_for_programs(applied: Any, output: str, read: Any) -> None:
    many = read(applied("get", "ms", "-o", output).stdout)
    assert (many["kind"], many["items"][0]["metadata"]["name"]) == ("List", "chat")
    assert read(applied("get", "ms", "chat", "-o", output).stdout)["metadata"]["name"] == "chat"
    assert read(applied("get", "ms", "-n", "empty", "-o", output).stdout)["items"] == []


def test_get_selects_by_label_and_says_when_there_is_nothing(applied: Any) -> None:
    assert applied("get", "ms", "-l", "team=a", "-o", "name").stdout == "modelserving/chat\n"
    nothing = applied("get", "ms", "-l", "team=b")
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", "no modelservings in namespace default\n")
    assert applied("get", "ms", "-l", "team").exit_code == 1


def test_get_of_what_is_not_there_fails_in_one_line(hekla: Any) -> None:
    result = hekla("get", "ms", "nobody")
    assert (result.exit_code, result.stderr) == (1, "hekla: ModelServing default/nobody not found\n")
    assert "known kinds" in hekla("get", "surprises").stderr


def test_get_watch_prints_rows_as_they_come(applied: Any) -> None:
    command = [sys.executable, "-u", "-m", "hekla.platform.cli", "--server", applied.server.url, "get", "ms", "-w"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("NAME")
        assert process.stdout.readline().split()[:2] == ["chat", "1"]
        applied.client.scale("ms", "chat", 3)
        assert process.stdout.readline().split()[:2] == ["chat", "3"]
        applied.client.delete("ms", "chat")
        assert process.stdout.readline().strip().endswith("(deleted)")
        process.terminate()


def test_describe_shows_spec_conditions_engines_and_events(applied: Any) -> None:
    applied.make_engine()
    applied.set_condition("False", "short of GPU on n1")
    applied.record_event()
    text = applied("describe", "ms", "chat").stdout
    for said in ("team=a", "roles:", "Available", "short of GPU on n1", "chat-0-a-0-0", "EngineFailed", "it fell over"):
        assert said in text


def test_delete_by_name_and_by_manifest(applied: Any, manifest: str) -> None:
    assert applied("delete", "ms", "chat").stdout == "ModelServing default/chat deleted\n"
    assert applied("delete", "ms", "chat").exit_code == 1
    applied("apply", "-f", "-", typed=manifest)
    assert applied("delete", "-f", "-", typed=manifest).exit_code == 0
    again = applied("delete", "-f", "-", typed=manifest)
    assert (again.exit_code, "is not there" in again.stderr) == (0, True)


def test_delete_without_a_target_or_with_two_is_wrong_usage(applied: Any) -> None:
    assert applied("delete").exit_code == 2
    assert applied("delete", "ms").exit_code == 2
    assert applied("delete", "ms", "chat", "-f", "x.yaml").exit_code == 2


def test_delete_waits_for_finalizers_unless_told_not_to(applied: Any) -> None:
    applied.client.patch("ms", "chat", {"metadata": {"finalizers": ["hekla.io/engines"]}})
    late = applied("delete", "ms", "chat", "--timeout", "0.1")
    assert (late.exit_code, "hekla.io/engines" in late.stderr) == (3, True)
    assert applied("delete", "ms", "chat", "--no-wait").exit_code == 0


def test_scale_sets_the_replicas(applied: Any) -> None:
    assert "scaled to 4" in applied("scale", "ms", "chat", "--replicas", "4").stdout
    assert applied.client.get("ms", "chat")["spec"]["replicas"] == 4
    assert applied("scale", "ms", "chat", "--replicas", "-1").exit_code == 2


def test_events_of_one_object_or_of_all(applied: Any, rows: Any) -> None:
    applied.record_event()
    applied.record_event("other", "Started")
    assert len(rows(applied("events").stdout)) == 3
    assert rows(applied("events", "ms", "chat").stdout)[1][1:4] == ["Warning", "EngineFailed", "ModelServing/chat"]
    assert len(json.loads(applied("events", "-o", "json").stdout)["items"]) == 2


def test_logs_of_one_engine_are_printed_as_they_are(applied: Any) -> None:
    applied.make_engine()
    applied.server.logs.write("default", "chat-0-a-0-0", "one\ntwo\n")
    for name in ("chat-0-a-0-0", "chat"):
        assert applied("logs", name).stdout == "one\ntwo\n"
    assert applied("logs", "chat", "--tail", "1").stdout == "two\n"


def test_logs_of_several_engines_name_theirs_in_each_line(applied: Any) -> None:
    for name in ("e-0", "e-10"):
        applied.make_engine(name)
        applied.server.logs.write("default", name, f"from {name}\nand more")
    text = applied("logs", "chat").stdout
    assert text == "e-0  | from e-0\ne-0  | and more\ne-10 | from e-10\ne-10 | and more\n"


def test_logs_of_what_has_no_engines_say_so(applied: Any) -> None:
    result = applied("logs", "chat")
    assert (result.exit_code, "no engine is named chat" in result.stderr) == (1, True)


def test_status_shows_nodes_models_and_engines(hekla: Any) -> None:
    hekla.server.summary = {
        "endpoint": "http://h:1",
        "nodes": [{"name": "n1", "address": "10.0.0.1", "head": True, "engines": 1,
                   "total": {"CPU": 4.0, "memory": 2.0 * 2**30}, "free": {"CPU": 1.5, "memory": 2.0**30}}],
        "models": [{"name": "m", "namespace": "default", "route": "r", "owner": "", "enginesReady": 1, "engines": 2,
                    "message": "e: Loading"}],
        "engines": [{"name": "e", "namespace": "default", "role": "a", "phase": "Loading", "node": "n1",
                     "address": "", "pid": 7, "message": ""}],
        "totals": {"engines": 1},
    }  # fmt: skip
    text = hekla("status").stdout
    for said in ("http://h:1/v1", "n1 (head)", "CPU 2.5/4", "memory 1.0/2.0 GiB", "1/2", "e: Loading", "Loading"):
        assert said in text
    assert json.loads(hekla("status", "-o", "json").stdout) == hekla.server.summary
    assert yaml.safe_load(hekla("status", "-o", "yaml").stdout) == hekla.server.summary


def test_version_shows_both_and_survives_a_server_that_is_away(hekla: Any) -> None:
    assert hekla("version").stdout == f"client {__version__}\nserver {__version__}\n"
    away = hekla("version", "-o", "json", url="http://127.0.0.1:9")
    assert (away.exit_code, json.loads(away.stdout)["server"]) == (0, None)


def test_a_server_that_is_away_is_told_with_what_to_do(hekla: Any) -> None:
    result = hekla("get", "ms", url="http://127.0.0.1:9")
    assert result.exit_code == 1
    assert result.stderr.startswith("hekla: can't reach hekla at http://127.0.0.1:9")
    assert result.stderr.strip().endswith("is it up? try: hekla up")


@pytest.mark.parametrize(
    "arguments", [["get"], ["fly"], ["get", "ms", "-o", "xml"], ["wait", "ms", "x", "--for", "rain"]]
)
def test_wrong_usage_is_exit_code_2(hekla: Any, arguments: list[str]) -> None:
    assert hekla(*arguments).exit_code == 2


def test_a_timeout_that_is_no_duration_is_refused(applied: Any) -> None:
    assert "is not a duration" in applied("wait", "ms", "chat", "--timeout", "soon").stderr


def test_help_imports_neither_ray_nor_an_http_client() -> None:
    code = (
        "import sys; from hekla.platform.cli.app import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('ray', 'httpx', 'openai', 'starlette') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_deleting_says_what_it_waits_for(applied: Any) -> None:
    said = applied("delete", "ms", "chat").stderr
    assert "waiting until ModelServing chat and its engines are gone" in said
    assert "waiting" in applied("wait", "ms", "chat", "--for", "delete").stderr
