"""What the driver has an actor run to make a program resident in its process, and to end it."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING

from compiled_dag.carriers import LEFT_RINGS
from compiled_dag.channel import tensor
from compiled_dag.resident import GraphResident
from compiled_dag.turns import TicketPart, Turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.host import ActorContext
    from compiled_dag.package import Package


def load_graph(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:
    """Make a program resident in this process (a `SystemCall`)."""
    segment, *ring = fds
    _sweep_rings(context)
    try:
        package: Package = pickle.loads(payload)
        if package.with_torch:
            tensor.warm_up()
        resident = GraphResident(context, package, segment)
    except BaseException:
        for fd in fds:
            os.close(fd)  # a constant that cannot be rebuilt here, a method that is not there
        raise
    context.resources[f"graph {package.graph_id}"] = resident
    if package.tickets is None:
        context.loop.add(resident)
    else:
        _take_turns(context, package.tickets, ring[0])
    return b""


def _take_turns(context: ActorContext, part: TicketPart, fd: int) -> None:
    """Have all programs that have tickets take turns in their order, the new one included."""
    key = f"turns {part.ring_id}"
    turns: Turns | None = context.resources.get(key)
    if turns is None:
        turns = context.resources[key] = Turns(part.ring_id, fd)
        context.loop.add(turns)
    else:
        os.close(fd)
    found = [context.resources.get(f"graph {graph_id}") for graph_id in part.keys]
    turns.add(part, [resident for resident in found if resident is not None])
    for graph_id in part.keys:
        context.loop.remove(graph_id)


def unload_graph(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """End a resident program (a `SystemCall`); fine if it is not there."""
    graph_id = int(payload)
    context.loop.remove(graph_id)
    for key, turns in [one for one in context.resources.items() if isinstance(one[1], Turns)]:
        turns.remove(graph_id)
        if turns.is_empty:
            context.loop.remove(turns.number)
            del context.resources[key]
    resident = context.resources.pop(f"graph {graph_id}", None)
    if resident is not None:
        resident.close()
    _sweep_rings(context)
    return b""


def _sweep_rings(context: ActorContext) -> None:
    """Free what earlier graphs left on the GPU because their peers had it open still."""
    left = context.resources.get(LEFT_RINGS)
    if left is not None and left.sweep():
        del context.resources[LEFT_RINGS]
