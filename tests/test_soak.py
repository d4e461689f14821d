"""The long ones: thousands of cycles, random values, random kills. Run by `make soak`."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

import runtime
from collective import ReduceOp, allreduce
from compiled_dag import ActorDiedError, InputNode, MultiOutputNode, TaskError

pytestmark = [pytest.mark.soak, pytest.mark.proc, pytest.mark.timeout(900)]


class Worker:
    def __init__(self, number):
        self.number = number

    def pid(self):
        return os.getpid()

    def add(self, value):
        return value + self.number

    def join(self, *values):
        return sum(values) + self.number

    def gradient(self, order):
        import torch

        seed, bad = order
        if bad == (self.number, "raise"):
            raise ValueError(f"rank {self.number} at {seed}")
        size = 5 if bad == (self.number, "shape") else 1 + seed % 3000
        return torch.full((size,), float(seed + self.number))

    def first(self, tensor):
        return float(tensor[0])


def _workers(count):
    make = runtime.remote(Worker)
    return [make.remote(number) for number in range(count)]


def _chain(workers):
    with InputNode() as inp:
        node = inp
        for worker in workers:
            node = worker.add.bind(node)
    return node


def _footprint():
    """Return descriptors, threads, mappings and resident KiB of this process."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)
    return (
        len(list(Path("/proc/self/fd").iterdir())),
        threading.active_count(),
        Path("/proc/self/maps").read_text().count("memfd:compiled-dag"),
        resident,
    )


def test_compiling_and_tearing_down_leaves_nothing_behind(session):
    workers = _workers(3)
    before = None
    for cycle in range(600):
        with _chain(workers).experimental_compile() as dag:
            assert dag.execute(cycle).get() == cycle + 3
        del dag
        if cycle == 100:
            before = _footprint()
    fds, threads, mappings, resident = _footprint()
    # One more may come: the second stage of the zygote reports once it has imported torch.
    assert fds - before[0] <= 1
    assert (threads, mappings) == before[1:3]
    assert resident - before[3] < 20_000, "resident memory grows by the cycle"


def test_values_of_random_sizes_stay_as_they_were_while_held(session):
    chooser = random.Random(1)
    workers = _workers(2)
    with _chain(workers).experimental_compile(_max_inflight_executions=8) as dag:
        held, pending = [], []
        for number in range(20_000):
            size = int(10 ** chooser.uniform(0, 5.3))
            pending.append((number, size, dag.execute(np.full(size, float(number)))))
            if len(pending) == 8 or chooser.random() < 0.3:
                number_got, size_got, ref = pending.pop(0)
                value = ref.get()
                assert value.shape == (size_got,)
                held.append((number_got, value))
            if len(held) > 40:
                expected, value = held.pop(chooser.randrange(len(held)))
                assert (value == expected + 1).all()
        for expected, value in held:
            assert (value == expected + 1).all()


@pytest.mark.parametrize("seed", range(4))
def test_random_kills_give_the_right_value_or_the_death_never_a_hang(session, seed):
    chooser = random.Random(seed)
    for _ in range(15):
        workers = _workers(4)
        pids = runtime.get([worker.pid.remote() for worker in workers])
        with InputNode() as inp:
            first = [worker.add.bind(inp) for worker in workers]
            sums = [worker.join.bind(*first) for worker in workers]
            output = MultiOutputNode(sums)
        dag = output.experimental_compile(_get_timeout=30)
        kill = threading.Timer(
            chooser.uniform(0, 0.05), os.kill, (chooser.choice(pids), signal.SIGKILL)
        )
        kill.start()
        died = False
        number = 0
        while not died:
            try:
                values = runtime.get(dag.execute(number))
            except ActorDiedError as error:
                died = True
                assert error.signal == "SIGKILL", str(error)  # noqa: PT017  or the value is right
            else:
                assert values == [4 * number + 6 + worker for worker in range(4)]
            number += 1
        kill.join()
        dag.teardown()
        with pytest.raises(ActorDiedError):
            dag.execute(0)[0].get()


def test_collectives_survive_errors_and_mismatches(session):
    chooser = random.Random(2)
    workers = _workers(3)
    with InputNode() as inp:
        reduced = allreduce.bind([worker.gradient.bind(inp) for worker in workers], op=ReduceOp.SUM)
        output = MultiOutputNode([w.first.bind(t) for w, t in zip(workers, reduced, strict=True)])
    with output.experimental_compile(_get_timeout=30) as dag:
        for seed in range(2_000):
            what = chooser.choice(["", "", "", "raise", "shape"])
            bad = (chooser.randrange(3), what) if what else None
            refs = dag.execute((seed + 10, bad))
            for ref in refs:
                if what:
                    with pytest.raises(TaskError):
                        ref.get()
                else:
                    assert ref.get() == 3 * (seed + 10) + 3


def test_ordinary_calls_and_executions_mix_from_several_threads(session):
    workers = _workers(2)
    calls, executions = [], []

    def call():
        calls.append([runtime.get(workers[0].add.remote(number)) for number in range(2_000)])

    def execute(dag):
        executions.append([dag.execute(number).get() for number in range(2_000)])

    with _chain(workers).experimental_compile(_capacity_policy="block") as dag:
        threads = [threading.Thread(target=call) for _ in range(2)]
        threads += [threading.Thread(target=execute, args=(dag,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert calls == [list(range(2_000))] * 2
    assert executions == [list(range(1, 2_001))] * 3
