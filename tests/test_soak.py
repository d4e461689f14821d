"""The long ones: thousands of cycles, random graphs, random kills. Run by `make soak`.

What is random is drawn from a seed that the test's name or hypothesis shows. A get never waits for
more than its time-out, so that a hang is a failure that says who waits for whom.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import runtime
from collective import allgather, allreduce
from compiled_dag import (
    ActorDiedError,
    GraphActorDiedError,
    InputNode,
    MultiOutputNode,
    TaskError,
)
from compiled_dag.errors import CollectiveMismatchError
from tests import recipes
from tests.crew import Order, Rank, footprint
from tests.live import LONG_S, await_zygotes, chain, make, make_ranks, pids_of, reduce, wait_until

pytestmark = [pytest.mark.soak, pytest.mark.proc, pytest.mark.timeout(600)]

GROWTH_KB = 8_000
"""Allowed from first to last: allocators settle, they do not grow by the cycle."""


# --- cycles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("collective", "num_cycles"), [(False, 1000), (True, 150)])
def test_cycles_of_compile_execute_teardown_leave_nothing(session, collective, num_cycles):
    crew = make_ranks(2) if collective else make(3)
    graph = reduce(crew) if collective else chain(crew)
    expected = [6.0, 6.0] if collective else 123
    await_zygotes()  # each has a descriptor
    before = None
    for cycle in range(num_cycles):
        dag = graph.experimental_compile()
        assert runtime.get(dag.execute(0), timeout=LONG_S) == expected
        if cycle % 3:
            dag.teardown()  # otherwise the collector does it
        del dag
        if cycle == num_cycles // 5:
            before = all_footprints(crew)
    for old, new in zip(before, all_footprints(crew), strict=True):
        assert new[:-1] == old[:-1]
        assert new[-1] - old[-1] < GROWTH_KB


def all_footprints(crew):
    gc.collect()
    wait_until(lambda: footprint()[2] == 1)  # the collector's graphs end on another thread
    theirs = runtime.get([worker.footprint.remote() for worker in crew], timeout=LONG_S)
    return [footprint(), *theirs]


def test_cycles_of_sessions_leave_nothing(no_leaks):
    before = None
    for cycle in range(60):
        runtime.init()
        with chain(make(2)).experimental_compile() as dag:
            assert dag.execute(0).get(timeout=LONG_S) == 12
        del dag
        theirs = {thread.native_id for thread in threading.enumerate()} - {os.getpid()}
        runtime.shutdown()
        gc.collect()
        wait_until(lambda ended=theirs: not any(map(is_thread, ended)))
        if cycle == 10:
            before = footprint()
    after = footprint()
    # Fewer is fine: a thread of a library may have been on its way out at the first reading.
    counts = zip(before[:-1], after[:-1], strict=True)
    assert all(new <= old for old, new in counts), (before, after)
    assert after[-1] - before[-1] < GROWTH_KB


def is_thread(number):
    """A thread that Python has joined may still be there for the kernel."""
    return Path(f"/proc/self/task/{number}").exists()


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_values_of_random_sizes_stay_as_they_are_while_held(session, seed):
    """100 000 executions in all; results are held, dropped, got late, or never got."""
    choose = random.Random(seed)
    held, pending = [], []
    with chain(make(2)).experimental_compile(
        _max_inflight_executions=8, _capacity_policy="block"
    ) as dag:
        for number in range(50_000):
            size = int(10 ** choose.uniform(0, 5.2)) if choose.random() < 0.2 else 1
            pending.append((number, size, dag.execute(np.full(size, float(number)))))
            while len(pending) == 8 or (pending and choose.random() < 0.4):
                expected, size, ref = pending.pop(choose.choice([0, 0, -1]) if pending else 0)
                if len(pending) < 7 and choose.random() < 0.05:
                    continue  # dropped before it was got
                value = ref.get(timeout=LONG_S)
                check(value, expected, size)
                if choose.random() < 0.2:
                    held.append((value, expected, size))
            while len(held) > 60:
                check(*held.pop(choose.randrange(len(held))))
        del pending
    for item in held:
        check(*item)


def check(value, number, size):
    assert value.shape == (size,)
    assert value[0] == value[-1] == 100 * number + 12
    assert value.min() == value.max()


# --- kills ----------------------------------------------------------------------------------------


@pytest.fixture
def machines():
    """Return a maker of actors that compute what `recipes.work_out` does."""
    # By value: importing that file, and hypothesis with it, would take longer than all the rest.
    cloudpickle.register_pickle_by_value(recipes)
    kind = runtime.remote(recipes.Machine)
    yield lambda count: [kind.remote(number) for number in range(count)]
    cloudpickle.unregister_pickle_by_value(recipes)


@settings(
    max_examples=200,
    phases=[Phase.explicit, Phase.generate],  # a kill comes at another point each time
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    recipe=recipes.recipes(max_steps=10),
    inputs=st.lists(recipes.inputs, min_size=8, max_size=8),
    in_flight=st.integers(1, 5),
    choose=st.randoms(use_true_random=False),
)
def test_random_graphs_under_random_kills(session, machines, recipe, inputs, in_flight, choose):
    actors = machines(recipe.num_actors)
    pids = runtime.get([actor.__ray_call__.remote(own_pid) for actor in actors], timeout=LONG_S)
    dag = recipes.draw(recipe, actors).experimental_compile(_max_inflight_executions=in_flight)
    oracle = [recipes.Machine(number) for number in range(recipe.num_actors)]
    victim = choose.randrange(recipe.num_actors)
    killer = None
    if choose.random() < 0.8:
        killer = threading.Timer(choose.uniform(0, 0.03), os.kill, (pids[victim], signal.SIGKILL))
        killer.start()
    pending = []
    death = None
    for number in range(40):
        values = [inputs[(number + offset) % len(inputs)] for offset in range(recipe.num_inputs)]
        expected = recipes.work_out(recipe, oracle, values)
        args, kwargs = recipe.arguments(values)
        pending.append((dag.execute(*args, **kwargs), expected))
        while len(pending) == in_flight or (number == 39 and pending):
            death = get_and_compare(*pending.pop(0), death)
    if killer is not None:
        killer.join()
        check_survivors(machines, actors, victim)
    dag.teardown()
    for actor in actors:
        runtime.kill(actor)


def own_pid(_machine):
    return os.getpid()


def get_and_compare(refs, expected, death):
    """Check every output of an execution; returns the death that it ran into, if it did."""
    for ref, value in zip(refs, expected, strict=True):
        found = outcome(ref)
        if isinstance(found, GraphActorDiedError):
            assert found.signal == "SIGKILL", found
            assert death is None or str(found) == str(death)
            death = found
        elif isinstance(value, recipes.Failed):
            assert isinstance(found, TaskError)
            assert value.text in str(found)
        else:
            assert recipes.digest(found) == recipes.digest(value)
    return death


def outcome(ref):
    try:
        return ref.get(timeout=LONG_S)
    except (GraphActorDiedError, TaskError) as error:
        return error


def check_survivors(machines, actors, victim):
    """Compile again, with a new actor in the victim's place."""
    with pytest.raises(ActorDiedError):
        runtime.get(actors[victim].mix.remote(), timeout=LONG_S)
    crew = [*actors[:victim], *machines(1), *actors[victim + 1 :]]
    calls = (recipes.Call(n, "mix", (recipes.Ref(0), n), ()) for n in range(len(crew)))
    outputs = tuple(recipes.Ref(1 + n) for n in range(len(crew)))
    recipe = recipes.Recipe(len(crew), None, tuple(calls), outputs)
    with recipes.draw(recipe, crew).experimental_compile() as dag:
        assert all(isinstance(n, int) for n in runtime.get(dag.execute(1), timeout=LONG_S))


@pytest.mark.parametrize("transport", ["gloo", "shm"])
@pytest.mark.parametrize("seed", range(2))
def test_random_kills_in_collectives(session, seed, transport):
    choose = random.Random(seed)
    crew = make_ranks(4)
    for _ in range(25):
        pids = pids_of(crew)
        victim = choose.randrange(4)
        size = int(10 ** choose.uniform(0, 6.3))
        with reduce(crew, size, transport=transport).experimental_compile() as dag:
            assert runtime.get(dag.execute(0), timeout=LONG_S) == [20.0] * 4
            delay_s = choose.uniform(0, 0.03)
            killer = threading.Timer(delay_s, os.kill, (pids[victim], signal.SIGKILL))
            killer.start()
            results = [20.0]
            while set(results) == {20.0}:
                results = [outcome(ref) for ref in dag.execute(0)]
            killer.join()
            errors = {str(result) for result in results if result != 20}
            assert len(errors) == 1
            assert dag.actors[victim].label in errors.pop()
            crew[victim] = Rank.remote(victim + 1)
    with reduce(crew).experimental_compile() as dag:
        assert runtime.get(dag.execute(0), timeout=LONG_S) == [20.0] * 4


class Brings:
    """A rank that brings tensors of sizes it is told, and knows what comes of them."""

    def __init__(self, rank, world_size):
        self.rank = rank
        self.world_size = world_size

    def bring(self, lap):
        import torch

        number, size = lap
        return torch.arange(size, dtype=torch.float32) % 97 + number % 31 + self.rank

    def check(self, total, joined, lap):
        import torch

        number, size = lap
        ranks = range(self.world_size)
        brought = [torch.arange(size, dtype=torch.float32) % 97 + number % 31 + r for r in ranks]
        return torch.equal(total, sum(brought)) and torch.equal(joined, torch.cat(brought))


@pytest.mark.parametrize("world_size", [2, 3])
def test_laps_of_random_sizes_over_shared_memory(session, world_size):
    choose = random.Random(world_size)
    await_zygotes()
    kind = runtime.remote(Brings)
    ranks = [kind.remote(rank, world_size) for rank in range(world_size)]
    with InputNode() as inp:
        brought = [rank.bring.bind(inp) for rank in ranks]
        totals = allreduce.bind(brought, transport="shm")
        joined = allgather.bind(brought, transport="shm")
        checks = zip(ranks, totals, joined, strict=True)
        output = MultiOutputNode([rank.check.bind(*values, inp) for rank, *values in checks])
    with output.experimental_compile(_max_inflight_executions=4) as dag:
        pending = []
        for number in range(5_000):  # two operations each
            largest = 6.3 if choose.random() < 0.02 else 4.5
            pending.append(dag.execute((number, int(10 ** choose.uniform(0, largest)))))
            while len(pending) == 4 or (pending and choose.random() < 0.3):
                assert runtime.get(pending.pop(0), timeout=LONG_S) == [True] * world_size


def test_random_kills_while_graphs_come_up(session):
    choose = random.Random(0)
    for round_ in range(60):
        crew = make_ranks(3) if round_ % 2 else make(3)
        pids = pids_of(crew)
        victim = choose.randrange(3)
        graph = reduce(crew) if round_ % 2 else chain(crew)
        delay_s = choose.uniform(0, 0.05 if round_ % 2 else 0.01)
        killer = threading.Timer(delay_s, os.kill, (pids[victim], signal.SIGKILL))
        killer.start()
        with pytest.raises(ActorDiedError, match="SIGKILL"):  # noqa: PT012  which one, chance decides
            dag = graph.experimental_compile()
            while True:
                runtime.get(dag.execute(0), timeout=LONG_S)
        dag = None
        killer.join()
        rest = [worker for number, worker in enumerate(crew) if number != victim]
        graph = reduce(rest) if round_ % 2 else chain(rest)
        with graph.experimental_compile() as dag:
            runtime.get(dag.execute(0), timeout=LONG_S)


# --- errors ---------------------------------------------------------------------------------------


def test_collectives_with_random_errors_and_mismatches(session):
    choose = random.Random(0)
    ranks = make_ranks(3)
    kinds = {
        "raise": ValueError,
        "shape": CollectiveMismatchError,
        "dtype": CollectiveMismatchError,
    }
    with reduce(ranks).experimental_compile(_max_inflight_executions=4) as dag:
        pending = []
        for _ in range(2_000):
            what = choose.choice(["", "", *kinds])
            order = Order(choose.randint(1, 3), what) if what else 0
            pending.append((what, dag.execute(order)))
            while len(pending) == 4 or (pending and choose.random() < 0.5):
                what, refs = pending.pop(0)
                for ref in refs:
                    if what:
                        with pytest.raises(kinds[what]) as caught:
                            ref.get(timeout=LONG_S)
                        assert isinstance(caught.value, TaskError)
                    else:
                        assert ref.get(timeout=LONG_S) == 12


def test_calls_and_executions_from_several_threads(session):
    """Two graphs share one actor, which is also called; each thread checks its own results."""
    first, second, third = make(3)
    failures = []

    def call(worker, digit):
        for number in range(3_000):
            result = runtime.get(worker.work.remote(number), timeout=LONG_S)
            if result != 10 * number + digit:
                failures.append(("call", number, result))

    def execute(dag, digits, offset):
        pending = []
        for number in range(offset, offset + 3_000):
            pending.append((number, dag.execute(number)))
            while len(pending) == 2 or (pending and number == offset + 2_999):
                expected, ref = pending.pop(0)
                result = ref.get(timeout=LONG_S)
                if result != int(f"{expected}{digits}"):
                    failures.append((digits, expected, result))

    options = {"_capacity_policy": "block", "_submit_timeout": LONG_S}
    with (
        chain([first, second]).experimental_compile(**options) as left,
        chain([second, third]).experimental_compile(**options) as right,
    ):
        threads = [
            threading.Thread(target=call, args=(first, 1)),
            threading.Thread(target=call, args=(second, 2)),
            *(threading.Thread(target=execute, args=(left, "12", n)) for n in (1, 10_000)),
            *(threading.Thread(target=execute, args=(right, "23", n)) for n in (1, 10_000)),
        ]
        finished = []
        for thread in threads:
            thread.daemon = True  # one that hangs must not keep the test from failing
            thread.start()
        for thread in threads:
            thread.join(300)
            finished.append(not thread.is_alive())
    assert all(finished)
    assert failures == []


def test_sigstop_and_sigcont_at_random_lose_nothing(session):
    choose = random.Random(0)
    crew = make(3)
    pids = pids_of(crew)
    done = threading.Event()

    def disturb():
        while not done.wait(choose.uniform(0, 0.01)):
            pid = choose.choice(pids)
            os.kill(pid, signal.SIGSTOP)
            done.wait(choose.uniform(0, 0.01))
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=disturb)
    with chain(crew).experimental_compile() as dag:
        thread.start()
        try:
            for number in range(2_000):
                assert dag.execute(number).get(timeout=LONG_S) == number * 1000 + 123
        finally:
            done.set()
            thread.join()
    assert Path(f"/proc/{pids[0]}").exists()
