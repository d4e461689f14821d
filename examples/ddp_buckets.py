"""Train data-parallel with the gradients reduced in buckets while the backward pass goes on.

    python examples/ddp_buckets.py --ranks 2 --layers 4 --width 512

As soon as the gradient of a layer is there its allreduce starts, and the ranks compute that of the
layer below meanwhile: what torch's DistributedDataParallel does with hooks is written here into the
graph, one allreduce per layer. For comparison the same network is trained with one bucket for all
layers, reduced at the end, and by DistributedDataParallel itself, inside actors.

All ways start alike and must end alike. The picture shows the loss, and how long steps took.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from digits.interrupt import end_on_interrupt, interruptible

if __name__ == "__main__":
    end_on_interrupt()  # the imports take seconds

import numpy as np
import torch
from arguments import positive
from digits.data import Digits, draw_batches, load
from digits.devices import num_gpus, on_device, what_device
from digits.replica import flatten, torch_dtype
from digits.timing import distance
from digits.ways import save_ways
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

import runtime
from collective import ReduceOp, allreduce
from compiled_dag import InputNode, MultiOutputNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from compiled_dag import CompiledDAG

    Batches = Sequence[NDArray[np.int64]]

PIXELS, CLASSES = 64, 10
RATE = 0.05
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
MIN_BLOCKS = 2
IN_FLIGHT = 2
"""Steps under way: with two no rank waits for the driver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What all ranks have in common."""

    world_size: int
    num_layers: int
    width: int
    device: str
    dtype: str
    seed: int


class Rank:
    """A copy of the network, cut into layers that go backward one by one."""

    def __init__(self, rank: int, job: Job, digits: Digits) -> None:
        self._rank, self._job = rank, job
        flat = digits.train_images.reshape(len(digits.train_images), PIXELS)
        dtype = torch_dtype(job.dtype)
        self._images = torch.tensor(flat, dtype=dtype, device=job.device)
        self._labels = torch.tensor(digits.train_labels, device=job.device)
        self._layers = list(build_network(job).children())
        # Every layer's parameters are views of one tensor and its gradients of another, its bucket.
        self._flats, self._buckets = zip(*map(flatten, self._layers), strict=True)
        self._cuts: list[tuple[Tensor, Tensor]] = []
        self._gradient = self._images.new_zeros(())
        self._loss = 0.0

    def begin(self, batch: NDArray[np.int64]) -> Tensor:
        """Go forward, and back through the last layer; return its gradient."""
        for bucket in self._buckets:
            bucket.zero_()
        values, labels = shard(self._rank, self._job, self._images, self._labels, batch)
        self._cuts = []
        for layer in self._layers:
            cut = values.detach().requires_grad_()
            values = layer(cut)
            self._cuts.append((cut, values))
        loss = nn.functional.cross_entropy(values, labels, reduction="sum")
        loss = loss * (self._job.world_size / len(batch))
        self._loss = loss.item()
        self._gradient = torch.autograd.grad(loss, values)[0]
        return self._back()

    def backward(self, batch: NDArray[np.int64]) -> Tensor:
        """Go back through the next layer; return its gradient."""
        del batch  # it says which step this is part of
        return self._back()

    def backward_all(self, batch: NDArray[np.int64]) -> Tensor:
        """Go forward and all the way back; return all gradients, the last layer's first."""
        gradients = [self.begin(batch)]
        gradients += [self._back() for _ in range(len(self._layers) - 1)]
        return torch.cat(gradients)

    def step(self, *gradients: Tensor) -> float:
        """Descend along gradients, the last layer's first; return this rank's share of the loss."""
        flats = self._flats[::-1]
        if len(gradients) == 1:
            gradients = gradients[0].split([len(flat) for flat in flats])
        for flat, gradient in zip(flats, gradients, strict=True):
            flat.sub_(gradient, alpha=RATE)
        return self._loss

    def parameters(self) -> NDArray[Any]:
        """Return a copy of all parameters."""
        vector: NDArray[Any] = torch.cat(self._flats).cpu().numpy()
        return vector

    def _back(self) -> Tensor:
        cut, values = self._cuts.pop()
        values.backward(self._gradient)
        assert cut.grad is not None
        self._gradient = cut.grad
        bucket: Tensor = self._buckets[len(self._cuts)]
        return bucket


class DDPRank:
    """The same network in torch's DistributedDataParallel, over a default process group."""

    def __init__(self, rank: int, job: Job, digits: Digits, meeting: str, backend: str) -> None:
        flat = digits.train_images.reshape(len(digits.train_images), PIXELS)
        dtype = torch_dtype(job.dtype)
        self._rank, self._job = rank, job
        self._images = torch.tensor(flat, dtype=dtype, device=job.device)
        self._labels = torch.tensor(digits.train_labels, device=job.device)
        torch.distributed.init_process_group(
            backend, init_method=f"file://{meeting}", rank=rank, world_size=job.world_size
        )
        network = build_network(job)
        # Buckets of about a layer each, as above.
        bucket_mb = job.width**2 * dtype.itemsize / 2**20
        self._network = nn.parallel.DistributedDataParallel(
            network, bucket_cap_mb=bucket_mb, gradient_as_bucket_view=True
        )

    def train(self, batches: Batches) -> list[float]:
        """Train on batches; return this rank's shares of the losses."""
        return [self._step(batch) for batch in batches]

    def _step(self, batch: NDArray[np.int64]) -> float:
        values, labels = shard(self._rank, self._job, self._images, self._labels, batch)
        self._network.zero_grad()
        loss = nn.functional.cross_entropy(self._network(values), labels, reduction="sum")
        loss = loss * (self._job.world_size / len(batch))
        loss.backward()
        with torch.no_grad():
            for parameter in self._network.parameters():
                assert parameter.grad is not None
                parameter.sub_(parameter.grad, alpha=RATE)
        return loss.item()

    def parameters(self) -> NDArray[Any]:
        """Return a copy of all parameters."""
        vector = nn.utils.parameters_to_vector(self._network.parameters()).detach()
        found: NDArray[Any] = vector.cpu().numpy()
        return found

    def leave(self) -> None:
        """Leave the process group."""
        torch.distributed.destroy_process_group()


def build_network(job: Job) -> nn.Sequential:
    """Make the network, with the same parameters for the same seed."""
    torch.manual_seed(job.seed)
    widths = [PIXELS, *[job.width] * (job.num_layers - 1)]
    hidden = [
        nn.Sequential(nn.Linear(inputs, outputs), nn.GELU()) for inputs, outputs in pairwise(widths)
    ]
    network = nn.Sequential(*hidden, nn.Linear(widths[-1], CLASSES))
    return network.to(job.device, torch_dtype(job.dtype))


def shard(
    rank: int, job: Job, images: Tensor, labels: Tensor, batch: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Return a rank's images and labels of a batch."""
    size = len(batch)
    part = batch[rank * size // job.world_size : (rank + 1) * size // job.world_size]
    index = torch.tensor(part, device=images.device)
    return images[index], labels[index]


def bucketed_step(ranks: Sequence[Any], num_layers: int) -> MultiOutputNode:
    """Draw a step in which a layer's gradient is reduced while the next one is computed."""
    with InputNode() as batch:
        reduced = []
        for layer in range(num_layers):
            methods = [rank.backward if layer else rank.begin for rank in ranks]
            gradients = [method.bind(batch) for method in methods]
            # Begun here, and not waited for before the step at the end needs it, or the next one.
            reduced.append(allreduce.bind(gradients, op=ReduceOp.AVG, inplace=True))
        return MultiOutputNode(
            [
                rank.step.bind(*of_rank)
                for rank, of_rank in zip(ranks, zip(*reduced, strict=True), strict=True)
            ]
        )


def whole_step(ranks: Sequence[Any]) -> MultiOutputNode:
    """Draw a step with one allreduce of everything after the backward pass."""
    with InputNode() as batch:
        gradients = [rank.backward_all.bind(batch) for rank in ranks]
        reduced = allreduce.bind(gradients, op=ReduceOp.AVG, inplace=True)
        return MultiOutputNode(
            [rank.step.bind(gradient) for rank, gradient in zip(ranks, reduced, strict=True)]
        )


class Way(Protocol):
    """One way to train."""

    def train(self, batches: Batches) -> list[float]:
        """Train on batches; return the losses."""
        ...

    def parameters(self) -> NDArray[Any]:
        """Return the parameters of the last rank."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class GraphWay:
    """Ranks whose step is a compiled graph."""

    def __init__(self, job: Job, images: Any, *, bucketed: bool) -> None:
        make = on_device(Rank, job.device, NUM_WAYS * job.world_size)
        self._ranks = [make.remote(rank, job, images) for rank in range(job.world_size)]
        drawn = bucketed_step(self._ranks, job.num_layers) if bucketed else whole_step(self._ranks)
        self.step: CompiledDAG = drawn.experimental_compile()

    def train(self, batches: Batches) -> list[float]:
        """Execute the graph once a batch."""
        losses: list[float] = []
        refs: deque[Any] = deque()
        for batch in batches:
            refs.append(self.step.execute(batch))
            if len(refs) == IN_FLIGHT:
                losses.append(float(np.mean(runtime.get(refs.popleft()))))
        losses += [float(np.mean(runtime.get(ref))) for ref in refs]
        return losses

    def parameters(self) -> NDArray[Any]:
        """Return the parameters of the last rank."""
        found: NDArray[Any] = runtime.get(self._ranks[-1].parameters.remote())
        return found

    def close(self) -> None:
        """Take the graph down."""
        self.step.teardown()


class DDPWay:
    """Ranks that run torch's own loop; the driver only says on which batches."""

    def __init__(self, job: Job, images: Any, meeting: Path) -> None:
        make = on_device(DDPRank, job.device, NUM_WAYS * job.world_size).options(
            runtime_env={"env_vars": {"GLOO_SOCKET_IFNAME": "lo"}}
        )
        # NCCL wants a GPU for each rank; gloo takes GPU tensors through host memory.
        has_own = job.device == "cuda" and num_gpus() >= NUM_WAYS * job.world_size
        backend = "nccl" if has_own else "gloo"
        self._ranks = [
            make.remote(rank, job, images, str(meeting), backend) for rank in range(job.world_size)
        ]

    def train(self, batches: Batches) -> list[float]:
        """Have all ranks train on batches."""
        shares = runtime.get([rank.train.remote(batches) for rank in self._ranks])
        return [float(np.mean(losses)) for losses in zip(*shares, strict=True)]

    def parameters(self) -> NDArray[Any]:
        """Return the parameters of the last rank."""
        found: NDArray[Any] = runtime.get(self._ranks[-1].parameters.remote())
        return found

    def close(self) -> None:
        """Leave the process group."""
        runtime.get([rank.leave.remote() for rank in self._ranks])


NUM_WAYS = 3


@dataclass(slots=True)
class Figures:
    """What one way's training gave."""

    losses: list[float] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; return its exit code."""
    options = parse(arguments)
    torch.set_num_threads(1)  # the cores belong to the ranks
    job = Job(
        world_size=options.ranks,
        num_layers=options.layers,
        width=options.width,
        device=options.device,
        dtype=options.dtype,
        seed=options.seed,
    )
    digits = load(job.seed)
    batches = draw_batches(job.seed, options.batch_size, range(options.blocks * options.steps))
    with (
        runtime.init(num_cpus=NUM_WAYS * job.world_size),
        tempfile.TemporaryDirectory() as folder,
    ):
        images = runtime.put(digits)
        graph = GraphWay(job, images, bucketed=True)
        (options.out / "program.txt").write_text(f"{graph.step.program}\n", encoding="utf-8")
        ways: dict[str, Way] = {
            "buckets, overlapped": graph,
            "one bucket at the end": GraphWay(job, images, bucketed=False),
            "torch DDP": DDPWay(job, images, Path(folder, "meeting")),
        }
        figures = measure(ways, batches, options.steps)
        vectors = {name: way.parameters() for name, way in ways.items()}
        for way in ways.values():
            way.close()
    title = f"{job.num_layers} layers of {job.width} on {job.world_size} ranks ({job.device})"
    save_ways(
        options.out / "ddp_buckets.png",
        title,
        {name: found.losses for name, found in figures.items()},
        {name: found.step_ms for name, found in figures.items()},
    )
    return 0 if report(figures, vectors, job, options.out) else 1


def measure(ways: dict[str, Way], batches: Batches, block: int) -> dict[str, Figures]:
    """Train all ways block by block, in turns; the first block is not timed."""
    figures = {name: Figures() for name in ways}
    quiet = not sys.stderr.isatty()
    for begin in track(range(0, len(batches), block), "training", disable=quiet):
        for name, way in ways.items():
            began = perf_counter()
            figures[name].losses += way.train(batches[begin : begin + block])
            if begin:
                figures[name].step_ms.append((perf_counter() - began) * 1e3 / block)
    return figures


def report(
    figures: dict[str, Figures], vectors: dict[str, NDArray[Any]], job: Job, out: Path
) -> bool:
    """Print what was found; return whether all ways found the same parameters."""
    *_, (last, reference) = vectors.items()
    table = Table("", "step", f"to {last}", "last loss")
    base = median(figures[last].step_ms)
    for name, found in figures.items():
        step_ms = median(found.step_ms)
        table.add_row(name, f"{step_ms:.2f} ms", f"{step_ms / base:.2f}", f"{found.losses[-1]:.5f}")
    Console().print(table)
    apart = max(distance(vector, reference) for vector in vectors.values())
    limit = TOLERANCE[job.dtype]
    verb = "match" if apart <= limit else "DIFFER"
    print(f"the parameters of all ways {verb}: {apart:.1e} (limit {limit:g})")
    print(f"written to {out}: ddp_buckets.png, program.txt")
    return apart <= limit


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--ranks", type=positive, default=2, help="actors that train (default 2)")
    add("--layers", type=positive, default=4, help="layers, each a bucket (default 4)")
    add("--width", type=positive, default=512, help="of the layers (default 512)")
    add("--blocks", type=positive, default=9, help="blocks, the first one untimed (default 9)")
    add("--steps", type=positive, default=20, help="steps of a block (default 20)")
    add("--batch-size", type=positive, default=64, help="images of all ranks (default 64)")
    add("--dtype", choices=list(TOLERANCE), default="float32", help="of the parameters")
    add("--device", type=what_device, default="auto", help="auto, cpu or cuda")
    add("--seed", type=int, default=0, help="of the split, the start and the batches")
    add("--out", type=Path, default=Path("out/ddp_buckets"), help="for picture and program")
    options = parser.parse_args(arguments)
    if options.ranks > options.batch_size:
        parser.error(f"--ranks {options.ranks}: more than --batch-size {options.batch_size}")
    if options.blocks < MIN_BLOCKS:
        parser.error(f"--blocks {options.blocks}: at least {MIN_BLOCKS}")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {options.out}: {error.strerror}")
    return options


if __name__ == "__main__":
    sys.exit(interruptible(main))
