"""Write the work of a collective in a graph: allreduce of float32 tensors that actors hold."""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from functools import partial
from math import isclose
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.graphs import room, up
from benchmarks.rounds import timed
from benchmarks.works import actor_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.systems import System
    from benchmarks.works import Block, Work


_LARGE_BYTES = 1 << 16
_FEW, _MANY = 10, 40
"""How many sums the longer graph makes beyond the shorter one's, of large tensors and of small
ones: those have to take longer than the driver yields to the ranks before it sleeps."""


def allreduce(ranks: str, nbytes: str, transport: str, where: str = "") -> Work:
    """Sum tensors of so many bytes; every actor answers the first item of the sum.

    Args:
        ranks: How many actors hold a tensor.
        nbytes: Of each.
        transport: What carries it.
        where: ``"inside"`` times one sum among others in a graph, and neither driver nor answers.
    """
    size, count = int(nbytes), int(ranks)

    @contextmanager
    def work(system: System) -> Iterator[Block]:
        with _summing(system, count, size, transport, 1) as one:
            if not where:
                yield one
                return
            more = _FEW if size > _LARGE_BYTES else _MANY
            with _summing(system, count, size, transport, 1 + more) as many:
                yield _difference(one, many, more)

    return work


def _difference(one: Block, many: Block, more: int) -> Block:
    """Make a block of what each of the sums costs that one graph makes more than the other."""

    def block(trips: int) -> list[int]:
        rest = median(one(trips))
        return [round((whole - rest) / more) for whole in many(trips)]

    return block


@contextmanager
def _summing(system: System, count: int, size: int, transport: str, times: int) -> Iterator[Block]:
    """Compile a graph of actors of its own, which sum what they hold, and their sums, and so on."""
    core = system.load()
    actors = [actor_of(system) for _ in range(count)]
    core.get([actor.hold_floats.remote(size // 4) for actor in actors])
    with up(system, partial(_drawn, actors, transport, times), **room(system, 2 * size)) as graph:
        get, execute, total = core.get, graph.execute, float(count**times)

        def trip() -> Any:
            return get(execute(1))

        answer = trip()
        if not all(isclose(one, total, rel_tol=1e-5) for one in answer):  # 3^41 in float32
            raise RuntimeError(f"{system.name} summed ones {times} times to {answer!r}")
        yield timed(trip, warm_trips=3 if size > _LARGE_BYTES else 20)


def _drawn(actors: Sequence[Any], transport: str, times: int, system: System) -> Any:
    nodes = system.nodes()
    if system.name == "ray":
        collective: Any = importlib.import_module("ray.experimental.collective")
        channel: Any = importlib.import_module("ray.experimental.channel.cpu_communicator")
        chosen: Any = channel.CPUCommunicator(len(actors), list(actors))
    else:
        collective, chosen = importlib.import_module("collective"), transport
    with nodes.InputNode() as node:
        tensors = [actor.give.bind(node) for actor in actors]
        for _ in range(times):
            tensors = collective.allreduce.bind(tensors, transport=chosen)
        heads = [actor.head.bind(total) for actor, total in zip(actors, tensors, strict=True)]
        return nodes.MultiOutputNode(heads)


WORKS: dict[str, Callable[..., Work]] = {"allreduce": allreduce}
