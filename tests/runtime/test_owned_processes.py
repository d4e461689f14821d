"""Compiled graphs of functions and classes: their processes are the graph's own."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

import runtime
from compiled_dag import (
    ActorDiedError,
    DAGContext,
    GraphActorDiedError,
    GraphError,
    InputNode,
    MultiOutputNode,
)
from tests.live import wait_until
from tests.runtime.drawn import (
    Broken,
    Counter,
    Diary,
    Drawer,
    Slow,
    User,
    add,
    draw_compiled,
    gpu_ids,
    process_id,
    use,
    variable,
)

pytestmark = pytest.mark.proc


def pids():
    from runtime.util import state

    return {actor.pid for actor in state.list_actors() if actor.state == "ALIVE"}


def test_functions_run_in_processes_of_the_graphs_own(session) -> None:
    with InputNode() as inp:
        left, right = add.bind(inp, 1), add.bind(inp, 2)
        where = [process_id.bind(left), process_id.bind(right)]
        output = MultiOutputNode([add.bind(left, right), *where])
    with output.experimental_compile(_function_workers=2) as graph:
        results = [runtime.get(graph.execute(number)) for number in range(3)]
        assert [result[0] for result in results] == [3, 5, 7]
        assert set(results[0][1:]) == pids()
        assert len(pids()) == 2
        assert runtime.get(process_id.remote()) not in pids()
        running = pids()
    assert not any(Path(f"/proc/{pid}").exists() for pid in running)
    with output.experimental_compile(_function_workers=1) as graph:
        assert len(pids()) == 1
        assert runtime.get(graph.execute(1))[0] == 5


def test_functions_with_gpus_or_variables_have_processes_that_fit(no_leaks) -> None:
    first = gpu_ids.options(num_gpus=1)
    second = runtime.remote(num_gpus=1)(lambda *_: runtime.get_gpu_ids())
    red = variable.options(runtime_env={"env_vars": {"COLOUR": "red"}})
    with InputNode() as inp:
        output = MultiOutputNode(
            [
                first.bind(inp),
                first.bind(inp),
                second.bind(inp),
                gpu_ids.bind(inp),
                red.bind("COLOUR", inp),
                variable.bind("COLOUR", inp),
            ]
        )
    runtime.init(num_cpus=4, num_gpus=2)
    try:
        with pytest.warns(UserWarning, match="fake"):
            graph = output.experimental_compile()
        with graph:
            results = runtime.get(graph.execute(0))
            free = runtime.available_resources()
        wait_until(lambda: runtime.available_resources()["GPU"] == 2)
    finally:
        runtime.shutdown()
    assert results == [[0], [0], [1], [], "red", None]
    assert (free["GPU"], free["CPU"]) == (0, 4)


def test_class_nodes_are_made_for_the_graph_and_may_be_arguments(session) -> None:
    live = Counter.remote(1000)
    with InputNode() as inp:
        counter = Counter.bind(10)
        user = User.bind(counter)
        output = MultiOutputNode(
            [
                counter.add.bind(inp),
                user.ask.bind(inp),
                use.bind(counter, inp),
                live.add.bind(inp),
            ]
        )
    with output.experimental_compile() as graph:
        last = [runtime.get(graph.execute(1)) for _ in range(4)][-1]
    assert max(last[:3]) == 10 + 4 * 3
    assert last[3] == 1004
    assert runtime.get(live.get.remote()) == 1004
    assert len(pids()) == 1


def test_what_a_graph_made_ends_as_other_processes_do(session, tmp_path) -> None:
    diary = tmp_path / "diary"
    with InputNode() as inp:
        output = Diary.bind(str(diary)).echo.bind(inp)
    with output.experimental_compile() as graph:
        assert runtime.get(graph.execute(5)) == 5
        assert not diary.exists()
    assert diary.read_text() == "ended"


def test_a_constructor_that_raises_fails_the_compile_which_leaves_nothing(session) -> None:
    live = Counter.remote()
    with InputNode() as inp:
        good, bad = Counter.bind(), Broken.bind()
        broken = MultiOutputNode([good.add.bind(inp), bad.get.bind(), live.add.bind(inp)])
    with pytest.raises(ActorDiedError, match="the constructor fails"):
        broken.experimental_compile()
    assert runtime.get(live.get.remote()) == 0
    wait_until(lambda: len(pids()) == 1)


def test_a_worker_that_dies_breaks_the_graph_which_then_leaves_nothing(session) -> None:
    with InputNode() as inp:
        output = MultiOutputNode([add.bind(inp, 1), process_id.bind(inp)])
    with output.experimental_compile(_function_workers=2) as graph:
        _, pid = runtime.get(graph.execute(1))
        os.kill(pid, 9)
        wait_until(lambda: len(pids()) == 1)
        with pytest.raises(GraphActorDiedError, match=r"lost actor functions\(\d+\)"):
            runtime.get(graph.execute(1))
    assert pids() == set()


def test_graphs_in_actors_and_tasks_make_processes_too(session) -> None:
    """The functions are those of the script that is run: the actor has not got their code."""
    functions = [runtime.remote(lambda x, y: x * y), add]
    driver = Drawer.remote()
    assert runtime.get(driver.run.remote(functions)) == [[2, 100, 100], [4, 101, 102]]
    assert len(pids()) == 1
    assert runtime.get(draw_compiled.remote(functions)) == [[2, 100, 100], [4, 101, 102]]
    runtime.get(driver.keep.remote(functions))
    wait_until(lambda: len(pids()) == 3)
    runtime.kill(driver)
    wait_until(lambda: pids() == set())


def test_a_graph_lets_go_of_the_actors_among_its_arguments(session) -> None:
    live, other = Counter.remote(1), User.remote()
    with InputNode() as inp:
        output = use.bind(live, inp)
    with output.experimental_compile() as graph:
        assert runtime.get(graph.execute(1)) == 2
        assert len(pids()) == 3
    del live, output, inp, graph
    gc.collect()
    wait_until(lambda: len(pids()) == 1)
    del other


def test_a_constructor_that_does_not_end_fails_the_compile_which_leaves_nothing(
    session, monkeypatch
) -> None:
    monkeypatch.setattr(DAGContext.get_current(), "compile_timeout", 3.0)
    with InputNode() as inp:
        output = Slow.bind().echo.bind(inp)
    with pytest.raises(GraphError) as raised:
        output.experimental_compile()
    text = str(raised.value)
    assert text.startswith("Slow(1) was not up within compile_timeout=3.0 s: its constructor has")
    assert "drawn.py" in text
    assert "in __init__" in text
    wait_until(lambda: pids() == set())


@pytest.mark.parametrize(
    ("options", "short"),
    [
        ({"num_cpus": 64}, "CPU: 64 of "),
        ({"num_gpus": 9}, "GPU: 9 of 0"),
        ({"resources": {"slot": 1}}, "slot: 1 of 0"),
    ],
)
def test_what_can_never_run_is_refused_before_a_process_starts(session, options, short) -> None:
    def function(inp):
        return add.options(**options).bind(inp, 1)

    def method(inp):
        return Counter.options(**options).bind().add.bind(inp)

    for draw, name in [(function, "add (node 1, bound at"), (method, "Counter, bound at")]:
        with InputNode() as inp:
            output = draw(inp)
        with pytest.raises(GraphError) as raised:
            output.experimental_compile()
        assert str(raised.value).startswith(name)
        assert short in str(raised.value)
    assert pids() == set()
