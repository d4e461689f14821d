"""Graphs of functions and classes, executed as they are: tasks, actors and calls."""

from __future__ import annotations

import asyncio

import pytest

import runtime
from compiled_dag import GraphError, InputNode, MultiOutputNode
from compiled_dag.errors import ActorDiedError
from tests.live import wait_until
from tests.runtime.drawn import (
    Box,
    Counter,
    User,
    add,
    draw_in_task,
    echo,
    execute,
    fail,
    gather,
    pair,
    use,
)

pytestmark = pytest.mark.proc


def num_actors():
    from runtime.util import state

    return sum(actor.state == "ALIVE" for actor in state.list_actors())


def test_functions_run_as_tasks_each_node_once(session) -> None:
    with InputNode() as inp:
        shared = add.bind(inp[0], inp.y)
        output = add.bind(shared, add.bind(shared, 1))
    assert runtime.get(output.execute(2, y=3)) == 11
    assert runtime.get(add.options(num_cpus=0.5).bind(1, 2).execute()) == 3
    assert runtime.get(pair.bind().execute()) == [1, 2]
    one, two = runtime.get(add.bind([], pair.bind()).execute())
    assert runtime.get([one, two]) == [1, 2]
    with pytest.raises(ValueError, match="bad"):
        runtime.get(echo.bind(fail.bind("bad")).execute())


def test_a_class_node_is_a_new_actor_for_each_execution(session) -> None:
    with InputNode() as inp:
        counter = Counter.bind(10)
        counter.add.bind(inp)  # nobody needs its result, but the calls after it run after it
        counter.add.bind(4)
        output = counter.get.bind()
    assert [runtime.get(output.execute(number)) for number in (1, 2, 3)] == [15, 16, 17]
    handle = counter.execute()
    assert isinstance(handle, runtime.ActorHandle)
    assert runtime.get(handle.get.remote()) == 10
    del handle
    wait_until(lambda: num_actors() == 0)
    assert runtime.get(counter.pair.options(num_returns=2).bind().execute(0)) == [14, -14]


def test_an_actor_made_before_keeps_its_state(session) -> None:
    counter = Counter.remote()
    with InputNode() as inp:
        output = counter.add.bind(inp)
    calls = [counter.get.bind() for _ in range(2)]
    assert [call.get_other_args_to_resolve()["bind_index"] for call in calls] == [1, 2]
    del counter, calls
    assert [runtime.get(output.execute(1)) for _ in range(3)] == [1, 2, 3]


def test_a_class_node_arrives_as_a_handle(session) -> None:
    counter = Counter.bind(1)
    assert runtime.get(use.bind(counter, 2).execute()) == 3
    assert runtime.get(User.bind(counter).ask.bind(3).execute()) == 4
    ((handles,), _) = runtime.get(echo.bind([counter]).execute())
    assert runtime.get(handles[0].get.remote()) == 1


def test_nodes_inside_anything_arrive_as_references(session) -> None:
    with InputNode() as inp:
        one, two = add.bind(inp, 1), add.bind(inp, 2)
        output = MultiOutputNode([gather.bind([one, two]), gather.bind(Box([two, one])), one, 7])
    *refs, constant = output.execute(0)
    assert runtime.get(refs) == [[1, 2], [2, 1], 1]
    assert constant == 7
    (args, kwargs) = runtime.get(echo.bind({one: 1}, {two}, key=(one, {"k": two})).execute(5))
    ((key,), (member,)) = args[0], args[1]
    refs = [key, member, kwargs["key"][0], kwargs["key"][1]["k"]]
    assert runtime.get(refs) == [6, 7, 6, 7]


def test_what_nodes_gave_is_kept_if_asked_for(session) -> None:
    counter = Counter.bind(1)
    with InputNode() as inp:
        first = counter.add.bind(inp)
        output = add.bind(first, 1)
    assert runtime.get(output.execute(1)) == 3
    assert output.cache_from_last_execute == {}
    ref = output.execute(2, _ray_cache_refs=True)
    kept = asyncio.run(output.get_object_refs_from_last_execute())
    assert kept[output.get_stable_uuid()] is ref
    assert runtime.get(kept[first.get_stable_uuid()]) == 3
    assert isinstance(kept[counter.get_stable_uuid()], runtime.ActorHandle)
    assert kept[inp.get_stable_uuid()] == 2
    output.clear_cache()
    assert output.cache_from_last_execute == {}


def test_graphs_are_drawn_and_executed_in_tasks_and_actors(session) -> None:
    counter = Counter.remote()
    assert runtime.get(draw_in_task.remote(counter)) == ([5, 105, 6], 6)
    with InputNode() as inp:
        output = add.bind(counter.add.bind(inp), Counter.bind(1).add.bind(inp))
    assert runtime.get(execute.remote([output], 10)) == 15 + 11


def test_a_method_of_a_dead_actor_cannot_be_bound(session) -> None:
    counter = Counter.remote()
    get = counter.get
    with InputNode() as inp:
        output = counter.add.bind(inp)
    runtime.kill(counter)
    died = r"get of .*\.bind\(\): actor Counter\(1\) died: .*kill.* Start another"
    with pytest.raises(RuntimeError, match=died) as caught:
        get.bind()
    assert isinstance(caught.value, ActorDiedError)
    runtime.shutdown()
    with pytest.raises(RuntimeError, match="session has ended"):
        get.bind()
    with pytest.raises(GraphError, match=r"Counter\.add bound at .* belongs to a session that has"):
        output.experimental_compile()
