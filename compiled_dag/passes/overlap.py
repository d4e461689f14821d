"""Pass: methods run while collectives do.

The wait of a collective moves behind the methods that do not need its results, up to the next
communication. All communication of a participant, waits included, stays in the one order, so all
that was proved about it still holds; methods stay in theirs.

Only operations whose input may change meanwhile are moved: a method may keep what it returned, and
write to it when it is called next.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from compiled_dag.program import CollectiveStart, CollectiveWait, Compute, Program, Release, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from compiled_dag.ir import Graph, OperationId


def overlap(graph: Graph, program: Program) -> Program:
    """Return the program in which waits come as late as they may."""
    moved = frozenset(one.id for one in graph.operations if one.frees_input)
    return replace(program, steps=tuple(tuple(_late(steps, moved)) for steps in program.steps))


def _late(steps: Iterable[Step], moved: frozenset[OperationId]) -> Iterator[Step]:
    """Yield the steps of one participant in their new order."""
    inputs: dict[OperationId, tuple[int, ...]] = {}
    held: list[Step] = []
    """A wait, and what forgets its results or its inputs."""
    busy: set[int] = set()
    """The slots that these steps, which are still to come, are about."""
    for step in steps:
        match step:
            case Compute() if not busy.intersection(step.arguments.values()):
                yield step
            case Release(slots) if not busy.intersection(slots):
                yield step
            case Release():
                held.append(step)
            case _:
                yield from held
                held, busy = [], set()
                if isinstance(step, CollectiveStart):
                    inputs[step.operation] = step.slots
                if isinstance(step, CollectiveWait) and step.operation in moved:
                    held, busy = [step], {*step.slots, *inputs[step.operation]}
                else:
                    yield step
    yield from held
