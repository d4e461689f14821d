"""How long a view of a channel's slot may be in use: as long as anything that may be, or hold, it.

A method may return what it was given, or anything made of it: a slice, a list, an object. Nobody
looks into results for that. The slot stays taken until the last step, on the same actor, that has
to do with the view, with a result of a method that was given it, with a result of one that was
given that, and so on. By then what was returned has been written to the channels that it goes to,
and the slot is given back behind that in order with the stream; methods of the same actor that were
handed the very object have run; and the program's own references are gone.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from compiled_dag.program import (
    CollectiveStart,
    CollectiveWait,
    Compute,
    Read,
    Release,
    Step,
    uses,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.channel.layout import ChannelSpec
    from compiled_dag.ir import OperationId


def ends_of_views(
    steps: Sequence[Step], channels: Sequence[ChannelSpec]
) -> dict[int, tuple[int, ...]]:
    """Return, by number of a step (from 1), the channels whose views end with it."""
    ending: dict[int, list[int]] = defaultdict(list)
    for number, step in enumerate(steps, 1):
        if isinstance(step, Read) and channels[step.channel].transport.views:
            ending[_last(steps, number)].append(step.channel)
    return {number: tuple(found) for number, found in ending.items()}


def _last(steps: Sequence[Step], read: int) -> int:
    """Return the number of the last step that has to do with what step number `read` reads."""
    first = steps[read - 1]
    assert isinstance(first, Read), first
    tainted, last = set(first.slots), read
    operations: set[OperationId] = set()
    for number, step in enumerate(steps[read:], read + 1):
        if not _touches(step, tainted, operations):
            continue
        last = number
        match step:
            case Compute(results=results):
                tainted.update(results)
            case CollectiveStart(operation=operation):
                operations.add(operation)
            case CollectiveWait(slots=slots):
                tainted.update(slots)
            case _:
                pass
    return last


def _touches(step: Step, tainted: set[int], operations: set[OperationId]) -> bool:
    match step:
        case Release(slots):
            return not tainted.isdisjoint(slots)
        case CollectiveWait(operation=operation):
            return operation in operations
        case _:
            return not tainted.isdisjoint(uses(step))
