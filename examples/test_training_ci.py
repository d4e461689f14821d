"""Test a multi-GPU training loop in CI, on a machine without a GPU.

    python -m pytest examples/test_training_ci.py

(or ``python examples/test_training_ci.py``, which does just that).

The loop below asks for one GPU per rank and never says gloo or NCCL. `runtime.init(num_gpus=4)`
promises it four: where the machine has fewer, the actors are placed as if it had them, and tensors
go through gloo; where it has four, the same tests run on these, through NCCL. So tests catch what
breaks training jobs: ranks that drift apart, a rank that dies or hangs, ranks that disagree.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import runtime
from collective import ReduceOp, allreduce
from compiled_dag import InputNode, MultiOutputNode

if TYPE_CHECKING:
    from collections.abc import Iterator

# --- the training loop under test: in a project of yours it is imported


class Replica:
    """One rank."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.rank, self.world_size = rank, world_size
        self.data_has_come = threading.Event()
        self.data_has_come.set()
        torch.manual_seed(0)  # all ranks begin alike
        self.model = nn.Linear(8, 1, dtype=torch.float64).to(self.device)

    def backward(self, rows: Tensor) -> Tensor:
        """Return the gradient of this rank's share of the rows, as one vector."""
        self.data_has_come.wait()
        share = rows[self.rank :: self.world_size].to(self.device)
        self.model.zero_grad()
        loss = (self.model(share[:, :8]) - share[:, 8:]).square().sum() / len(rows)
        loss.backward()
        return torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None])

    def step(self, gradient: Tensor) -> float:
        """Take a step of gradient descent; return the parameters' norm."""
        with torch.no_grad():
            vector = nn.utils.parameters_to_vector(self.model.parameters()) - 0.1 * gradient
            nn.utils.vector_to_parameters(vector, self.model.parameters())
        return float(vector.norm())

    def gpu(self) -> list[int | str]:
        """Return which GPUs this rank was given."""
        return runtime.get_gpu_ids()

    def pid(self) -> int:
        """Return this rank's process."""
        return os.getpid()

    def lose_data(self) -> None:
        """Let this rank wait for data that never comes."""
        self.data_has_come.clear()

    def truncate(self) -> None:
        """Make this rank's model another one than everybody else's."""
        self.model = nn.Linear(8, 1, bias=False, dtype=torch.float64).to(self.device)


Trainer = runtime.remote(num_gpus=1)(Replica)


def draw(trainers: list[Any]) -> MultiOutputNode:
    """Draw one training step."""
    with InputNode() as rows:
        gradients = allreduce.bind([t.backward.bind(rows) for t in trainers], op=ReduceOp.SUM)
        return MultiOutputNode(
            [t.step.bind(gradient) for t, gradient in zip(trainers, gradients, strict=True)]
        )


def train(world_size: int, num_steps: int = 20) -> list[list[float]]:
    """Train; return what each rank reported, step by step."""
    trainers = [Trainer.remote(rank, world_size) for rank in range(world_size)]
    with draw(trainers).experimental_compile() as step:
        return [runtime.get(step.execute(rows), timeout=30) for rows in batches(num_steps)]


def batches(count: int) -> list[Tensor]:
    """Draw batches of rows: eight numbers, and one to predict."""
    numbers = torch.Generator().manual_seed(1)
    return [torch.randn(16, 9, generator=numbers, dtype=torch.float64) for _ in range(count)]


# --- its tests

# Of GPUs that are not there one is told. Projects that make errors of warnings, as this one, say:
pytestmark = pytest.mark.filterwarnings("ignore:num_gpus=4 and . physical GPUs")


@pytest.fixture(autouse=True, scope="module")
def session() -> Iterator[None]:
    """Start a session with four GPUs, real or not."""
    with runtime.init(num_cpus=4, num_gpus=4):
        yield


def test_every_rank_has_a_gpu_of_its_own() -> None:
    """Four ranks on four GPUs."""
    trainers = [Trainer.remote(rank, 4) for rank in range(4)]
    given = [gpu for gpus in runtime.get([t.gpu.remote() for t in trainers]) for gpu in gpus]
    assert sorted(map(str, given)) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_agree_with_each_other_and_with_one_process(world_size: int) -> None:
    """Whatever the number of ranks, training is the same."""
    alone = [step[0] for step in train(1)]
    for expected, found in zip(alone, train(world_size), strict=True):
        assert found == pytest.approx([expected] * world_size, rel=1e-12)


def test_a_rank_that_dies_ends_the_run_with_its_name() -> None:
    """No rank waits for one that is gone."""
    trainers = [Trainer.remote(rank, 2) for rank in range(2)]
    victim = runtime.get(trainers[1].pid.remote())
    with draw(trainers).experimental_compile() as step:
        for number, rows in enumerate(batches(5)):
            if number == 3:
                os.kill(victim, signal.SIGKILL)
                with pytest.raises(runtime.exceptions.ActorDiedError, match="Replica"):
                    runtime.get(step.execute(rows), timeout=30)
                break
            runtime.get(step.execute(rows), timeout=30)
    assert runtime.get(trainers[0].pid.remote(), timeout=30)  # the others are still there


def test_ranks_that_disagree_are_told_so() -> None:
    """Gradients of two shapes are an error that shows both, and no wrong sum."""
    trainers = [Trainer.remote(rank, 2) for rank in range(2)]
    with draw(trainers).experimental_compile() as step:
        rows = batches(1)[0]
        runtime.get(step.execute(rows), timeout=30)
        runtime.get(trainers[1].truncate.remote())
        with pytest.raises(runtime.exceptions.CollectiveMismatchError, match="differs"):
            runtime.get(step.execute(rows), timeout=30)


def test_a_rank_that_hangs_is_named_with_its_stack() -> None:
    """A late step says which rank is to blame, and in which line it is."""
    trainers = [Trainer.remote(rank, 2) for rank in range(2)]
    runtime.get(trainers[1].lose_data.remote())
    with draw(trainers).experimental_compile() as step:
        late = step.execute(batches(1)[0])
        with pytest.raises(TimeoutError, match=r"line \d+, in backward"):
            runtime.get(late, timeout=2)
        runtime.kill(trainers[1])


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, *sys.argv[1:]]))
