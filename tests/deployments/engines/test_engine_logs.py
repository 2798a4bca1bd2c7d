"""The log on disk is bounded; its lines say how far loading is and why an engine died."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hekla.deployments.engines.log_file import LogFile
from hekla.deployments.engines.log_reading import RecentLines, loading_progress


def test_the_log_keeps_its_last_part_only(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "e.log", bytes_max=20)
    for number in range(100):
        log.write(b"%02d " % number)
    assert log.size == 300
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20
    assert log.read(-6, 100) == (b"98 99 ", 300)


def test_a_reader_whose_place_was_dropped_goes_on_at_the_oldest_byte(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "e.log", bytes_max=8)
    log.write(b"abcdefghijkl")
    assert log.read(0, 100) == (b"efghijkl", 12)
    assert log.read(99, 10) == (b"", 12)


@given(st.lists(st.binary(max_size=30), max_size=20), st.integers(1, 7))
def test_reading_in_parts_gives_what_was_written(tmp_path_factory: object, parts: list[bytes], step: int) -> None:
    folder = tmp_path_factory.mktemp("log")  # type: ignore[attr-defined]
    log = LogFile(folder / "e.log", bytes_max=4096)
    for part in parts:
        log.write(part)
    got, at = b"", 0
    while at < log.size:
        data, at = log.read(at, step)
        got += data
    assert got == b"".join(parts)


def test_a_new_run_starts_a_new_log(tmp_path: Path) -> None:
    LogFile(tmp_path / "e.log", bytes_max=4).write(b"from the first run")
    log = LogFile(tmp_path / "e.log", bytes_max=4)
    log.write(b"new")
    assert log.read(0, 100) == (b"new", 3)


def test_milestones_of_vllms_start_are_recognised() -> None:
    assert loading_progress("(Worker pid=1) Loading safetensors checkpoint shards:  50% Completed") == (
        0.35,
        "loading weights",
    )
    ready = loading_progress("(APIServer pid=7070) INFO [entry.py:140] Starting vLLM server on http://127.0.0.1:1")
    assert ready == (0.95, "starting its server")
    assert loading_progress("INFO nothing of note") is None


def test_last_words_are_the_root_cause_without_the_traceback() -> None:
    lines = RecentLines()
    lines.feed(
        b"INFO all well\n"
        b"(EngineCore pid=7) Traceback (most recent call last):\n"
        b'(EngineCore pid=7)   File "x.py", line 1, in f\n'
        b"(EngineCore pid=7) ValueError: max_model_len 9 is too long\n"
        b"RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    assert lines.last_words() == "ValueError: max_model_len 9 is too long"


def test_without_an_error_the_last_lines_are_told() -> None:
    lines = RecentLines()
    lines.feed(b"one\ntwo\n\nthr")
    lines.feed(b"ee")
    assert lines.last_words() == "one | two | three"


def test_a_line_without_end_does_not_grow_without_bound() -> None:
    lines = RecentLines()
    for _ in range(100):
        lines.feed(b"x" * 1000)
    assert len(lines.last_words()) <= 600
    assert len(lines._rest) <= 4096
