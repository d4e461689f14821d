"""Data-parallel training through a compiled graph, undisturbed and disturbed.

A step whose gradient failed on one rank is a step that no rank takes. So the parameters at the end
must be those of one process that trains on the other batches, whole.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import runtime
from collective import ReduceOp, allreduce
from compiled_dag import InputNode, MultiOutputNode
from compiled_dag.errors import CollectiveMismatchError, TaskError
from tests.crew import Model, Order, Trainer
from tests.live import LONG_S, ROOT, end_all, running, wait_until

pytestmark = pytest.mark.proc


def training_step(trainers):
    with InputNode() as inp:
        shares = [trainer.backward.bind(inp[0], inp[1]) for trainer in trainers]
        gradients = allreduce.bind(shares, op=ReduceOp.AVG)
        pairs = zip(trainers, gradients, strict=True)
        return MultiOutputNode([trainer.step.bind(gradient) for trainer, gradient in pairs])


def batches(count):
    """Draw batches of every size, smaller than the number of ranks at times."""
    numbers = np.random.default_rng(0)
    return [numbers.standard_normal((1 + step % 11, 3)) for step in range(count)]


class Alone:
    """One process that trains on the whole batches."""

    def __init__(self):
        self.model = Model()

    def train(self, rows):
        return self.model.step(self.model.backward(rows, 1, rows))


def check_parameters(trainers, alone):
    expected = alone.model.parameters()
    for trainer in trainers:
        found = runtime.get(trainer.parameters.remote(), timeout=LONG_S)
        assert np.linalg.norm(found - expected) <= 1e-12 * np.linalg.norm(expected)


@pytest.mark.parametrize("world_size", [2, 4])
def test_training_is_that_of_one_process_and_a_step_that_fails_is_taken_by_no_rank(
    session, world_size
):
    trainers = [Trainer.remote(rank, world_size) for rank in range(world_size)]
    alone = Alone()
    checks = {
        "raise": check_raise,
        "autograd": check_autograd,
        "array": check_array,
        "shape": check_shape,
        "dtype": check_dtype,
    }
    bad = [(rank, what) for rank in (0, world_size - 1) for what in checks]
    with training_step(trainers).experimental_compile() as dag:
        for step, rows in enumerate(batches(40)):
            if step >= 10 and bad:
                rank, what = bad.pop()
                for error in failures(dag.execute(rows, Order(rank, what))):
                    checks[what](error, rank, world_size)
            norm = alone.train(rows)
            norms = runtime.get(dag.execute(rows, None), timeout=LONG_S)
            assert norms == pytest.approx([norm] * world_size, rel=1e-9)
        check_parameters(trainers, alone)


def failures(refs):
    errors = []
    for ref in refs:
        with pytest.raises(TaskError) as caught:
            ref.get(timeout=LONG_S)
        errors.append(caught.value)
    return errors


def check_raise(error, rank, _world_size, kind=ValueError, text="was told to", frame="in obey"):
    assert isinstance(error, kind)
    assert text in str(error)
    assert frame in error.traceback_text
    assert error.traceback_text.strip() in str(error)
    assert error.rank == rank
    assert f"rank {rank}" in str(error)
    assert error.actor == f"Trainer({rank + 1})"
    assert "Trainer.backward (node " in error.node
    assert "bound at test_training.py:" in error.node


def check_autograd(error, rank, world_size):
    check_raise(error, rank, world_size, ArithmeticError, "no gradient here", "in fail")


def check_array(error, rank, _world_size):
    assert isinstance(error, ValueError)
    assert "allreduce(AVG) takes a torch.Tensor, not numpy.ndarray" in str(error)
    assert error.rank == rank
    assert error.actor == f"Trainer({rank + 1})"


def check_mismatch(error, rank, world_size, usual, odd):
    assert isinstance(error, CollectiveMismatchError)
    table = str(error)
    rows = [line for line in table.splitlines() if "Trainer.backward" in line or "Trainer(" in line]
    rows = [line for line in rows if line.lstrip()[:1].isdigit()]
    assert len(rows) == world_size
    for number, row in enumerate(rows):
        assert f"Trainer({number + 1})" in row
        assert (odd if number == rank else usual) in row
    if world_size > 2:
        assert [number for number, row in enumerate(rows) if "differs" in row] == [rank]
    else:  # nobody can tell which of two is odd
        assert sum("differs" in row for row in rows) == 1


def check_shape(error, rank, world_size):
    check_mismatch(error, rank, world_size, "(30,)", "(29,)")


def check_dtype(error, rank, world_size):
    check_mismatch(error, rank, world_size, "float64", "float32")


# --- the example ----------------------------------------------------------------------------------

FAILING_EXAMPLE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import train_digits

class Failing(train_digits.Replica):
    def backward(self, batch):
        if self._rank == 1 and self._step == 30:
            raise ValueError("no gradient at step 30")
        return super().backward(batch)

train_digits.Replica = Failing
sys.exit(train_digits.main())
"""


def test_the_example_shows_what_a_worker_raised(tmp_path):
    arguments = [str(ROOT / "examples"), "--epochs", "2", "--out", str(tmp_path)]
    with running([sys.executable, "-c", FAILING_EXAMPLE, *arguments]) as started:
        assert started.wait() == 1
    errors = started.errors
    assert errors.count("on actor Failing(2), rank 1, in execution 30, raised ValueError") == 1
    assert "Failing.backward (node 2, bound at train_digits.py:" in errors
    assert errors.count("Traceback") == errors.count("remote traceback:") == 1


@pytest.fixture
def demo(tmp_path):
    """Start the example; go on when it trains. It would do so for a long time."""
    script = str(ROOT / "examples" / "train_digits.py")
    with running([sys.executable, script, "--epochs", "100000", "--out", str(tmp_path)]) as started:
        wait_until(lambda: "epoch" in started.errors or not is_running(started.pid))
        assert "epoch" in started.errors, started.errors
        yield started


def is_running(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def processes_below(pid):
    """Return the processes that a process has started, by id, with their names."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            name, _, rest = stat.partition("(")[2].rpartition(")")
            parents[int(entry.name)] = int(rest.split()[1])
            names[int(entry.name)] = name
    below = {pid}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return {child: names[child] for child in below - {pid}}


def test_the_example_ends_when_a_worker_is_killed(demo):
    below = processes_below(demo.pid)
    (worker,) = (pid for pid, name in below.items() if name == "Replica(2)")
    os.kill(worker, signal.SIGKILL)
    assert demo.wait() == 1
    assert "GraphActorDiedError: graph" in demo.errors
    assert "lost actor Replica(2)" in demo.errors
    assert "SIGKILL" in demo.errors
    assert "Traceback" not in demo.errors
    assert end_all(list(below), LONG_S) == []


def test_ctrl_c_ends_the_example(demo):
    below = processes_below(demo.pid)
    assert {"Replica(1)", "Replica(2)"} <= set(below.values())
    demo.interrupt()
    assert demo.wait() == 130
    assert "interrupted" in demo.errors
    assert "Traceback" not in demo.errors
    assert "(Replica pid=" not in demo.errors
    assert end_all(list(below), LONG_S) == []


def test_ctrl_c_ends_the_example_while_it_imports():
    with running([sys.executable, str(ROOT / "examples" / "train_digits.py")]) as started:
        mappings = Path(f"/proc/{started.pid}/maps")
        wait_until(lambda: "libtorch" in mappings.read_text())
        started.interrupt()
        assert started.wait() == 130
    assert started.errors == "interrupted\n"


class Layers:
    """A rank with two layers, whose gradients it writes to memory that it keeps."""

    def __init__(self, rank):
        import torch

        self.rank, self.torch = rank, torch
        self.memory = torch.zeros(4, dtype=torch.float64)

    def upper(self, value):
        self.memory.fill_(value + self.rank)
        return self.memory

    def lower(self, value):
        self.memory.fill_(-1000.0 * value)  # what `upper` returned is being reduced
        return self.torch.full((3,), value * (self.rank + 1.0), dtype=self.torch.float64)

    def step(self, upper, lower):
        return upper.tolist(), lower.tolist()


def test_methods_run_while_their_gradients_are_reduced_and_change_nothing(session):
    ranks = [runtime.remote(Layers).remote(rank) for rank in range(2)]
    with InputNode() as inp:
        uppers = allreduce.bind([rank.upper.bind(inp) for rank in ranks])
        lowers = allreduce.bind([rank.lower.bind(inp) for rank in ranks])
        pairs = zip(ranks, uppers, lowers, strict=True)
        step = MultiOutputNode([rank.step.bind(upper, lower) for rank, upper, lower in pairs])
    with step.experimental_compile() as compiled:
        kinds = [type(step).__name__ for step in compiled.program.steps[1]]
        assert kinds[2:4] == ["CollectiveStart", "Compute"]
        for value in range(20):
            expected = [2.0 * value + 1] * 4, [3.0 * value] * 3
            assert runtime.get(compiled.execute(value), timeout=LONG_S) == [expected, expected]
