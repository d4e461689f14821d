"""One rank of the raw torch.distributed loop: ``python -m digits.raw_rank PIPE RENDEZVOUS``."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import distributed

from digits.data import draw_batches
from digits.raw import Parameters, RankTimes, Request, Reset, Run, Setup
from digits.replica import Job, Plan, Replica

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Rank:
    """A replica in a process of its own, in a process group with the others."""

    def __init__(self, setup: Setup, rendezvous: str) -> None:
        torch.set_num_threads(1)
        join_group(setup.rank, setup.job, rendezvous)
        self._job = setup.job
        self._plan = setup.job.plan
        self._replica = Replica(setup.rank, setup.job, setup.digits)

    def answer(self, request: Request) -> Any:
        """Do what is asked."""
        match request:
            case Reset(plan=plan):
                self._reset(plan)
                return None
            case Run(steps=steps):
                return self._run(steps)
            case Parameters():
                return self._replica.parameters()

    def _reset(self, plan: Plan) -> None:
        self._plan = plan
        self._replica.reset(plan)

    def _run(self, steps: range) -> RankTimes:
        batches = draw_batches(self._job.seed, self._plan.batch_size, steps)
        distributed.barrier()
        ends, allreduce_s, methods_s = [perf_counter()], [], []
        for batch in batches:
            wait_s, *method_s = self._step(batch)
            allreduce_s.append(wait_s)
            methods_s.append(method_s)
            ends.append(perf_counter())
        return RankTimes(
            step_s=np.diff(ends),
            allreduce_s=np.array(allreduce_s),
            methods_s=np.array(methods_s),
        )

    def _step(self, batch: NDArray[np.int64]) -> tuple[float, float, float]:
        bucket = self._replica.backward(batch)
        began = perf_counter()
        distributed.all_reduce(bucket)
        bucket.div_(self._job.world_size)
        allreduce_s = perf_counter() - began
        _, backward_s, step_s = self._replica.step(bucket)
        return allreduce_s, backward_s, step_s


def join_group(rank: int, job: Job, rendezvous: str) -> None:
    """Join the process group of all ranks; they meet in a file."""
    backend = "gloo"
    if job.device == "cuda":
        num_gpus = torch.cuda.device_count()
        torch.cuda.set_device(rank % num_gpus)
        # NCCL wants a GPU for each rank, as it does in the compiled graph.
        backend = "nccl" if num_gpus >= job.world_size else "gloo"
    distributed.init_process_group(
        backend, init_method=f"file://{rendezvous}", rank=rank, world_size=job.world_size
    )


def main(pipe_descriptor: int, rendezvous_descriptor: int) -> None:
    """Serve the driver until it closes the pipe."""
    pipe = Connection(pipe_descriptor)
    try:
        rank = Rank(pipe.recv(), f"/proc/self/fd/{rendezvous_descriptor}")
        while True:
            pipe.send(rank.answer(pipe.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
