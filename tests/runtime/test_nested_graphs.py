"""Graphs that are compiled and executed inside actors and tasks."""

from __future__ import annotations

import contextlib
import gc
import os
import signal

import pytest

import runtime
from collective import ReduceOp, allreduce
from compiled_dag import (
    ActorDiedError,
    DeadlockError,
    GraphActorDiedError,
    GraphError,
    InputNode,
    MultiOutputNode,
    TaskError,
)
from tests.live import LONG_S, wait_until
from tests.runtime.actors import open_files

pytestmark = pytest.mark.proc


@runtime.remote
class Adder:
    def __init__(self, amount=0):
        self.amount = amount

    def add(self, value):
        return value + self.amount

    def both(self, left, right):
        return left, right

    def pid(self):
        return os.getpid()

    def wait(self, path):
        from tests.crew import wait_for_file

        wait_for_file(path)

    def fail(self, value):
        raise ValueError(value)

    def grad(self, value):
        import torch

        return torch.full((3,), float(value) * self.amount)

    def files(self):
        gc.collect()
        return [name for name in open_files() if "compiled-dag-graph" in name or "group" in name]


def drawn(actors):
    with InputNode() as value:
        node = value
        for actor in actors:
            node = actor.add.bind(node)
    return node


def crossing(left, right):
    with InputNode() as value:
        one, other = left.add.bind(value), right.add.bind(value)
        return MultiOutputNode([left.both.bind(one, other), right.both.bind(one, other)])


class _Driver:
    """Compiles graphs over the actors it is given, and keeps them up."""

    def __init__(self):
        self.graphs = []

    def run(self, actors, count):
        with drawn(actors).experimental_compile() as graph:
            refs = [graph.execute(number) for number in range(count)]
            return runtime.get(refs, timeout=LONG_S)

    def up(self, actors, cross=False):
        output = crossing(*actors) if cross else drawn(actors)
        self.graphs.append(output.experimental_compile())
        return self.graphs[-1].get_id()

    def execute(self, value, timeout=LONG_S):
        found = self.graphs[-1].execute(value)
        return runtime.get(found, timeout=timeout)

    def make_own(self, count):
        self.own = [Adder.remote(1) for _ in range(count)]
        return self.run(self.own, 3)

    def reduce(self, actors, value):
        with InputNode() as inp:
            grads = [actor.grad.bind(inp) for actor in actors]
            output = MultiOutputNode(allreduce.bind(grads, op=ReduceOp.SUM))
        self.graphs.append(output.experimental_compile())
        return [one.tolist() for one in self.execute(value)]

    def failure(self, actors):
        with InputNode() as value:
            output = actors[0].fail.bind(value)
        with output.experimental_compile() as graph:
            try:
                graph.execute("bad").get(LONG_S)
            except ValueError as error:
                return type(error).__mro__[1].__name__, str(error)

    def drop(self):
        self.graphs.clear()
        gc.collect()

    def pid(self):
        return os.getpid()

    def echo(self, value):
        return value

    def include_self(self, me):
        with InputNode() as value:
            output = me.echo.bind(value)
        with output.experimental_compile() as graph:
            return graph.execute(5).get(LONG_S)

    def interpret(self, actors, value):
        return runtime.get(drawn(actors).execute(value), timeout=LONG_S)


Driver = runtime.remote(_Driver)


def get(ref):
    return runtime.get(ref, timeout=LONG_S)


def test_actors_and_tasks_compile_and_execute(session):
    actors = [Adder.remote(1), Adder.remote(10)]
    driver = Driver.remote()
    assert get(driver.run.remote(actors, 8)) == [number + 11 for number in range(8)]
    assert get(driver.run.remote(actors, 3)) == [11, 12, 13]
    assert get(driver.make_own.remote(3)) == [3, 4, 5]
    assert get(driver.interpret.remote(actors, 5)) == 16

    @runtime.remote
    def task(actors):
        with drawn(actors).experimental_compile() as graph:
            return graph.execute(1).get(LONG_S)

    assert get(task.remote(actors)) == 12
    kind, text = get(driver.failure.remote(actors))
    assert kind == "TaskError" or "Adder.fail" in text
    assert "test_nested_graphs.py" in text
    with drawn(actors).experimental_compile() as mine:  # and the driver, beside it
        assert mine.execute(0).get(LONG_S) == 11
    assert get([actor.files.remote() for actor in actors]) == [[], []]


def test_collectives_in_a_graph_of_an_actor(session):
    ranks = [Adder.remote(1), Adder.remote(10)]
    driver = Driver.remote()
    assert get(driver.reduce.remote(ranks, 2)) == [[22.0] * 3] * 2
    get(driver.drop.remote())
    wait_until(lambda: get([rank.files.remote() for rank in ranks]) == [[], []])


def test_a_death_is_told_to_the_actor_that_drives_the_graph(session):
    actors = [Adder.remote(1), Adder.remote(10)]
    driver = Driver.remote()
    get(driver.up.remote(actors))
    assert get(driver.execute.remote(1)) == 12
    os.kill(get(actors[1].pid.remote()), signal.SIGKILL)
    with pytest.raises(GraphActorDiedError, match=r"Adder\(2\).*SIGKILL") as caught:
        get(driver.execute.remote(2))
    assert isinstance(caught.value, TaskError)
    assert get(actors[0].add.remote(1)) == 2
    assert get(driver.run.remote(actors[:1], 2)) == [1, 2]


@pytest.mark.parametrize("how", ["kill", "handle", "busy"])
def test_actors_are_free_again_when_the_one_that_drives_their_graph_is_gone(session, how, tmp_path):
    actors = [Adder.remote(1), Adder.remote(10)]
    driver = Driver.remote()
    get(driver.up.remote(actors, True))
    assert get(driver.execute.remote(1)) == [(2, 11)] * 2
    pid = get(driver.pid.remote())
    if how == "busy":
        waiting = actors[0].wait.remote(str(tmp_path / "go"))
        execution = driver.execute.remote(1)
    if how == "handle":
        del driver
    else:
        os.kill(pid, signal.SIGKILL)
    if how == "busy":
        with pytest.raises(ActorDiedError):
            get(execution)
        (tmp_path / "go").touch()
        get(waiting)
    wait_until(lambda: get([actor.files.remote() for actor in actors]) == [[], []])
    with crossing(*actors).experimental_compile() as graph:
        assert [ref.get(LONG_S) for ref in graph.execute(2)] == [(3, 12)] * 2


def test_an_actor_that_would_wait_for_itself_says_so(session):
    driver = Driver.remote()
    with pytest.raises(GraphError, match=r"actor _Driver\(1\) compiles a graph that it is in"):
        get(driver.include_self.remote(driver))
    threaded = Driver.options(max_concurrency=2).remote()
    assert get(threaded.include_self.remote(threaded)) == 5


def test_an_actor_of_two_drivers_of_which_one_has_several_graphs_serves_them_all(session):
    shared, first = Adder.remote(1), Adder.remote(10)
    driver = Driver.remote()
    get(driver.up.remote([shared]))
    with (
        drawn([shared]).experimental_compile() as alone,
        drawn([first, shared]).experimental_compile() as behind,
    ):
        for number in range(50):
            # The ticket of the second comes before its input, which another actor sends.
            assert alone.execute(number).get(LONG_S) == number + 1
            assert behind.execute(number).get(LONG_S) == number + 11
    get(driver.drop.remote())


def compiled_when_free(actors):
    made = []

    def tried():
        with contextlib.suppress(DeadlockError):
            made.append(drawn(actors).experimental_compile())
        return made

    wait_until(tried)
    return made[0]


def test_two_processes_do_not_drive_graphs_over_the_same_two_actors(session):
    actors = [Adder.remote(1), Adder.remote(10), Adder.remote(100)]
    driver = Driver.remote()
    name = get(driver.up.remote(actors[:2]))
    with pytest.raises(DeadlockError) as caught:
        drawn(actors).experimental_compile()
    text = str(caught.value)
    assert f"graph {name}, driven by _Driver(4)" in text
    assert "driven by the driver" in text
    assert "share the actors Adder(1), Adder(2)" in text
    with drawn(actors[1:]).experimental_compile() as graph:  # one in common is fine
        assert graph.execute(0).get(LONG_S) == 110
        with pytest.raises(DeadlockError, match="share the actors"):
            get(driver.up.remote(actors[1:]))
    get(driver.drop.remote())
    wait_until(lambda: get(actors[0].files.remote()) == [])
    # A graph that was collected goes down behind its process's back, and is reported gone then.
    with compiled_when_free(actors) as graph:
        assert graph.execute(0).get(LONG_S) == 111
