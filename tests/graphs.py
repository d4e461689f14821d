"""Named sample graphs, over any actors that can bind, and actors on paper to draw them with.

A builder takes the actors and returns the output node. Actors of `tests.fakes.ThreadHost` run what
is drawn; a `PaperActor` only lets it be captured and compiled, so thousands can be made.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from collective import ReduceOp, allreduce, broadcast
from compiled_dag import InputNode, MultiOutputNode
from compiled_dag.capture import capture
from compiled_dag.class_node import bind_method
from compiled_dag.compiler import compile_graph
from compiled_dag.host import ActorId
from compiled_dag.node import DAGNode
from compiled_dag.options import CompileOptions
from compiled_dag.program import Program
from tests.fakes import bound_by_caller


class Worker:
    """What the actors of the sample graphs are."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def echo(self, value: Any) -> Any:
        return value

    def add(self, value: Any) -> Any:
        return value + self.number

    def join(self, *parts: Any) -> Any:
        return parts

    def pack(self, first: Any, *rest: Any, **named: Any) -> Any:
        return first, rest, named

    def divide(self, value: int) -> tuple[int, int]:
        return divmod(value, 10)

    def grad(self, value: float) -> Any:
        import torch

        return torch.full((3,), float(value) * (self.number + 1))

    def step(self, gradient: Any) -> Any:
        return gradient.tolist()

    def forward(self, batch: int) -> int:
        return batch + 1

    def backward(self, batch: int) -> int:
        return batch * 2

    def fail(self, value: Any) -> Any:
        raise ValueError(f"{value!r} is bad")

    def zeros(self, size: int) -> Any:
        return np.zeros(size, np.uint8)


class Keeper:
    """An actor that keeps what it gets, and may change it."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def keep(self, value: Any) -> int:
        self.kept.append(value)
        return len(self.kept)

    def echo(self, value: Any) -> Any:
        return value

    def make(self, value: int) -> np.ndarray:
        return np.full(100_000, value, np.uint8)

    def increase(self, value: Any) -> Any:
        value += 1
        return value

    def is_same(self, first: Any, second: Any) -> bool:
        return first is second

    def spoil(self, value: list[int]) -> list[int]:
        value.append(99)
        return value


class PaperHost:
    """A session that never runs anything."""

    closed = False
    has_gpus = False

    def has_physical_gpus(self) -> bool:
        return self.has_gpus

    def bound_actor(self, handle: Any) -> PaperActor:
        if not isinstance(handle, PaperActor):
            raise TypeError(f"{handle!r} is no handle of an actor")
        return handle


class PaperActor:
    """An actor without a process or a thread: bind its methods, capture, compile."""

    __opaque_to_graphs__ = True

    def __init__(
        self, number: int, *, kind: type = Worker, host: Any = None, gpus: Sequence[str] = ()
    ) -> None:
        self.actor_id = ActorId(number)
        self.label = f"{kind.__name__}({number})"
        self.host = host or HOST
        self.num_gpus = float(len(gpus))
        self.physical_gpus = tuple(gpus)
        self.kind = kind

    def __getattr__(self, name: str) -> PaperMethod:
        if name.startswith("_"):
            raise AttributeError(name)
        return PaperMethod(self, name)


class PaperMethod:
    """What `.bind()` is called on."""

    def __init__(
        self, actor: PaperActor, name: str, num_returns: int = 1, *, cuda_graph: bool = False
    ) -> None:
        self.actor = self.handle = actor
        self.declared: dict[str, Any] = {}
        self.name = name
        self.num_returns = num_returns
        self.cuda_graph = cuda_graph
        self.class_name = actor.kind.__name__
        self.function = getattr(actor.kind, name, None)
        self.signature: inspect.Signature | None = None

    def options(self, *, num_returns: int = 1, cuda_graph: bool = False) -> PaperMethod:
        return PaperMethod(self.actor, self.name, num_returns, cuda_graph=cuda_graph)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        return bound_by_caller(bind_method(self, args, kwargs))


HOST = PaperHost()


def paper(count: int, **options: Any) -> list[Any]:
    """Return `count` paper actors, numbered from 1."""
    return [PaperActor(number, **options) for number in range(1, count + 1)]


def program_of(output: DAGNode, **options: Any) -> Program:
    """Compile without bringing anything up."""
    return compile_graph(capture(output).graph, CompileOptions(**options))


# --- the samples ----------------------------------------------------------------------------------


def chain(actors: Sequence[Any]) -> DAGNode:
    with InputNode() as inp:
        node = inp
        for actor in actors:
            node = actor.add.bind(node)
    return node


def fan_out(actors: Sequence[Any]) -> DAGNode:
    with InputNode() as inp:
        return MultiOutputNode([actor.add.bind(inp) for actor in actors])


def diamond(actors: Sequence[Any]) -> DAGNode:
    top, left, right, bottom = actors
    with InputNode() as inp:
        start = top.add.bind(inp)
        return bottom.join.bind(left.add.bind(start), right.add.bind(start))


def nested(actors: Sequence[Any]) -> DAGNode:
    """Nodes in containers and keywords beside constants; fields of the input."""
    first, second = actors
    with InputNode() as inp:
        left, right = first.add.bind(inp[0]), second.add.bind(inp.scale)
        packed = second.pack.bind([left, {"deep": (right, 1)}], "constant", flag=True, node=left)
        return MultiOutputNode([packed, first.echo.bind(None), inp.scale, 7])


def multi_return(actors: Sequence[Any]) -> DAGNode:
    first, second = actors
    with InputNode() as inp:
        tens, ones = first.divide.options(num_returns=2).bind(inp)
        return MultiOutputNode([second.join.bind(ones, tens), first.add.bind(tens)])


def data_parallel(actors: Sequence[Any]) -> DAGNode:
    with InputNode() as inp:
        grads = allreduce.bind([actor.grad.bind(inp) for actor in actors], op=ReduceOp.AVG)
        pairs = zip(actors, grads, strict=True)
        return MultiOutputNode([actor.step.bind(grad) for actor, grad in pairs])


def buckets(actors: Sequence[Any]) -> DAGNode:
    """Two tensors in one allreduce; a broadcast to an actor that has nothing to bring."""
    first, second = actors
    with InputNode() as inp:
        left, right = ([actor.grad.bind(field) for actor in actors] for field in (inp[0], inp[1]))
        sums = allreduce.bind([left, right])
        spread = broadcast.bind([first.add.bind(sums[0][1]), second])
        results = (first, sums[0][0]), (second, sums[1][0]), (second, sums[1][1])
        pairs = *results, *zip(actors, spread, strict=True)
        return MultiOutputNode([actor.step.bind(node) for actor, node in pairs])


def idle_start(actors: Sequence[Any]) -> DAGNode:
    """An actor whose first node waits for nobody: the driver starts it."""
    busy, idle = actors
    with InputNode() as inp:
        return busy.join.bind(busy.add.bind(inp), idle.echo.bind("constant"))


def pipeline(actors: Sequence[Any], batches: int = 3) -> DAGNode:
    """Two stages, one micro-batch ahead: each stage binds forward and backward in turns."""
    first, last = actors
    with InputNode() as inp:
        done = []
        ahead = first.forward.bind(inp[0])
        for batch in range(batches):
            forward = last.forward.bind(ahead)
            backward = last.backward.bind(forward)
            if batch + 1 < batches:
                ahead = first.forward.bind(inp[batch + 1])
            done.append(first.backward.bind(backward))
        return MultiOutputNode(done)


Task = tuple[str, int]
"""What a stage of a pipeline does with one micro-batch: ``("forward", 3)``."""


def gpipe(num_stages: int, batches: int) -> list[list[Task]]:
    """Return each stage's tasks: all micro-batches forward, then all backward."""
    one = [("forward", batch) for batch in range(batches)]
    return [one + [("backward", batch) for batch in range(batches)] for _ in range(num_stages)]


def one_forward_one_backward(num_stages: int, batches: int) -> list[list[Task]]:
    """Return each stage's tasks: as few micro-batches in flight as keep every stage busy."""
    stages = []
    for stage in range(num_stages):
        ahead = min(num_stages - stage - 1, batches)
        tasks = [("forward", batch) for batch in range(ahead)]
        for batch in range(batches - ahead):
            tasks += [("forward", ahead + batch), ("backward", batch)]
        stages.append(tasks + [("backward", batch) for batch in range(batches - ahead, batches)])
    return stages


def staged(actors: Sequence[Any], stages: Sequence[Sequence[Task]]) -> DAGNode:
    """Draw a pipeline in which every stage does its tasks in the order given."""
    made: dict[tuple[str, int, int], Any] = {}
    last = len(stages) - 1
    todo = [list(tasks) for tasks in stages]
    with InputNode() as inp:
        while any(todo):
            before = len(made)
            for stage, tasks in enumerate(todo):
                while tasks:
                    method, batch = tasks[0]
                    first = (
                        inp[batch] if method == "forward" else made.get(("forward", batch, last))
                    )
                    end = 0 if method == "forward" else last
                    step = -1 if method == "forward" else 1
                    given = first if stage == end else made.get((method, batch, stage + step))
                    if given is None:
                        break
                    bound = getattr(actors[stage], method).bind(given)
                    made[method, batch, stage] = bound
                    tasks.pop(0)
            assert len(made) > before, f"these tasks wait for each other: {todo}"
    num_batches = 1 + max(batch for _, batch in stages[0])
    return MultiOutputNode([made["backward", batch, 0] for batch in range(num_batches)])


SAMPLES: dict[str, tuple[Callable[[Sequence[Any]], DAGNode], int]] = {
    "chain_3": (chain, 3),
    "fan_out_4": (fan_out, 4),
    "diamond": (diamond, 4),
    "nested": (nested, 2),
    "multi_return": (multi_return, 2),
    "data_parallel_2": (data_parallel, 2),
    "data_parallel_4": (data_parallel, 4),
    "buckets": (buckets, 2),
    "idle_start": (idle_start, 2),
    "pipeline": (pipeline, 2),
    "gpipe_2": (lambda actors: staged(actors, gpipe(2, 3)), 2),
    "gpipe_4": (lambda actors: staged(actors, gpipe(4, 4)), 4),
    "1f1b_2": (lambda actors: staged(actors, one_forward_one_backward(2, 3)), 2),
    "1f1b_4": (lambda actors: staged(actors, one_forward_one_backward(4, 5)), 4),
}
"""Builder and number of actors by name."""
