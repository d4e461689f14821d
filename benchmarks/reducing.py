"""Write the work of a collective in a graph: allreduce of float32 tensors that actors hold."""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.graphs import room
from benchmarks.rounds import timed
from benchmarks.works import actor_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.systems import System
    from benchmarks.works import Block, Work


def allreduce(ranks: str, nbytes: str, transport: str) -> Work:
    """Sum tensors of so many bytes; every actor answers the first item of the sum."""
    size, count = int(nbytes), int(ranks)

    @contextmanager
    def work(system: System) -> Iterator[Block]:
        core = system.load()
        actors = [actor_of(system) for _ in range(count)]
        core.get([actor.hold_floats.remote(size // 4) for actor in actors])
        compiled = _drawn(system, actors, transport).experimental_compile(**room(system, 2 * size))
        try:
            get, execute, expected = core.get, compiled.execute, [float(count)] * count

            def trip() -> object:
                return get(execute(1))

            if (answer := trip()) != expected:
                raise RuntimeError(f"{system.name} summed {count} ones to {answer!r}")
            yield timed(trip, warm_trips=3 if size > 1 << 16 else 20)
        finally:
            compiled.teardown()

    return work


def _drawn(system: System, actors: Sequence[Any], transport: str) -> Any:
    nodes = system.nodes()
    if system.name == "ray":
        collective: Any = importlib.import_module("ray.experimental.collective")
        channel: Any = importlib.import_module("ray.experimental.channel.cpu_communicator")
        chosen: Any = channel.CPUCommunicator(len(actors), list(actors))
    else:
        collective, chosen = importlib.import_module("collective"), transport
    with nodes.InputNode() as node:
        tensors = [actor.give.bind(node) for actor in actors]
        sums = collective.allreduce.bind(tensors, transport=chosen)
        heads = [actor.head.bind(total) for actor, total in zip(actors, sums, strict=True)]
        return nodes.MultiOutputNode(heads)


WORKS: dict[str, Callable[..., Work]] = {"allreduce": allreduce}
