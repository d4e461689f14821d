"""Actors of the GPU benchmarks, and graphs of them."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import runtime
from compiled_dag import InputNode, MultiOutputNode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiled_dag.driver import CompiledDAG

VARIABLE: Final = "BENCHMARKS_GPU_DEVICE"
"""Environment: ``cpu`` runs everything on the CPU. It shows slips here, and nothing about GPUs."""
MOST_ACTORS: Final = 4
WIDTH: Final = 1024
CPU_WIDTH: Final = 64
"""Where nothing is shown about GPUs, nothing is to be waited for."""
ROWS: Final = 64
LAYERS: Final = 4
_CYCLES_PER_MS: Final = 1_500_000


def device() -> str:
    """Return what tensors are on."""
    return os.environ.get(VARIABLE, "cuda")


def why_not() -> str:
    """Return why there is nothing to measure here, or an empty text."""
    try:
        import torch  # noqa: PLC0415  most cases do without
    except ImportError:
        return "torch is not installed"
    if device() == "cuda" and not torch.cuda.is_available():
        return "no GPU: torch.cuda.is_available() is False"
    return ""


def synchronize() -> None:
    """Wait for the GPU."""
    import torch  # noqa: PLC0415  see why_not

    if device() == "cuda":
        torch.cuda.synchronize()


class Stage:
    """Holds, passes on and sums tensors; only `settle`, `head` and `drain` wait for the GPU."""

    def hold(self, nbytes: int) -> int:
        """Keep a tensor of float32 ones."""
        import torch  # noqa: PLC0415  see why_not

        self._held = torch.ones(nbytes // 4, device=device())
        return 1

    def hold_layers(self) -> int:
        """Keep weights, and one input for them."""
        self._layers = Layers()
        return 1

    def give(self, _asked: object) -> Any:
        return self._held

    def give_behind(self, milliseconds: float) -> Any:
        """Have the GPU be busy for so long, and return what comes after that."""
        import torch  # noqa: PLC0415  see why_not

        if device() == "cuda":
            torch.cuda._sleep(int(milliseconds * _CYCLES_PER_MS))  # noqa: SLF001  the one kernel of known length
        return self._held

    def pass_on(self, value: Any) -> Any:
        return value

    def note(self, _value: Any) -> int:
        """Answer when it is enqueued."""
        return 1

    def settle(self, value: Any, now: bool = True) -> float:
        """Answer when everything up to here is done; at once if it is not `now`."""
        return float(value.reshape(-1)[0]) if now else 1.0

    def head(self, total: Any) -> float:
        return float(total[0])

    def first(self, _asked: object) -> Any:
        return self._layers.run(self._layers.input)

    def work(self, value: Any) -> Any:
        return self._layers.run(value)

    def drain(self) -> int:
        synchronize()
        return 1


class Layers:
    """What one stage of the pipeline computes."""

    def __init__(self) -> None:
        import torch  # noqa: PLC0415  see why_not

        draw = torch.Generator().manual_seed(0)
        width = WIDTH if device() == "cuda" else CPU_WIDTH
        self._weights = [
            torch.randn(width, width, generator=draw).div(width**0.5).to(device())
            for _ in range(LAYERS)
        ]
        self.input = torch.ones(ROWS, width, device=device())

    def run(self, value: Any) -> Any:
        import torch  # noqa: PLC0415  see why_not

        with torch.no_grad():
            for weight in self._weights:
                value = torch.tanh(value @ weight)
        return value


@contextmanager
def session(count: int) -> Iterator[list[Any]]:
    """Start actors that share one GPU."""
    runtime.init(num_gpus=1)
    try:
        actor = runtime.remote(Stage).options(num_gpus=1 / MOST_ACTORS)
        yield [actor.remote() for _ in range(count)]
    finally:
        runtime.shutdown()


def drawn_hops(actors: list[Any], count: int, source: str, sink: str) -> Any:
    """Draw one tensor that goes to and fro between two actors, so many times."""
    with InputNode() as asked:
        value = getattr(actors[0], source).bind(asked[0])
        for number in range(1, count):
            value = actors[number % 2].pass_on.bind(value.with_tensor_transport("accelerator"))
        value.with_tensor_transport("accelerator")
        more = [asked[1]] if sink == "settle" else []
        return getattr(actors[count % 2], sink).bind(value, *more)


def drawn_pipeline(actors: list[Any]) -> Any:
    """Draw stages one after the other; the last one answers."""
    with InputNode() as asked:
        value = actors[0].first.bind(asked[0]).with_tensor_transport("accelerator")
        for stage in actors[1:-1]:
            value = stage.work.bind(value).with_tensor_transport("accelerator")
        last = actors[-1]
        return last.settle.bind(last.work.bind(value), asked[1])


def drawn_sum(actors: list[Any]) -> Any:
    """Draw an allreduce of what actors hold, each answering one item of it."""
    from collective import allreduce  # noqa: PLC0415  loads torch

    with InputNode() as asked:
        sums = allreduce.bind([actor.give.bind(asked) for actor in actors])
        heads = [actor.head.bind(one) for actor, one in zip(actors, sums, strict=True)]
        return MultiOutputNode(heads)


def transport_of(graph: CompiledDAG) -> str:
    """Return how the tensors of a graph travel."""
    found = {edge.transport for edge in graph.explain().edges if "hinted" in edge.why}
    found |= {one.backend for one in graph.explain().collectives}
    return ", ".join(sorted(found))
