from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hekla.routing.prefix.batch import Batch
from hekla.routing.prefix.stream import AskReplay, Begin, Deliver, EventStream, StreamCounts


class Following:
    """A stream, and what came out of it: `B` for a complete beginning, `b` for one in the middle, `?n` for a replay."""

    def __init__(self, *, can_replay: bool = True, held_max: int = 100) -> None:
        self.counts = StreamCounts()
        self.stream = EventStream(can_replay=can_replay, held_max=held_max, counts=self.counts)
        self.out: list[Any] = []

    def note(self, instructions: list[Any]) -> list[Any]:
        fresh: list[Any] = []
        for instruction in instructions:
            match instruction:
                case Begin(is_complete):
                    fresh.append("B" if is_complete else "b")
                case AskReplay(first):
                    fresh.append(f"?{first}")
                case Deliver(batch):
                    fresh.append(batch.made_s)
        self.out += fresh
        return fresh

    def heard(self, sequence: int, at_s: float | None = None) -> list[Any]:
        return self.note(self.stream.heard(sequence, Batch(float(sequence) if at_s is None else at_s, ())))

    def replayed(self, *sequences: int, ends: bool = True, since_s: float = 0.0) -> list[Any]:
        fresh = []
        for sequence in sequences:
            fresh += self.note(self.stream.replayed(sequence, Batch(sequence + since_s, ())))
        return fresh + (self.note(self.stream.replay_ended()) if ends else [])

    def started(self, upto: int) -> Following:
        self.note(self.stream.probe())
        self.replayed(*range(upto))
        self.out.clear()
        return self


def test_a_replay_at_the_beginning_tells_what_is_cached_already() -> None:
    following = Following()
    assert following.note(following.stream.probe()) == ["?0"]
    assert following.replayed(0, 1, 2) == ["B", 0, 1, 2]
    assert following.heard(3) == [3]


def test_an_engine_that_has_published_nothing_is_known_completely() -> None:
    following = Following()
    following.note(following.stream.probe())
    assert following.replayed() == ["B"]
    assert following.heard(0) == [0]


def test_an_engine_that_remembers_only_its_latest_is_not_known_completely() -> None:
    following = Following()
    following.note(following.stream.probe())
    assert following.replayed(7, 8) == ["b", 7, 8]


def test_what_is_heard_during_a_replay_comes_after_it_and_once() -> None:
    following = Following()
    following.note(following.stream.probe())
    assert following.heard(1) == following.heard(2) == []
    assert following.replayed(0, 1) == ["B", 0, 1, 2]
    assert following.counts.gaps == 0


def test_a_gap_is_filled_from_the_engines_memory() -> None:
    following = Following().started(3)
    assert following.heard(5) == ["?2"]
    assert following.heard(6) == []
    assert following.replayed(2, 3, 4, 5) == [3, 4, 5, 6]
    assert (following.counts.gaps, following.counts.lost) == (1, 0)


def test_a_gap_beyond_the_engines_memory_starts_anew_from_what_it_remembers() -> None:
    following = Following().started(3)
    following.heard(90)
    assert following.replayed(80, ends=False) == ["?0"]
    assert following.replayed(80, 81, 82, *range(83, 91)) == ["b", *range(80, 91)]
    assert following.heard(91) == [91]


def test_a_gap_at_an_engine_that_cannot_replay_starts_anew_with_the_next() -> None:
    following = Following(can_replay=False)
    assert following.heard(0) == ["B", 0]
    assert following.heard(4) == ["b", 4]
    assert following.heard(5) == [5]
    assert (following.counts.gaps, following.counts.lost) == (1, 1)


def test_an_engine_that_cannot_replay_and_is_heard_late_is_followed_from_there() -> None:
    following = Following(can_replay=False)
    assert following.note(following.stream.probe()) == []
    assert following.heard(17) == ["b", 17]


def test_a_replay_without_an_answer_starts_anew_with_what_was_heard_meanwhile() -> None:
    following = Following().started(3)
    following.heard(5)
    following.heard(6)
    assert following.note(following.stream.replay_failed()) == ["b", 5, 6]
    assert following.heard(7) == [7]


def test_a_probe_without_an_answer_changes_nothing() -> None:
    following = Following().started(3)
    assert following.note(following.stream.probe()) == ["?2"]
    assert following.note(following.stream.replay_failed()) == []
    assert following.heard(3) == [3]


def test_a_probe_finds_the_last_events_when_they_were_missed() -> None:
    following = Following().started(3)
    following.note(following.stream.probe())
    assert following.replayed(2, 3, 4) == [3, 4]


def test_a_restarted_engine_begins_anew() -> None:
    following = Following().started(3)
    assert following.heard(0, at_s=100.0) == ["B", 100.0]
    assert following.heard(1, at_s=101.0) == [101.0]
    assert following.counts.restarts == 1


def test_a_restarted_engine_whose_first_events_were_missed_is_asked_for_them() -> None:
    following = Following().started(3)
    assert following.heard(1, at_s=101.0) == ["?0"]
    assert following.replayed(0, 1, since_s=100.0) == ["B", 100.0, 101.0]


def test_a_restart_that_catches_up_with_the_number_expected_is_noticed_by_its_time() -> None:
    following = Following().started(3)
    following.heard(7, at_s=107.0)
    assert following.replayed(2, ends=False, since_s=100.0) == ["?0"]
    assert following.replayed(*range(8), since_s=100.0) == ["B", *[100.0 + n for n in range(8)]]


def test_a_restarted_engine_that_has_said_less_than_was_known_is_noticed_by_a_probe() -> None:
    following = Following().started(30)
    following.note(following.stream.probe())
    assert following.replayed() == ["?0"]
    assert following.replayed(0, since_s=100.0) == ["B", 100.0]


def test_a_batch_heard_again_is_not_taken_twice() -> None:
    following = Following().started(3)
    assert following.heard(1) == following.heard(2) == []
    assert following.counts.restarts == 0


def test_a_batch_that_cannot_be_read_ends_what_was_known_and_is_not_asked_for_again() -> None:
    following = Following().started(3)
    assert following.note(following.stream.malformed()) == ["b"]
    assert following.heard(4) == ["b", 4]
    assert following.heard(5) == [5]
    assert following.counts.malformed == 1


def test_a_hole_in_the_engines_own_memory_is_a_loss() -> None:
    following = Following().started(3)
    following.heard(9)
    assert following.replayed(2, 3, 5, 6, 7, 8, 9) == [3, "b", 5, 6, 7, 8, 9]
    assert following.counts.lost == 1


def test_an_engine_that_never_fills_a_gap_is_not_asked_for_ever() -> None:
    following = Following().started(3)
    asked = 0
    following.heard(5)
    for _ in range(20):
        if following.stream.state.name == "LIVE":
            break
        asked += 1
        following.replayed(2)
    assert asked <= 4
    assert following.out[-1] == 5


def test_too_much_heard_during_a_replay_ends_it() -> None:
    following = Following(held_max=2).started(3)
    following.heard(5)
    following.heard(6)
    assert following.heard(7) == ["b", 5, 6]
    assert following.heard(8) == ["?6"]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_is_lost_nothing_is_out_of_order_and_what_is_called_complete_is(data: st.DataObject) -> None:
    """An engine that publishes, loses messages, forgets old ones and restarts; the listener must end up with its history."""
    following, clock = Following(held_max=20), 0.0
    history: list[Any] = []
    buffer = data.draw(st.integers(1, 30), "buffer")
    following.note(following.stream.probe())
    pending = [0]

    def serve_replays(fail: bool) -> None:
        while pending:
            first = pending.pop(0)
            following_out = []
            if fail:
                following_out += following.note(following.stream.replay_failed())
            else:
                restarted = False
                for number, at_s in [each for each in list(enumerate(history))[-buffer:] if each[0] >= first]:
                    following_out = following.note(following.stream.replayed(number, Batch(at_s, ())))
                    if any(str(each).startswith("?") for each in following_out):
                        restarted = True
                        break
                if not restarted:
                    following_out = following.note(following.stream.replay_ended())
            pending.extend(int(each[1:]) for each in following_out if str(each).startswith("?"))

    for act in data.draw(st.lists(st.sampled_from("ppppplrsf"), max_size=60), "acts"):
        clock += 1
        if act == "r":
            history = []
        elif act in "pl":
            history.append(clock)
            # A restart of which nothing is heard until the number expected comes is only seen in the routing table.
            if act == "p" or len(history) == 1:
                out = following.heard(len(history) - 1, clock)
                pending.extend(int(each[1:]) for each in out if str(each).startswith("?"))
        else:
            serve_replays(fail=act == "f")
    serve_replays(fail=False)
    pending.extend(int(each[1:]) for each in following.note(following.stream.probe()) if str(each).startswith("?"))
    serve_replays(fail=False)
    marks = [place for place, each in enumerate(following.out) if each in ("B", "b")]
    told = [each for each in following.out[marks[-1] :] if isinstance(each, float)]
    assert told == sorted(set(told))
    if following.out[marks[-1]] == "B":
        assert told == history
    elif told:
        assert told == history[-len(told) :]
