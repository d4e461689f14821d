"""The driver's side of the raw torch.distributed loop: start the ranks, tell them what to run.

What the ranks do in between is in `raw_rank.py`. They are sessions of their own, so that Ctrl-C
reaches only the driver; they end when their pipe does, so that none outlives it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Pipe, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from digits.timing import StepTimes, critical_path

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

    from digits.data import Digits
    from digits.replica import Job, Plan

EXAMPLES = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Join the group and make the replica."""

    rank: int
    job: Job
    digits: Digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Go back to the initial parameters; answered by None."""

    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Train on the batches of these steps; answered by `RankTimes`."""

    steps: range


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Answered by the parameters."""


Request: TypeAlias = "Reset | Run | Parameters"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTimes:
    """What one rank measured in a `Run`, one entry a step."""

    step_s: NDArray[np.float64]
    allreduce_s: NDArray[np.float64]
    methods_s: NDArray[np.float64]
    """Shape (steps, methods)."""


class RawRankDiedError(RuntimeError):
    """A process of the raw loop ended before it was told to."""


class RawLoop:
    """Plain processes that draw the same batches from the same seed: their steps need no driver.

    A context manager: the processes live from `with` to its end.
    """

    name = "torch.distributed"
    allreduces = True

    def __init__(self, job: Job, digits: Digits) -> None:
        self._job = job
        self._digits = digits
        self._stack = ExitStack()
        self._ranks: list[_Rank] = []

    def __enter__(self) -> Self:
        with self._stack:
            # The ranks meet in a file without a name, which is gone when the last of them is.
            meeting = os.memfd_create("rendezvous")
            self._stack.callback(os.close, meeting)
            for rank in range(self._job.world_size):
                self._ranks.append(self._stack.enter_context(_Rank(rank, meeting)))
                self._ranks[-1].send(Setup(rank=rank, job=self._job, digits=self._digits))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def reset(self, plan: Plan) -> None:
        """Bring all ranks back to the initial parameters."""
        self._ask_all(Reset(plan=plan))

    def run(self, steps: range) -> StepTimes:
        """Train on the batches of these steps."""
        times: list[RankTimes] = self._ask_all(Run(steps=steps))
        return StepTimes(
            step_s=times[0].step_s,
            compute_s=critical_path(np.stack([rank.methods_s for rank in times], axis=1)),
            allreduce_s=np.min([rank.allreduce_s for rank in times], axis=0),
        )

    def parameters(self) -> NDArray[Any]:
        """Return the parameters of rank 0."""
        self._ranks[0].send(Parameters())
        vector: NDArray[Any] = self._ranks[0].receive()
        return vector

    def _ask_all(self, request: Request) -> list[Any]:
        for rank in self._ranks:
            rank.send(request)
        answers: dict[int, Any] = {}
        while waiting := [rank for rank in self._ranks if rank.number not in answers]:
            # Whoever is ready first: when one rank dies the others fail too, but later.
            ready = wait([rank.pipe for rank in waiting])
            answers.update({rank.number: rank.receive() for rank in waiting if rank.pipe in ready})
        return [answers[rank.number] for rank in self._ranks]


class _Rank:
    """One process, and the pipe to it."""

    def __init__(self, number: int, meeting: int) -> None:
        self.number = number
        self.pipe, theirs = Pipe()
        descriptors = (theirs.fileno(), meeting)
        command = [sys.executable, "-m", "digits.raw_rank", *map(str, descriptors)]
        self._process = subprocess.Popen(
            command, env=_environment(), pass_fds=descriptors, start_new_session=True
        )
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pipe.close()
        self._process.kill()
        self._process.wait()

    def send(self, request: Setup | Request) -> None:
        """Send a request."""
        try:
            self.pipe.send(request)
        except OSError:
            raise self._death() from None

    def receive(self) -> Any:
        """Wait for the answer to the last request."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None

    def _death(self) -> RawRankDiedError:
        code = self._process.wait()
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        who = f"rank {self.number} (pid {self._process.pid}) of the raw torch.distributed loop"
        return RawRankDiedError(f"{who} died: {reason}")


def _environment() -> dict[str, str]:
    """Make the ranks like the actors: one thread each, and only the loopback interface."""
    path = os.pathsep.join(filter(None, [str(EXAMPLES), os.environ.get("PYTHONPATH", "")]))
    return {
        **os.environ,
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": path,
    }
