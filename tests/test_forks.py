"""Processes that the driver or an actor forks: DataLoader workers above all.

A child inherits every object of its parent, the zero-copy values, refs and graphs among them. What
it does with its copies changes nothing for the parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal

import numpy as np
import pytest

import runtime
from compiled_dag import InputNode, MultiOutputNode
from tests.crew import Feeder, Order, extremes, load
from tests.live import LONG_S, chain, driver, end_all, in_fork, make

pytestmark = [
    pytest.mark.proc,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

SIZE = 1 << 17


def array(number):
    return np.full(SIZE, float(number))


def test_children_that_drop_their_copies_release_no_slots(session):
    worker, holder = make(2)
    with InputNode() as inp:
        value = worker.work.bind(inp)
        outputs = [holder.hold.bind(value), value]
    with MultiOutputNode(outputs).experimental_compile() as dag:
        held = [runtime.get(dag.execute(array(n)), timeout=LONG_S)[1] for n in range(2)]
        runtime.get(holder.fork_and_drop.remote(3), timeout=LONG_S)

        def drop():
            held.clear()
            gc.collect()
            return "dropped"

        for _ in range(3):
            assert in_fork(drop) == "dropped"
        for number in range(30):  # they would be written over
            value = runtime.get(dag.execute(array(-number)), timeout=LONG_S)[1]
            assert value[0] == 1 - 10 * number
        assert extremes(held) == [(1, 1), (11, 11)]
        values = runtime.get(holder.held_values.remote(), timeout=LONG_S)
        assert values[:2] == [(1, 1), (11, 11)]


def test_children_of_an_actor_say_nothing():
    body = """
(worker,) = make(1)
runtime.get(worker.fork_and_drop.remote(2))
"""
    with driver(body) as started:
        assert started.wait() == 0
        assert started.errors == ""


def test_actors_are_forked_children_too_and_give_back_what_they_read(session):
    with chain(make(2)).experimental_compile() as dag:
        for number in range(30):
            runtime.get(dag.execute(array(number)), timeout=LONG_S)
        channels = dag.memory().channels
    assert [channel.reserved_bytes > 0 for channel in channels] == [True] * 3
    for channel in channels:  # one is read, one is written, and one may be about to be released
        assert channel.reserved_bytes <= 3 * channel.slot_bytes


async def awaited(dag, argument):
    return await (await dag.execute_async(argument))


def test_a_graph_is_refused_in_a_forked_child_and_survives_it(session):
    crew = make(2)
    dag = chain(crew).experimental_compile()
    got, pending = dag.execute(0), dag.execute(1)
    assert got.get(timeout=LONG_S) == 12
    for use, refused in (
        (lambda: dag.execute(2), "GraphError"),
        (pending.get, "GraphError"),
        (lambda: pending.get(timeout=0), "GraphError"),
        (lambda: runtime.get([pending]), "GraphError"),
        (lambda: asyncio.run(awaited(dag, 2)), "GraphError"),
        (chain(crew).experimental_compile, "RuntimeError"),
        (lambda: runtime.get(crew[0].pid.remote()), "RuntimeError"),
    ):
        text = in_fork(use)
        assert text.startswith(refused), text
        assert f"process {os.getpid()}" in text
    assert in_fork(got.get) == "12"
    assert in_fork(dag.teardown) == "None"
    assert in_fork(runtime.shutdown) == "None"

    def drop():
        nonlocal dag, got, pending
        del dag, got, pending
        gc.collect()

    assert in_fork(drop) == "None"
    assert pending.get(timeout=LONG_S) == 112
    assert dag.execute(3).get(timeout=LONG_S) == 312
    dag.teardown()


def test_a_fork_during_an_execution(session, tmp_path):
    crew = make(2)
    release = tmp_path / "release"
    with chain(crew).experimental_compile() as dag:
        ref = dag.execute(Order(1, "wait", str(release)))
        assert in_fork(os.getppid) == str(os.getpid())
        release.touch()
        assert ref.get(timeout=LONG_S) == "wait"
        assert in_fork(os.getppid) == str(os.getpid())
        assert dag.execute(0).get(timeout=LONG_S) == 12


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # of one core
def test_a_data_loader_in_the_driver_over_results_that_are_held(session):
    with chain(make(2)).experimental_compile() as dag:
        held = [dag.execute(array(n)).get(timeout=LONG_S) for n in range(3)]
        batches = load(held)
        for number, batch in enumerate(batches):
            first, second = (2 * number) % 3, (2 * number + 1) % 3
            assert batch.tolist() == [2 * (100 * n + 12) for n in (first, second)]
            value = dag.execute(array(number)).get(timeout=LONG_S)
            assert extremes([value]) == [(100 * number + 12,) * 2]
            if number == 50:
                break
        pids = [worker.pid for worker in batches._workers]
        del batches
        gc.collect()
        assert end_all(pids, LONG_S) == []  # their copies of the results are gone, too
        for number in range(30):
            assert dag.execute(array(number)).get(timeout=LONG_S)[0] == 100 * number + 12
        assert extremes(held) == [(100 * n + 12,) * 2 for n in range(3)]


def test_a_data_loader_in_an_actor_over_arguments_that_are_held(session):
    worker, feeder = make(1)[0], Feeder.remote()
    with InputNode() as inp:
        value = worker.work.bind(inp)
        with MultiOutputNode([feeder.feed.bind(value), value]).experimental_compile() as dag:
            for number in range(40):
                batch, value = runtime.get(dag.execute(array(number)), timeout=LONG_S)
                assert value[-1] == 10 * number + 1
                if number >= 2:
                    row = 2 * (number - 2)
                    assert batch == [2 * (10 * (n % 3) + 1) for n in (row, row + 1)]
            pids = runtime.get(feeder.pids.remote(), timeout=LONG_S)
            assert len(pids) == 3
            runtime.get(feeder.stop.remote(), timeout=LONG_S)
            assert end_all(pids[1:], LONG_S) == []
            runtime.get(dag.execute(array(40)), timeout=LONG_S)
            values = runtime.get(feeder.held_values.remote(), timeout=LONG_S)
            assert values == [(10 * n + 1,) * 2 for n in range(41)]


def test_nothing_survives_a_driver_that_is_killed_with_data_loaders_at_work():
    with driver("""
import numpy as np
from tests.crew import Feeder, load
feeder, crew = Feeder.remote(), make(2)
value = None
with InputNode() as inp:
    value = crew[0].work.bind(inp)
    outputs = MultiOutputNode([feeder.feed.bind(value), crew[1].work.bind(value)])
dag = outputs.experimental_compile()
held = [runtime.get(dag.execute(np.full(1 << 17, float(n)))) for n in range(4)]
batches = load([value for _, value in held])
next(batches)
await_zygotes()
zygotes = runtime.lifecycle.current().zygotes
print(*pids_of(crew), *runtime.get(feeder.pids.remote()), *zygotes.pids(), flush=True)
print(*(worker.pid for worker in batches._workers), flush=True)
signal.pause()
""") as started:
        ours = [int(pid) for pid in started.line().split()]
        theirs = [int(pid) for pid in started.line().split()]
        assert len(ours) == 7
        started.kill()
        assert end_all(ours, LONG_S) == []
        # The driver's own children are torch's: they look for their parent every few seconds.
        for pid in theirs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert end_all(theirs, LONG_S) == []
