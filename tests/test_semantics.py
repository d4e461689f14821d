"""What a compiled graph computes is what the same calls compute in plain Python.

Actors are threads here (`tests.fakes`); everything else is the real thing.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_dag import (
    CompiledDAG,
    InputNode,
    MultiOutputNode,
)
from tests import graphs
from tests.fakes import ThreadHost
from tests.graphs import Keeper, Worker
from tests.recipes import (
    Failed,
    Machine,
    Recipe,
    digest,
    draw,
    inputs,
    recipes,
    values_of,
    work_out,
)

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
                    found[chosen] = values_of(pending.pop(chosen))
            found |= {number: values_of(refs) for number, refs in pending.items()}
    assert all(same(found[number], expected[number]) for number in range(num_executions))


@settings(max_examples=25)
@given(recipes(), st.lists(inputs, min_size=3, max_size=3))
def test_an_interpreted_graph_gives_what_plain_calls_give(recipe, given_inputs) -> None:
    if recipe.keys is not None and len(recipe.arguments([None] * recipe.num_inputs)[0]) == 1:
        return  # a single positional input is the input itself: inp[0] looks into it
    values = given_inputs[: recipe.num_inputs]
    expected = work_out(recipe, fresh(recipe), values)
    with closing(ThreadHost()) as host:
        output = draw(recipe, [host.actor(machine, gets=True) for machine in fresh(recipe)])
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


@settings(max_examples=40)
@given(
    recipes(),
    st.integers(1, 5),
    st.sampled_from([4096, 65_536, 1_000_000]),
    st.randoms(use_true_random=False),
)
def test_compiled_interpreted_and_plain_are_one(recipe, in_flight, slot_bytes, chance) -> None:
    """One recipe, three ways, over several executions: all actors remember what they were given."""
    if recipe.keys is not None and len(recipe.arguments([None] * recipe.num_inputs)[0]) == 1:
        return  # a single positional input is the input itself: inp[0] looks into it
    num_executions = 5
    given = [values_for(recipe, number) for number in range(num_executions)]
    oracle = fresh(recipe)
    plain = [work_out(recipe, oracle, values) for values in given]
    with closing(ThreadHost()) as host:
        output = draw(recipe, [host.actor(machine, gets=True) for machine in fresh(recipe)])
        interpreted = []
        for values in given:
            args, kwargs = recipe.arguments(values)
            interpreted.append([_settled(result) for result in output.execute(*args, **kwargs)])
    with closing(ThreadHost()) as host:
        output = draw(recipe, [host.actor(machine) for machine in fresh(recipe)])
        with output.experimental_compile(
            _max_inflight_executions=in_flight, _buffer_size_bytes=slot_bytes
        ) as graph:
            compiled = _in_any_order(graph, recipe, given, in_flight, chance)
    for number in range(num_executions):
        assert same(compiled[number], plain[number])
        assert same(interpreted[number], plain[number])


def _in_any_order(
    graph: CompiledDAG, recipe: Recipe, given: list[Any], in_flight: int, chance: Any
) -> list[Any]:
    """Execute with up to `in_flight` unfetched executions, each output got when chance has it."""
    found: list[list[Any]] = [[None] * len(recipe.outputs) for _ in given]
    pending: list[tuple[int, int, Any]] = []
    for number, values in enumerate(given):
        args, kwargs = recipe.arguments(values)
        refs = graph.execute(*args, **kwargs)
        pending += [(number, place, ref) for place, ref in enumerate(refs)]
        while pending and (number + 1 - min(pending)[0] >= in_flight or chance.random() < 0.4):
            full = number + 1 - min(pending)[0] >= in_flight
            chosen = min(pending) if full else chance.choice(pending)
            pending.remove(chosen)
            found[chosen[0]][chosen[1]] = values_of(chosen[2])
    chance.shuffle(pending)
    for number, place, ref in pending:
        found[number][place] = values_of(ref)
    return found


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
    "buckets": ((1, 2), {}, [[5.0] * 3, [5.0] * 3, [10.0] * 3, [11.0] * 3, [11.0] * 3]),
    "idle_start": ((5,), {}, (6, "constant")),
    "pipeline": ((1, 2, 3), {}, [12, 16, 20]),
    "gpipe_2": ((1, 2, 3), {}, [12, 16, 20]),
    "gpipe_4": ((1, 2, 3, 4), {}, [80, 96, 112, 128]),
    "1f1b_2": ((1, 2, 3), {}, [12, 16, 20]),
    "1f1b_4": ((1, 2, 3, 4, 5), {}, [80, 96, 112, 128, 144]),
}


def compiled(host: ThreadHost, name: str, **options: Any) -> CompiledDAG:
    build, num_actors = graphs.SAMPLES[name]
    actors = [host.actor(Worker(number)) for number in range(1, num_actors + 1)]
    return build(actors).experimental_compile(**options)


@pytest.mark.parametrize("name", graphs.SAMPLES)
def test_a_sample_graph_computes_what_it_should(host, name) -> None:
    args, kwargs, expected = EXPECTED[name]
    with compiled(host, name) as graph:
        assert [values_of(graph.execute(*args, **kwargs)) for _ in range(3)] == [expected] * 3


@pytest.mark.parametrize("name", graphs.SAMPLES)
@pytest.mark.parametrize("in_flight", [1, 2, 10])
def test_a_sample_graph_keeps_its_results_apart_with_executions_in_flight(
    host, name, in_flight
) -> None:
    args, kwargs, expected = EXPECTED[name]
    with compiled(host, name, _max_inflight_executions=in_flight) as graph:
        for _ in range(3):
            refs = [graph.execute(*args, **kwargs) for _ in range(in_flight)]
            assert [values_of(ref) for ref in reversed(refs)] == [expected] * in_flight


INTERPRETED = [name for name in graphs.SAMPLES if not name.startswith(("data_parallel", "buckets"))]
"""Collectives exist only compiled."""


@pytest.mark.parametrize("name", INTERPRETED)
def test_a_sample_graph_computes_the_same_interpreted(host, name) -> None:
    args, kwargs, expected = EXPECTED[name]
    build, num_actors = graphs.SAMPLES[name]
    workers = [host.actor(Worker(number), gets=True) for number in range(1, num_actors + 1)]
    results = build(workers).execute(*args, **kwargs)
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
        results = [values_of(ref) for ref in refs]
        results += [values_of(graph.execute(number)) for number in range(3, 40)]
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
        zeros, two, given_back = values_of(refs)
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
            results = values_of(graph.execute(given))
            assert [int(result.sum()) for result in results] == [size, size, 0]
            assert given.sum() == 0


def test_an_input_that_is_also_an_output_comes_back(host) -> None:
    worker = host.actor(Worker(1))
    with InputNode() as inp:
        output = MultiOutputNode([inp, worker.add.bind(inp), inp])
    with output.experimental_compile() as graph:
        refs = [graph.execute(number) for number in range(4)]
        assert [values_of(ref) for ref in refs] == [[n, n + 1, n] for n in range(4)]
