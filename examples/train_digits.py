"""Train a small convolutional network on handwritten digits, data-parallel over actors.

    python examples/train_digits.py --workers 2 --out out/train_digits

Every training step is one execution of one compiled graph: each worker takes its shard of the batch
and computes a gradient, the gradients are averaged by an allreduce of one flat bucket, and each
worker takes the same optimiser step. Afterwards the run checks itself against a single process that
trains on the whole batches, and is timed against two other ways to do the same: a `.remote()` call
for each method, and plain torch.distributed processes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from statistics import fmean
from time import perf_counter
from typing import TYPE_CHECKING, Any

from digits.interrupt import end_on_interrupt, interruptible

if __name__ == "__main__":
    end_on_interrupt()  # the imports take seconds

import torch
from digits.checks import check_accuracy, check_parameters, check_same_work
from digits.data import NUM_TRAIN_IMAGES, Digits, draw_batches, load, steps_per_epoch
from digits.devices import on_device
from digits.loops import CompiledLoop, RemoteLoop, Worker, execute_all
from digits.options import Options, parse
from digits.plot import save_plot
from digits.progress import Meter
from digits.raw import RawLoop, RawRankDiedError
from digits.replica import Job, Plan, Replica
from digits.report import Report, write_report
from digits.timing import STEPS_PER_BLOCK, Comparison, compare, distance
from rich.console import Console

import runtime
from collective import ReduceOp, allreduce
from compiled_dag import CompiledDAG, InputNode, MultiOutputNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SMALL_BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What training through the compiled graph gave."""

    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    seconds: float
    parameters: NDArray[Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; return its exit code."""
    options = parse(arguments)
    try:
        report = run(options)
    except (runtime.exceptions.ExecutorError, RawRankDiedError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    finally:
        runtime.shutdown()
    Console().print(report)
    print(f"written to {options.out}: loss.png, program.txt, report.txt, report.json")
    return 0 if report.ok else 1


def run(options: Options) -> Report:
    """Train, check, compare, and write all that to files."""
    torch.set_num_threads(1)  # the cores belong to the workers
    runtime.init()
    digits = load(options.seed)
    job = make_job(options)
    workers = start_workers(job, digits)
    with build_graph(workers).experimental_compile() as train_step:
        (options.out / "program.txt").write_text(f"{train_step.program}\n", encoding="utf-8")
        training = train(workers, train_step, job)
        with RawLoop(job, digits) as raw:  # its processes start while the reference runs
            reference = train_alone(job, digits, workers)
            loops = (
                CompiledLoop(workers, job.seed, train_step),
                CompiledLoop(workers, job.seed, train_step, in_flight=1),
                RemoteLoop(workers, job.seed),
                raw,
            )
            comparisons = [compare(loops, plan, options.rounds) for plan in timing_plans(options)]
    report = judge(options, training, reference, comparisons)
    write_report(report, options.out)
    save_plot(options.out / "loss.png", options.title, training.losses, training.accuracies)
    return report


def start_workers(job: Job, digits: Digits) -> list[Worker]:
    """Start an actor for each rank; each gets the images once."""
    make_worker = on_device(Replica, job.device, job.world_size)
    images = runtime.put(digits)
    return [make_worker.remote(rank, job, images) for rank in range(job.world_size)]


def build_graph(workers: Sequence[Worker]) -> MultiOutputNode:
    """Draw one training step: a batch in, every rank's report out."""
    with InputNode() as batch:
        shares = [worker.backward.bind(batch) for worker in workers]
        gradients = allreduce.bind(shares, op=ReduceOp.AVG)
        return MultiOutputNode(
            [
                worker.step.bind(gradient)
                for worker, gradient in zip(workers, gradients, strict=True)
            ]
        )


def train(workers: Sequence[Worker], train_step: CompiledDAG, job: Job) -> Training:
    """Train by executing the graph once a batch."""
    per_epoch = steps_per_epoch(job.plan.batch_size)
    num_epochs = job.plan.steps // per_epoch
    losses: list[float] = []
    accuracies: list[float] = []
    seconds = 0.0
    with Meter(Console(stderr=True), num_epochs, job.plan.steps) as meter:
        for epoch in range(num_epochs):
            steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
            began = perf_counter()
            batches = draw_batches(job.seed, job.plan.batch_size, steps)
            for reports in execute_all(train_step, batches):
                losses.append(fmean(loss for loss, *_ in reports))
                meter.step_done(losses[-1])
            seconds += perf_counter() - began
            # An ordinary call: the workers stay actors while their graph is compiled.
            accuracies.append(runtime.get(workers[0].evaluate.remote()))
            meter.epoch_done(epoch, fmean(losses[-per_epoch:]), accuracies[-1])
    return Training(
        losses=tuple(losses),
        accuracies=tuple(accuracies),
        seconds=seconds,
        parameters=runtime.get(workers[0].parameters.remote()),
    )


def train_alone(job: Job, digits: Digits, workers: Sequence[Worker]) -> NDArray[Any]:
    """Train on the whole batches in this process; return the parameters."""
    replica = Replica(0, replace(job, world_size=1), digits)
    per_epoch = steps_per_epoch(job.plan.batch_size)
    for start in range(0, job.plan.steps, per_epoch):
        for batch in draw_batches(job.seed, job.plan.batch_size, range(start, start + per_epoch)):
            replica.step(replica.backward(batch))
        # A worker that died ends the run now, not only when it is used again.
        runtime.get([worker.__ray_ready__.remote() for worker in workers])
    return replica.parameters()


def make_job(options: Options) -> Job:
    """Collect what all ranks have to know."""
    return Job(
        world_size=options.workers,
        device=options.device,
        dtype=options.dtype,
        seed=options.seed,
        plan=Plan(batch_size=options.batch_size, steps=options.steps),
    )


def timing_plans(options: Options) -> list[Plan]:
    """Plan the timed runs: the batch size asked for, and one so small that nothing hides in it."""
    # The loops over actors take turns on the same workers, which so take the steps of three loops.
    steps = 3 * (options.rounds + 1) * STEPS_PER_BLOCK
    sizes = dict.fromkeys((options.batch_size, SMALL_BATCH))
    return [Plan(batch_size=size, steps=steps) for size in sizes]


def judge(
    options: Options,
    training: Training,
    reference: NDArray[Any],
    comparisons: Sequence[Comparison],
) -> Report:
    """Put the figures together, and check them."""
    accuracy = training.accuracies[-1]
    apart = distance(training.parameters, reference)
    return Report(
        options=options,
        num_steps=options.steps,
        training_s=training.seconds,
        samples_per_s=options.epochs * NUM_TRAIN_IMAGES / training.seconds,
        test_accuracy=accuracy,
        parameter_distance=apart,
        comparisons=tuple(comparisons),
        checks=(
            check_accuracy(accuracy, options),
            check_parameters(apart, options.dtype),
            *(check_same_work(comparison, options.dtype) for comparison in comparisons),
        ),
    )


if __name__ == "__main__":
    sys.exit(interruptible(main))
