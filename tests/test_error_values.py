"""Errors are values: they travel the graph in place of what could not be made."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from compiled_dag import DeserializationError, InputNode, MultiOutputNode, TaskError
from runtime.objects import ObjectRef
from runtime.parcel import Parcel
from tests.graphs import Keeper, Worker
from tests.recipes import Failed, values_of


class Faulty:
    kept: Any = None

    def fail(self, value: Any) -> Any:
        if value == "bad":
            raise ValueError("it is bad")
        return value

    def several(self, values: Any) -> Any:
        return values

    def lock(self, value: Any) -> Any:
        return threading.Lock() if value == "bad" else value

    def spoiled(self, value: Any) -> Any:
        return Spoiled() if value == "bad" else value

    def interrupt(self, value: Any) -> Any:
        raise GeneratorExit("not a mere exception")

    def join(self, *parts: Any) -> Any:
        return parts

    def give(self, _: Any) -> Any:
        return self.kept


class Spoiled:
    """It can be sent and not be received."""

    def __reduce__(self) -> Any:
        return _spoil, ()


def _spoil() -> None:
    raise RuntimeError("spoiled on the way")


def test_only_outputs_that_depend_on_the_failed_node_raise(host) -> None:
    first, second = host.actor(Faulty()), host.actor(Worker(1))
    with InputNode() as inp:
        failing = first.fail.bind(inp)
        output = MultiOutputNode(
            [failing, second.echo.bind(inp), second.join.bind(1, [{"deep": failing}]), inp]
        )
    with output.experimental_compile() as graph:
        for _ in range(3):
            assert values_of(graph.execute("bad")) == [
                Failed("it is bad"),
                "bad",
                Failed("it is bad"),
                "bad",
            ]
            assert values_of(graph.execute("good")) == [
                "good",
                "good",
                (1, [{"deep": "good"}]),
                "good",
            ]


def test_an_error_names_where_it_came_from_wherever_it_is_seen(host) -> None:
    first, second = host.actor(Faulty()), host.actor(Worker(1))
    with InputNode() as inp:
        output = second.echo.bind(second.echo.bind(first.fail.bind(inp)))
    with output.experimental_compile() as graph:
        graph.execute("good").get(30)
        with pytest.raises(ValueError, match="it is bad") as raised:
            graph.execute("bad").get(30)
    error = raised.value
    assert error.node.startswith("Faulty.fail (node 1, bound at test_error_values.py:")
    assert (error.actor, error.execution) == ("Faulty(1)", 1)
    assert 'raise ValueError("it is bad")' in str(error)
    assert "compiled_dag/" not in error.traceback_text


class Stubborn:
    def __reduce__(self) -> Any:
        raise RuntimeError("it does not want to")


@pytest.mark.parametrize(
    ("value", "path", "frame"),
    [
        ([1, {"deep": threading.Lock()}], r"value\[1\]\['deep'\]", None),
        (Stubborn(), "value of type .*Stubborn", "in __reduce__"),
    ],
)
def test_a_result_that_cannot_be_sent_shows_the_method_and_what_in_it(
    host, value, path, frame
) -> None:
    faulty = Faulty()
    faulty.kept = value
    actor = host.actor(faulty)
    with InputNode() as inp:
        output = actor.give.bind(inp)
    with output.experimental_compile() as graph:
        with pytest.raises(TypeError, match=f"cannot send {path}") as raised:
            graph.execute(1).get(30)
    text = raised.value.traceback_text
    assert "in Faulty.give\n    def give(self, _: Any) -> Any:\n" in text
    assert "compiled_dag/" not in text
    assert "cloudpickle/" not in text
    assert frame is None or frame in text


def test_skipped_methods_are_not_called(host) -> None:
    keeper = Keeper()
    first, second = host.actor(Faulty()), host.actor(keeper)
    with InputNode() as inp:
        output = second.keep.bind(first.fail.bind(inp))
    with output.experimental_compile() as graph:
        values_of(graph.execute("bad"))
        values_of(graph.execute("good"))
    assert keeper.kept == ["good"]


def test_the_same_exception_is_raised_as_often_as_asked(host) -> None:
    faulty = host.actor(Faulty())
    with InputNode() as inp:
        output = faulty.fail.bind(inp)
    with output.experimental_compile() as graph:
        ref = graph.execute("bad")
        raised = []
        for _ in range(3):
            with pytest.raises(TaskError) as caught:
                ref.get(30)
            raised.append(caught.value)
            depth = len(list(_frames(caught.value)))
        assert raised[0] is raised[1] is raised[2]
        assert depth < 10


def _frames(error: BaseException) -> Any:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, 2, 3), "num_returns=2, but 3 values were returned"),
        ((), "num_returns=2, but 0 values were returned"),
        (5, "num_returns=2, but what was returned is one int"),
        ("ab", "num_returns=2, but what was returned is one str"),
        (None, "num_returns=2, but what was returned is one NoneType"),
    ],
)
def test_a_wrong_number_of_returns_is_an_error_on_every_element(host, value, text) -> None:
    faulty = host.actor(Faulty())
    with InputNode() as inp:
        output = MultiOutputNode(list(faulty.several.options(num_returns=2).bind(inp)))
    with output.experimental_compile() as graph:
        assert values_of(graph.execute(value)) == [Failed(text)] * 2
        assert values_of(graph.execute([1, 2])) == [1, 2]


def test_a_failing_method_with_several_returns_fails_every_element(host) -> None:
    faulty = host.actor(Faulty())
    with InputNode() as inp:
        output = MultiOutputNode(list(faulty.fail.options(num_returns=3).bind(inp)))
    with output.experimental_compile() as graph:
        assert values_of(graph.execute("bad")) == [Failed("it is bad")] * 3


def test_a_result_that_cannot_be_sent_is_the_error_of_its_node(host) -> None:
    faulty, worker = host.actor(Faulty()), host.actor(Worker())
    with InputNode() as inp:
        output = worker.echo.bind(faulty.lock.bind(inp))
    with output.experimental_compile() as graph:
        with pytest.raises(TypeError, match=r"cannot send value of type _thread\.lock") as raised:
            graph.execute("bad").get(30)
        assert isinstance(raised.value, TaskError)
        assert raised.value.node.startswith("Faulty.lock (node 1, bound at test_error_values.py:")
        assert graph.execute("good").get(30) == "good"


def test_a_value_that_cannot_be_received_is_the_error_of_its_reader_alone(host) -> None:
    faulty, keeper = host.actor(Faulty()), Keeper()
    reader = host.actor(keeper)
    with InputNode() as inp:
        spoiled = faulty.spoiled.bind(inp)
        output = MultiOutputNode([reader.keep.bind(spoiled), faulty.join.bind(spoiled)])
    with output.experimental_compile() as graph:
        refs = graph.execute("bad")
        with pytest.raises(TaskError, match="RuntimeError") as raised:
            refs[0].get(30)
        assert "Faulty.spoiled#1 sent a value that cannot be rebuilt" in str(raised.value)
        assert "Keeper(2)" in str(raised.value)
        assert "in _spoil" in raised.value.traceback_text
        assert keeper.kept == []
        assert values_of(graph.execute("good")) == [1, ("good",)]


def test_the_value_of_an_ordinary_call_that_cannot_be_received_shows_where_it_failed() -> None:
    ref = ObjectRef("Faulty.spoiled", None)
    ref.complete(Parcel.of(Spoiled()))
    with pytest.raises(DeserializationError, match="Faulty.spoiled ready> cannot be") as raised:
        ref.value()
    assert isinstance(raised.value, TaskError)
    assert "in _spoil\n    raise RuntimeError" in raised.value.traceback_text
    assert str(raised.value).endswith("RuntimeError: spoiled on the way")


def test_an_exception_that_is_no_exception_of_users_is_an_error_too(host) -> None:
    faulty = host.actor(Faulty())
    with InputNode() as inp:
        output = faulty.interrupt.bind(inp)
    with output.experimental_compile() as graph:
        assert values_of(graph.execute(1)) == Failed("not a mere exception")
        assert values_of(graph.execute(1)) == Failed("not a mere exception")


def test_a_value_over_the_cap_is_an_error_of_its_node_and_the_graph_is_usable(host) -> None:
    maker = host.actor(Worker())
    with InputNode() as inp:
        output = maker.zeros.bind(inp)
    with output.experimental_compile(_buffer_size_bytes=4096, _max_memory_bytes=1_000_000) as graph:
        with pytest.raises(TaskError, match="_max_memory_bytes=1000000") as raised:
            graph.execute(2_000_000).get(30)
        assert type(raised.value).__name__ == "TaskError(MemoryCapError)"
        assert graph.execute(100_000).get(30).size == 100_000
