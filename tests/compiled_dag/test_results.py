"""Results on their way from channels to refs, with channels that are lists.

See `test_driver` for the same with real channels and threads.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from compiled_dag import CapacityExceededError
from compiled_dag.channel import layout as at
from compiled_dag.outcome import Error
from compiled_dag.ref import PENDING
from compiled_dag.results import News, Results
from compiled_dag.trace.log import Log


class FakeReader:
    """A channel's end over a list of messages."""

    def __init__(self, label: str = "Worker.f#1") -> None:
        self.messages: list = []
        self.sequence = 0
        self.skipped: list = []
        self.words = self
        self.sequence_word = 0
        self.spec = SimpleNamespace(label=label, index=0)

    def __getitem__(self, _word) -> int:
        return len(self.messages)

    def ready(self) -> bool:
        return self.sequence < len(self.messages)

    def peek(self):
        return self.messages[self.sequence]

    def advance(self) -> None:
        self.sequence += 1

    def skip(self) -> None:
        self.skipped.append(self.sequence)
        self.sequence += 1


class Ref:
    """What `fill` fills in."""

    def __init__(self, execution: int, output: int = 0) -> None:
        self._execution = execution
        self._output = output
        self._value = PENDING


class Graph:
    """Outputs over channels: ``reader_of[output]`` is the channel."""

    def __init__(self, *reader_of: int | None, max_kept: int = 100) -> None:
        count = len({number for number in reader_of if number is not None})
        self.readers = [FakeReader(f"f#{number}") for number in range(count)]
        self.words = {at.STATE_WORD: at.OPEN}
        self.log = Log(count, 1, memoryview(bytearray(4096)).cast("Q"))
        self.news = News(lambda: None, lambda function: function())
        self.results = Results(self, self.readers, reader_of, max_kept, self.news, self.log)

    def publish(self, *messages) -> None:
        """Have every channel show these."""
        for reader in self.readers:
            reader.messages += messages

    def get(self, execution: int, output: int = 0):
        """Return a result, or PENDING."""
        ref = Ref(execution, output)
        self.results.fill(ref)
        return ref._value

    def is_clean(self) -> bool:
        """Tell whether nothing is remembered about any execution."""
        return not any(
            part
            for kind in ("_kept", "_dropped", "_claimed")
            for part in getattr(self.results, kind)
        )


def test_a_result_is_taken_when_it_is_there() -> None:
    graph = Graph(0)
    assert graph.get(0) is PENDING
    graph.publish("a")
    assert graph.get(0) == "a"
    assert graph.is_clean()


def test_results_read_on_the_way_are_kept_until_they_are_got() -> None:
    graph = Graph(0)
    graph.publish("a", "b", "c")
    assert graph.get(2) == "c"
    assert [graph.get(0), graph.get(1)] == ["a", "b"]
    assert graph.is_clean()


def test_a_ref_that_has_its_value_is_left_alone() -> None:
    graph, ref = Graph(0), Ref(0)
    ref._value = None
    assert graph.results.fill(ref)
    assert graph.readers[0].sequence == 0


def test_errors_are_results() -> None:
    graph = Graph(0)
    graph.publish(Error.capture(ValueError("bad")))
    assert isinstance(graph.get(0), Error)


def test_nothing_is_read_once_the_graph_has_ended_and_what_is_kept_stays() -> None:
    graph = Graph(0)
    graph.publish("a", "b", "c")
    assert graph.get(1) == "b"
    graph.words[at.STATE_WORD] = at.CLOSED
    assert graph.get(2) is PENDING
    assert graph.get(0) == "a"


def test_more_than_may_be_kept_is_refused_and_nothing_is_lost() -> None:
    graph = Graph(0, max_kept=1)
    graph.publish("a", "b", "c")
    with pytest.raises(
        CapacityExceededError, match=r"2 results of f#0 .* from execution 0 on, and"
    ):
        graph.get(2)
    assert [graph.get(0), graph.get(2), graph.get(1)] == ["a", "c", "b"]


# --- several outputs ------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["get", "forget"])
def test_a_result_of_several_outputs_is_kept_until_the_last_of_them_is_done(end) -> None:
    graph = Graph(0, 0, 0)
    graph.publish("a")
    assert [graph.get(0, 0), graph.get(0, 2)] == ["a", "a"]
    assert not graph.is_clean()
    if end == "get":
        assert graph.get(0, 1) == "a"
    else:
        graph.results.forget(0, 1)
    assert graph.is_clean()


def test_a_result_that_all_outputs_dropped_is_passed_over() -> None:
    graph = Graph(0, 0)
    graph.results.forget(0, 0)
    graph.publish("a", "b")
    graph.results.forget(0, 1)
    assert graph.get(1, 0) == graph.get(1, 1) == "b"
    assert graph.readers[0].skipped == [0]
    assert graph.is_clean()


def test_an_output_of_its_own_channel_is_served_directly() -> None:
    graph = Graph(0, 1, 1, None)
    assert graph.results.own == (graph.readers[0], None, None, None)


# --- dropped results ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["a", None, 0, PENDING])
def test_a_result_dropped_after_it_was_read_is_gone(value) -> None:
    graph = Graph(0)
    graph.publish("early", "late")
    assert graph.get(1) == "late"
    graph.results.forget(0, 0)
    assert graph.is_clean()


def test_a_result_dropped_before_it_arrived_is_passed_over() -> None:
    graph = Graph(0)
    graph.results.forget(0, 0)
    graph.publish("a", "b")
    assert graph.get(1) == "b"
    assert graph.readers[0].skipped == [0]
    assert graph.is_clean()


@pytest.mark.parametrize("when", ["peek", "advance"])
def test_a_result_dropped_while_it_is_read_is_gone(when) -> None:
    graph = Graph(0)
    (reader,) = graph.readers
    method = getattr(reader, when)

    def forget_then():
        if reader.sequence == 0:
            graph.results.forget(0, 0)
        return method()

    setattr(reader, when, forget_then)
    graph.publish("a", "b")
    assert graph.get(1) == "b"
    assert graph.is_clean()


def test_an_execution_without_refs_is_passed_over() -> None:
    graph = Graph(0, 1)
    graph.results.drop(0)
    graph.publish("a", "b")
    assert graph.get(1, 0) == graph.get(1, 1) == "b"
    assert graph.is_clean()


# --- room -----------------------------------------------------------------------------------------


def test_an_execution_is_fetched_when_all_channels_are_past_it() -> None:
    graph = Graph(0, 1)
    graph.publish("a", "b")
    assert graph.results.room(move=False).fetched == 0
    graph.get(1, 0)
    assert graph.results.room(move=False).fetched == 0
    assert graph.results.room(move=False).stuck == ((graph.readers[1], 0),)
    graph.get(0, 1)
    assert graph.results.room(move=False).fetched == 1


def test_passing_over_what_was_dropped_makes_room() -> None:
    graph = Graph(0)
    graph.publish("a", "b", "c")
    for execution in (0, 1, 3):
        graph.results.forget(execution, 0)
    assert graph.results.room(move=False).fetched == 2


def test_moving_makes_room_for_one_and_keeps_the_result() -> None:
    graph = Graph(0, 1)
    graph.publish("a", "b")
    assert graph.results.room(move=True).fetched == 1
    assert [graph.get(0, 0), graph.get(0, 1)] == ["a", "a"]


def test_moving_waits_for_the_slowest_channel() -> None:
    graph = Graph(0, 1)
    graph.readers[0].messages += ["a", "b"]
    assert graph.results.room(move=True).fetched == 0
    assert graph.results.room(move=True).awaited == ((graph.readers[1], 0),)
    graph.readers[1].messages += ["c"]
    assert graph.results.room(move=True).fetched == 1


# --- interrupts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["peek", "advance"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_interrupt_while_reading_loses_nothing(when, after) -> None:
    graph = Graph(0)
    (reader,) = graph.readers
    method = getattr(reader, when)

    def interrupted():
        setattr(reader, when, method)
        if after:
            method()
        raise KeyboardInterrupt

    setattr(reader, when, interrupted)
    graph.publish("a", "b")
    with pytest.raises(KeyboardInterrupt):
        graph.get(0)
    assert [graph.get(0), graph.get(1)] == ["a", "b"]
    assert graph.is_clean()
