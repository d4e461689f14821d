"""Resources: the ledger itself, and who gets what in a session."""

from __future__ import annotations

import gc
import os
import time
import warnings

import hypothesis.strategies as st
import pytest
from hypothesis import given

import runtime
from compiled_dag import InputNode
from runtime import lifecycle
from runtime.gpus import GpuPool
from runtime.resources import Demand, Ledger
from tests.crew import wait_for_file
from tests.live import LONG_S, wait_until
from tests.runtime import subjects
from tests.runtime.actors import Worker


def ledger(num_cpus=2.0, num_gpus=0.0, **others) -> Ledger:
    return Ledger(num_cpus, GpuPool(num_gpus), others)


def get(refs):
    return runtime.get(refs, timeout=LONG_S)


# --- the ledger -----------------------------------------------------------------------------------


def test_a_demand_shows_what_it_asks_for():
    demand = Demand.of(1, 0.5, {"b": 2, "a": 0.25, "none": 0})
    assert str(demand) == "CPU: 1, GPU: 0.5, a: 0.25, b: 2"
    assert str(Demand()) == "none"
    assert Demand.of(1, 0, {"a": 1, "b": 2}) == Demand.of(1, 0, {"b": 2, "a": 1})


def test_ten_tenths_are_one():
    one = ledger(1, 1, x=1)
    grants = [one.take(Demand.of(0.1, 0.1, {"x": 0.1})) for _ in range(10)]
    assert all(grants)
    assert one.take(Demand.of(0.0001)) is None
    assert one.take(Demand.of(0, 0, {"x": 0.0001})) is None
    assert one.take(Demand.of(0, 0.0001)) is None
    for grant in grants:
        one.give_back(grant)
    assert one.available() == one.totals() == {"CPU": 1, "x": 1, "GPU": 1}


def test_all_or_nothing():
    both = ledger(2, 1, x=1)
    assert both.take(Demand.of(1, 1, {"x": 2})) is None
    assert both.take(Demand.of(1, 2)) is None
    assert both.take(Demand.of(1, 0, {"unknown": 1})) is None
    assert both.available() == both.totals()


def test_cpus_can_be_overdrawn_by_who_insists_and_by_who_waited():
    one = ledger(1)
    first = one.take(Demand.of(1))
    second = one.take(Demand.of(1), insist=True)
    assert first is not None
    assert second is not None
    assert one.overdrawn
    assert one.available()["CPU"] == 0
    assert one.take(Demand.of(0)) is not None
    one.lend_cpus(first.demand.num_cpus)
    assert not one.overdrawn
    one.lend_cpus(-first.demand.num_cpus)
    one.give_back(first)
    one.give_back(second)
    assert one.available() == {"CPU": 1}


@pytest.mark.parametrize(
    ("demand", "text"),
    [
        (Demand.of(2), ""),
        (Demand.of(3), "CPU: 3 of 2"),
        (Demand.of(0, 2), "GPU: 2 of 1.5"),
        (Demand.of(0, 1), ""),
        (Demand.of(0, 0, {"x": 1, "y": 2}), "y: 2 of 0"),
        (Demand.of(0, 0, {"x": 1.5}), "x: 1.5 of 1"),
    ],
)
def test_what_is_missing(demand, text):
    assert ledger(2, 1.5, x=1).missing(demand) == text


amounts = st.sampled_from([0, 0.0001, 0.1, 0.3, 0.5, 1, 2])


@given(st.lists(st.tuples(amounts, amounts, amounts, st.booleans()), max_size=40))
def test_what_is_taken_comes_back(wishes):
    some = ledger(4, 3, x=2)
    grants = []
    for num_cpus, num_gpus, other, drop in wishes:
        grant = some.take(Demand.of(num_cpus, num_gpus, {"x": other}))
        if grant is not None:
            grants.append(grant)
            assert len(grant.gpu_ids) == (max(1, int(num_gpus)) if num_gpus else 0)
        if drop and grants:
            some.give_back(grants.pop(0))
        free = some.available()
        assert all(0 <= free[name] <= total for name, total in some.totals().items())
    for grant in grants:
        some.give_back(grant)
    assert some.available() == some.totals()


# --- in a session ---------------------------------------------------------------------------------


@runtime.remote
def gpus():
    return runtime.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")


@runtime.remote
def available():
    return runtime.available_resources()


def settled() -> None:
    wait_until(lambda: runtime.available_resources() == runtime.cluster_resources())


@pytest.mark.proc
def test_totals_and_what_is_free(no_leaks):
    with runtime.init(num_cpus=3, num_gpus=0, resources={"x": 2.5}):
        assert runtime.cluster_resources() == {"CPU": 3, "x": 2.5}
        free = get(available.options(num_cpus=2, resources={"x": 0.5}).remote())
        assert free == {"CPU": 1, "x": 2}
        settled()
        worker = Worker.options(resources={"x": 1}).remote()
        get(worker.pid.remote())
        assert runtime.available_resources() == {"CPU": 2, "x": 1.5}
        runtime.kill(worker)
        settled()


@pytest.mark.proc
def test_custom_resources_limit_how_many_run(no_leaks, tmp_path):
    @runtime.remote(num_cpus=0, resources={"slot": 1})
    def alone():
        path = tmp_path / "here"
        path.touch(exist_ok=False)
        time.sleep(0.005)  # a chance for others to come in, were they let
        path.unlink()

    with runtime.init(num_cpus=4, resources={"slot": 1}):
        get([alone.remote() for _ in range(20)])
        settled()


@pytest.mark.proc
def test_tasks_wait_for_actors_that_hold_what_they_need(no_leaks):
    with runtime.init(num_cpus=2, resources={"slot": 1}):
        holder = Worker.options(resources={"slot": 1}, num_cpus=0).remote()
        get(holder.pid.remote())
        ref = available.options(resources={"slot": 1}).remote()
        assert runtime.wait([ref], timeout=0) == ([], [ref])
        with pytest.raises(runtime.exceptions.GetTimeoutError, match=r"waiting for .*slot: 1"):
            runtime.get(ref, timeout=0)
        runtime.kill(holder)
        assert get(ref)["slot"] == 0
        settled()


@pytest.mark.proc
def test_actors_wait_for_tasks_that_hold_what_they_need(no_leaks, tmp_path):
    path = tmp_path / "go"

    @runtime.remote(resources={"slot": 1})
    def hold():
        wait_for_file(path)

    with runtime.init(num_cpus=2, resources={"slot": 1}):
        ref = hold.remote()
        wait_until(lambda: runtime.available_resources()["slot"] == 0)
        actor = Worker.options(resources={"slot": 1}).remote(5)
        path.touch()
        assert get([ref, actor.add.remote(1)]) == [None, 6]
        del actor
        settled()


@pytest.mark.proc
def test_fake_gpus_of_tasks(no_leaks):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with runtime.init(num_cpus=4, num_gpus=2):
            assert get(gpus.remote()) == ([], "")
            ids, visible = get(gpus.options(num_gpus=2).remote())
            assert ids == [0, 1]
            ids, _ = get(gpus.options(num_gpus=0.5).remote())
            assert ids in ([0], [1])
            assert visible is not None
            found = get([gpus.options(num_gpus=1).remote() for _ in range(6)])
            assert all(ids in ([0], [1]) for ids, _ in found)
            settled()


@pytest.mark.proc
def test_a_worker_with_a_gpu_is_not_used_without(no_leaks):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with runtime.init(num_cpus=1, num_gpus=1):
            for _ in range(3):
                assert get(gpus.options(num_gpus=1).remote())[0] == [0]
                assert get(gpus.remote())[0] == []


@pytest.mark.proc
def test_a_task_that_can_never_run_is_named_once(no_leaks):
    with runtime.init(num_cpus=1, num_gpus=0, resources={"x": 1}):
        big = gpus.options(num_cpus=5, resources={"x": 2, "y": 1})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            refs = [big.remote() for _ in range(3)]
        (warning,) = caught
        for text in ("gpus", "CPU: 5 of 1", "x: 2 of 1", "y: 1 of 0", "init("):
            assert text in str(warning.message)
        assert get(gpus.remote()) == ([], "")
        assert runtime.wait(refs, timeout=0) == ([], refs)


@pytest.mark.proc
def test_kinds_of_tasks_share_the_cpus(no_leaks):
    with runtime.init(num_cpus=2, resources={"x": 1}):
        refs = []
        for index in range(60):
            options = [{}, {"num_cpus": 2}, {"num_cpus": 0.5}, {"resources": {"x": 1}}][index % 4]
            refs.append(available.options(**options).remote())
        assert all(0 <= found["CPU"] <= 2 for found in get(refs))
        settled()


@pytest.mark.proc
def test_a_dead_worker_gives_its_resources_back(no_leaks):
    @runtime.remote(max_retries=0, resources={"x": 1})
    def leave():
        os._exit(1)

    with runtime.init(num_cpus=1, resources={"x": 1}):
        for _ in range(3):
            with pytest.raises(runtime.exceptions.WorkerCrashedError):
                get(leave.remote())
        settled()
        assert lifecycle.current().placement.ledger.overdrawn is False


# --- what garbage holds ---------------------------------------------------------------------------


@pytest.fixture
def no_collector():
    """Only what the session collects is collected."""
    gc.disable()
    yield
    gc.enable()


class Cycle:
    def __init__(self, held):
        self.held, self.me = held, self


@pytest.mark.proc
def test_an_actor_gets_what_garbage_held(no_leaks, no_collector):
    with runtime.init(num_cpus=2, resources={"seat": 1}):
        assert get(Cycle(Worker.options(resources={"seat": 1}).remote()).held.echo.remote(1)) == 1
        assert get(Worker.options(resources={"seat": 1}).remote().echo.remote(2)) == 2


@pytest.mark.proc
def test_a_task_gets_what_garbage_held(no_leaks, no_collector):
    with runtime.init(num_cpus=2, resources={"seat": 1}):
        assert get(Cycle(Worker.options(resources={"seat": 1}).remote()).held.echo.remote(1)) == 1
        assert get(subjects.echo_task.options(resources={"seat": 1}).remote(2)) == 2


@pytest.mark.proc
def test_an_actor_that_waits_gets_what_becomes_garbage_later(no_leaks, no_collector):
    with runtime.init(num_cpus=2, resources={"seat": 1}):
        holder = Cycle(Worker.options(resources={"seat": 1}).remote())
        waiting = Worker.options(resources={"seat": 1}).remote().echo.remote(2)
        assert get(holder.held.echo.remote(1)) == 1
        del holder
        assert get(waiting) == 2


@pytest.mark.proc
def test_a_graph_that_is_gone_gives_its_actors_back(no_leaks, no_collector):
    def run():
        worker = Worker.options(resources={"seat": 1}).remote()
        with InputNode() as inp:
            graph = worker.echo.bind(inp)
        with graph.experimental_compile() as compiled:
            return get(compiled.execute(1))

    with runtime.init(num_cpus=2, resources={"seat": 1}):
        assert [run(), run(), run()] == [1, 1, 1]


@pytest.mark.proc
def test_a_value_gets_the_room_of_values_in_garbage(no_leaks, no_collector):
    with runtime.init(num_cpus=1, object_store_memory=1_000_000):
        for _ in range(4):
            Cycle(runtime.put(bytes(800_000)))
