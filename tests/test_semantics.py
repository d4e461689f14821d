"""What a compiled graph computes is what the same calls compute in plain Python.

Actors are threads here (`tests.fakes`); everything else is the real thing.
"""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_dag import (
    CompiledDAG,
    CompiledDAGRef,
    GraphError,
    InputNode,
    MultiOutputNode,
    TaskError,
)
from tests import graphs
from tests.fakes import ThreadHost
from tests.graphs import Worker
from tests.recipes import Failed, Machine, Recipe, digest, draw, inputs, recipes, work_out


def get(results: Any, timeout: float = 30) -> Any:
    """Return values, with what was raised in place of what raised."""
    if isinstance(results, list):
        return [get(result, timeout) for result in results]
    try:
        return results.get(timeout)
    except TaskError as error:
        return Failed(str(error.cause))


# --- against plain Python -------------------------------------------------------------------------


def same(found: list[Any], expected: list[Any]) -> bool:
    return [digest(value) for value in found] == [digest(value) for value in expected]


def fresh(recipe: Recipe) -> list[Machine]:
    return [Machine(number) for number in range(recipe.num_actors)]


def values_for(recipe: Recipe, execution: int) -> list[Any]:
    return [[execution, field, np.arange(20)] for field in range(recipe.num_inputs)]


@settings(max_examples=40)
@given(recipes(), st.integers(1, 4), st.randoms(use_true_random=False))
def test_a_compiled_graph_gives_what_plain_calls_give(recipe, in_flight, chance) -> None:
    num_executions = 6
    oracle = fresh(recipe)
    expected = [
        work_out(recipe, oracle, values_for(recipe, number)) for number in range(num_executions)
    ]
    with closing(ThreadHost()) as host:
        output = draw(recipe, [host.actor(machine) for machine in fresh(recipe)])
        with output.experimental_compile(_max_inflight_executions=in_flight) as graph:
            found: dict[int, list[Any]] = {}
            pending: dict[int, Any] = {}
            for number in range(num_executions):
                args, kwargs = recipe.arguments(values_for(recipe, number))
                pending[number] = graph.execute(*args, **kwargs)
                while len(pending) == in_flight or (pending and chance.random() < 0.3):
                    oldest_first = sorted(pending)
                    chosen = (
                        oldest_first[0]
                        if len(pending) == in_flight
                        else chance.choice(oldest_first)
                    )
                    found[chosen] = get(pending.pop(chosen))
            found |= {number: get(refs) for number, refs in pending.items()}
    assert all(same(found[number], expected[number]) for number in range(num_executions))


@settings(max_examples=25)
@given(recipes(), st.lists(inputs, min_size=3, max_size=3))
def test_an_interpreted_graph_gives_what_plain_calls_give(recipe, given_inputs) -> None:
    if recipe.keys is not None and len(recipe.arguments([None] * recipe.num_inputs)[0]) == 1:
        return  # a single positional input is the input itself: inp[0] looks into it
    values = given_inputs[: recipe.num_inputs]
    expected = work_out(recipe, fresh(recipe), values)
    with closing(ThreadHost()) as host:
        output = draw(recipe, [host.actor(machine) for machine in fresh(recipe)])
        args, kwargs = recipe.arguments(values)
        results = output.execute(*args, **kwargs)
        found = [_settled(result) for result in results]
    assert [isinstance(value, Failed) for value in found] == [
        isinstance(value, Failed) for value in expected
    ]
    if not any(isinstance(value, Failed) for value in found):
        assert same(found, expected)


def _settled(result: Any) -> Any:
    try:
        return result.result(None) if hasattr(result, "result") else result
    except ValueError as error:
        return Failed(str(error))


# --- the sample graphs ----------------------------------------------------------------------------

EXPECTED = {
    "chain_3": ((5,), {}, 5 + 1 + 2 + 3),
    "fan_out_4": ((5,), {}, [6, 7, 8, 9]),
    "diamond": ((0,), {}, (1 + 2, 1 + 3)),
    "nested": (
        (5,),
        {"scale": 10},
        [([6, {"deep": (12, 1)}], ("constant",), {"flag": True, "node": 6}), None, 10, 7],
    ),
    "multi_return": ((42,), {}, [(2, 4), 5]),
    "data_parallel_2": ((1,), {}, [[2.5] * 3] * 2),
    "data_parallel_4": ((2,), {}, [[7.0] * 3] * 4),
    "idle_start": ((5,), {}, (6, "constant")),
    "pipeline": ((1, 2, 3), {}, [12, 16, 20]),
}


def compiled(host: ThreadHost, name: str, **options: Any) -> CompiledDAG:
    build, num_actors = graphs.SAMPLES[name]
    actors = [host.actor(Worker(number)) for number in range(1, num_actors + 1)]
    return build(actors).experimental_compile(**options)


@pytest.mark.parametrize("name", graphs.SAMPLES)
def test_a_sample_graph_computes_what_it_should(host, name) -> None:
    args, kwargs, expected = EXPECTED[name]
    with compiled(host, name) as graph:
        assert [get(graph.execute(*args, **kwargs)) for _ in range(3)] == [expected] * 3


@pytest.mark.parametrize("name", graphs.SAMPLES)
@pytest.mark.parametrize("in_flight", [1, 2, 10])
def test_a_sample_graph_keeps_its_results_apart_with_executions_in_flight(
    host, name, in_flight
) -> None:
    args, kwargs, expected = EXPECTED[name]
    with compiled(host, name, _max_inflight_executions=in_flight) as graph:
        for _ in range(3):
            refs = [graph.execute(*args, **kwargs) for _ in range(in_flight)]
            assert [get(ref) for ref in reversed(refs)] == [expected] * in_flight


INTERPRETED = [name for name in graphs.SAMPLES if not name.startswith("data_parallel")]
"""Collectives exist only compiled."""


@pytest.mark.parametrize("name", INTERPRETED)
def test_a_sample_graph_computes_the_same_interpreted(host, name) -> None:
    args, kwargs, expected = EXPECTED[name]
    build, num_actors = graphs.SAMPLES[name]
    output = build([host.actor(Worker(number)) for number in range(1, num_actors + 1)])
    results = output.execute(*args, **kwargs)
    if isinstance(results, list):
        assert [_settled(result) for result in results] == expected
    else:
        assert _settled(results) == expected


def test_a_collective_exists_only_compiled(host) -> None:
    build, num_actors = graphs.SAMPLES["data_parallel_2"]
    output = build([host.actor(Worker()) for _ in range(num_actors)])
    with pytest.raises(NotImplementedError, match=r"use experimental_compile\(\)"):
        output.execute(1)


# --- what arrives ---------------------------------------------------------------------------------


class Keeper:
    """An actor that keeps what it gets, and may change it."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def keep(self, value: Any) -> int:
        self.kept.append(value)
        return len(self.kept)

    def echo(self, value: Any) -> Any:
        return value

    def make(self, value: int) -> np.ndarray:
        return np.full(100_000, value, np.uint8)

    def increase(self, value: Any) -> Any:
        value += 1
        return value

    def is_same(self, first: Any, second: Any) -> bool:
        return first is second

    def spoil(self, value: list[int]) -> list[int]:
        value.append(99)
        return value


def test_a_method_on_its_own_actor_gets_the_object_itself(host) -> None:
    keeper = host.actor(Keeper())
    with InputNode() as inp:
        made = keeper.make.bind(inp)
        output = keeper.is_same.bind(made, keeper.echo.bind(made))
    with output.experimental_compile() as graph:
        assert graph.execute(1).get(30)


def test_a_value_read_by_two_methods_of_one_actor_is_one_object(host) -> None:
    keeper, other = host.actor(Keeper()), host.actor(Keeper())
    with InputNode() as inp:
        made = other.make.bind(inp)
        output = keeper.is_same.bind(made, keeper.echo.bind(made))
    with output.experimental_compile() as graph:
        assert graph.execute(1).get(30)


def test_values_kept_by_actors_and_by_the_driver_never_change(host) -> None:
    keeper, maker = Keeper(), host.actor(Keeper())
    with InputNode() as inp:
        made = maker.make.bind(inp)
        output = MultiOutputNode([made, host.actor(keeper).keep.bind(made)])
    with output.experimental_compile(_max_inflight_executions=3) as graph:
        refs = [graph.execute(number) for number in range(3)]
        results = [get(ref) for ref in refs]
        results += [get(graph.execute(number)) for number in range(3, 40)]
    for number in range(40):
        assert (results[number][0] == number).all()
        assert (keeper.kept[number] == number).all()
        assert not results[number][0].flags.writeable


def test_a_result_outlives_its_graph(host) -> None:
    maker = host.actor(Keeper())
    with InputNode() as inp:
        output = maker.make.bind(inp)
    with output.experimental_compile() as graph:
        result = graph.execute(7).get(30)
    del graph
    assert (result == 7).all()


def test_inputs_are_captured_at_the_call(host) -> None:
    first, second = Worker(), Worker()
    with InputNode() as inp:
        output = MultiOutputNode(
            [host.actor(first).echo.bind(inp[0]), host.actor(second).echo.bind(inp[1]), inp[0]]
        )
    with output.experimental_compile() as graph:
        array, items = np.zeros(50_000), [1, 2]
        refs = graph.execute(array, items)
        array += 1
        items.append(3)
        zeros, two, given_back = get(refs)
    assert zeros.sum() == given_back.sum() == 0
    assert two == [1, 2]


def test_constants_are_captured_at_compile(host) -> None:
    constant = [1]
    worker = host.actor(Worker())
    with InputNode() as inp:
        output = worker.join.bind(inp, constant)
    with output.experimental_compile() as graph:
        constant.append(2)
        assert graph.execute(0).get(30) == (0, [1])


def test_a_container_of_arguments_is_made_anew_for_every_execution(host) -> None:
    keeper = host.actor(Keeper())
    with InputNode() as inp:
        output = keeper.spoil.bind([inp])
    with output.experimental_compile() as graph:
        assert [graph.execute(number).get(30) for number in range(3)] == [[0, 99], [1, 99], [2, 99]]


def test_a_tensor_changed_by_one_actor_is_unchanged_on_the_others(host) -> None:
    first, second, third = (host.actor(Keeper()) for _ in range(3))
    with InputNode() as inp:
        output = MultiOutputNode(
            [first.increase.bind(inp), second.increase.bind(inp), third.echo.bind(inp)]
        )
    with output.experimental_compile() as graph:
        for size in (10, 100_000):
            given = torch.zeros(size)
            results = get(graph.execute(given))
            assert [int(result.sum()) for result in results] == [size, size, 0]
            assert given.sum() == 0


def test_an_input_that_is_also_an_output_comes_back(host) -> None:
    worker = host.actor(Worker(1))
    with InputNode() as inp:
        output = MultiOutputNode([inp, worker.add.bind(inp), inp])
    with output.experimental_compile() as graph:
        refs = [graph.execute(number) for number in range(4)]
        assert [get(ref) for ref in refs] == [[n, n + 1, n] for n in range(4)]


# --- errors are values ----------------------------------------------------------------------------


class Faulty:
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
            assert get(graph.execute("bad")) == [
                Failed("it is bad"),
                "bad",
                Failed("it is bad"),
                "bad",
            ]
            assert get(graph.execute("good")) == ["good", "good", (1, [{"deep": "good"}]), "good"]


def test_an_error_names_where_it_came_from_wherever_it_is_seen(host) -> None:
    first, second = host.actor(Faulty()), host.actor(Worker(1))
    with InputNode() as inp:
        output = second.echo.bind(second.echo.bind(first.fail.bind(inp)))
    with output.experimental_compile() as graph:
        graph.execute("good").get(30)
        with pytest.raises(ValueError, match="it is bad") as raised:
            graph.execute("bad").get(30)
    error = raised.value
    assert error.node.startswith("Faulty.fail (node 1, bound at test_semantics.py:")
    assert (error.actor, error.execution) == ("Faulty(1)", 1)
    assert 'raise ValueError("it is bad")' in str(error)
    assert "compiled_dag/" not in error.traceback_text


def test_skipped_methods_are_not_called(host) -> None:
    keeper = Keeper()
    first, second = host.actor(Faulty()), host.actor(keeper)
    with InputNode() as inp:
        output = second.keep.bind(first.fail.bind(inp))
    with output.experimental_compile() as graph:
        get(graph.execute("bad"))
        get(graph.execute("good"))
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
        ((1, 2, 3), "num_returns=2, but the method returned 3 values"),
        ((), "num_returns=2, but the method returned 0 values"),
        (5, "num_returns=2, but the method returned one int"),
        ("ab", "num_returns=2, but the method returned one str"),
        (None, "num_returns=2, but the method returned one NoneType"),
    ],
)
def test_a_wrong_number_of_returns_is_an_error_on_every_element(host, value, text) -> None:
    faulty = host.actor(Faulty())
    with InputNode() as inp:
        output = MultiOutputNode(list(faulty.several.options(num_returns=2).bind(inp)))
    with output.experimental_compile() as graph:
        assert get(graph.execute(value)) == [Failed(text)] * 2
        assert get(graph.execute([1, 2])) == [1, 2]


def test_a_failing_method_with_several_returns_fails_every_element(host) -> None:
    faulty = host.actor(Faulty())
    with InputNode() as inp:
        output = MultiOutputNode(list(faulty.fail.options(num_returns=3).bind(inp)))
    with output.experimental_compile() as graph:
        assert get(graph.execute("bad")) == [Failed("it is bad")] * 3


def test_a_result_that_cannot_be_sent_is_the_error_of_its_node(host) -> None:
    faulty, worker = host.actor(Faulty()), host.actor(Worker())
    with InputNode() as inp:
        output = worker.echo.bind(faulty.lock.bind(inp))
    with output.experimental_compile() as graph:
        with pytest.raises(TypeError, match=r"cannot send value of type _thread\.lock") as raised:
            graph.execute("bad").get(30)
        assert isinstance(raised.value, TaskError)
        assert raised.value.node.startswith("Faulty.lock (node 1, bound at test_semantics.py:")
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
        assert keeper.kept == []
        assert get(graph.execute("good")) == [1, ("good",)]


def test_an_exception_that_is_no_exception_of_users_is_an_error_too(host) -> None:
    faulty = host.actor(Faulty())
    with InputNode() as inp:
        output = faulty.interrupt.bind(inp)
    with output.experimental_compile() as graph:
        assert get(graph.execute(1)) == Failed("not a mere exception")
        assert get(graph.execute(1)) == Failed("not a mere exception")


def test_a_value_over_the_cap_is_an_error_of_its_node_and_the_graph_is_usable(host) -> None:
    maker = host.actor(Worker())
    with InputNode() as inp:
        output = maker.zeros.bind(inp)
    with output.experimental_compile(_buffer_size_bytes=4096, _max_memory_bytes=1_000_000) as graph:
        with pytest.raises(TaskError, match="_max_memory_bytes=1000000") as raised:
            graph.execute(2_000_000).get(30)
        assert type(raised.value).__name__ == "TaskError(MemoryCapError)"
        assert graph.execute(100_000).get(30).size == 100_000


# --- nodes where they cannot be -------------------------------------------------------------------


class Box:
    def __init__(self, content: Any) -> None:
        self.content = content


@pytest.mark.parametrize(
    ("hide", "kind"),
    [
        (lambda node: {node}, "set"),
        (Box, "Box"),
        (lambda node: [Box(node)], "list"),
        (lambda node: lambda: node, "function"),
        (lambda node: {node: 1}, "dict"),
    ],
    ids=["set", "object", "object in a list", "closure", "key"],
)
def test_a_node_inside_another_object_is_refused_by_argument_and_type(host, hide, kind) -> None:
    worker = host.actor(Worker())
    with InputNode() as inp:
        output = worker.pack.bind(inp, hidden=hide(inp))
    with pytest.raises(GraphError) as raised:
        output.experimental_compile()
    text = str(raised.value)
    assert text.startswith("argument 'hidden' of Worker.pack (node 1, bound at test_semantics.py:")
    assert f"is a {kind} with a node inside" in text
    assert "lists, tuples and dicts only" in text


def test_a_hidden_node_that_nothing_else_reads_is_told_as_hidden(host) -> None:
    worker = host.actor(Worker())
    with InputNode() as inp:
        output = worker.join.bind(inp, Box(worker.echo.bind(inp)))
    with pytest.raises(GraphError, match="a Box with a node inside"):
        output.experimental_compile()


def test_a_constant_that_cannot_be_sent_is_refused_at_compile(host) -> None:
    worker = host.actor(Worker())
    with InputNode() as inp:
        output = worker.pack.bind(inp, [1, threading.Lock()])
    with pytest.raises(TypeError, match=r"^argument 1 of Worker\.pack \(node 1, .*value\[1\] of"):
        output.experimental_compile()


def test_a_result_is_no_input(host) -> None:
    worker = host.actor(Worker())
    with InputNode() as inp:
        output = worker.echo.bind(inp)
    with output.experimental_compile() as graph:
        ref = graph.execute(1)
        assert isinstance(ref, CompiledDAGRef)
        with pytest.raises(TypeError, match="get its value first"):
            graph.execute([ref])
        assert ref.get(30) == 1
