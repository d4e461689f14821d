"""Records of operations, kept on the actor's object: ``COMPILED_DAG_ENABLE_PROFILING=1``.

Three per node and execution, as Ray keeps them: READ, COMPUTE, WRITE. A node that reads or writes
nothing itself has one that takes no time. They are never dropped: it is up to who asked for them to
clear the list.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from compiled_dag.errors import GraphError
from compiled_dag.program import (
    CollectiveStart,
    CollectiveWait,
    Compute,
    Read,
    Release,
    Step,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compiled_dag.ir import NodeId, OperationId

ATTRIBUTE: Final = "__ray_cgraph_events"
"""Of the actor's object; the name is Ray's."""
OPERATIONS: Final = ("READ", "COMPUTE", "WRITE")
_READ, _COMPUTE, _WRITE = range(3)

Run: TypeAlias = "Callable[[list[Any]], None]"


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """One operation of one execution."""

    actor_classname: str
    actor_name: str
    """Empty if it has none."""
    actor_id: str
    method_name: str
    bind_index: int
    """The node's place among those bound to the actor."""
    operation: str
    """READ, COMPUTE or WRITE."""
    start_t: float
    """By `time.perf_counter`, in seconds."""
    end_t: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is the same in all records of a node."""

    actor_classname: str
    actor_name: str
    actor_id: str
    method_name: str
    bind_index: int

    def record(self, operation: str, start_t: float, end_t: float) -> OperationRecord:
        """Return a record."""
        return OperationRecord(
            self.actor_classname,
            self.actor_name,
            self.actor_id,
            self.method_name,
            self.bind_index,
            operation,
            start_t,
            end_t,
        )


def events_of(instance: Any) -> list[OperationRecord]:
    """Return the list on an actor's object, a new one the first time.

    Raises:
        GraphError: The object takes no attributes.
    """
    events: list[OperationRecord] | None = getattr(instance, ATTRIBUTE, None)
    if events is None:
        events = []
        try:
            setattr(instance, ATTRIBUTE, events)
        except AttributeError as error:
            name = type(instance).__name__
            msg = (
                f"COMPILED_DAG_ENABLE_PROFILING=1 keeps records on the actor's object, and {name} "
                f"takes no attribute {ATTRIBUTE}: add it to {name}.__slots__"
            )
            raise GraphError(msg) from error
    return events


def recorded(
    steps: Sequence[Step],
    runs: Sequence[Run],
    subjects: Mapping[NodeId, Subject],
    nodes: Mapping[OperationId, NodeId],
    events: list[OperationRecord],
) -> list[Run]:
    """Return `runs` so that each node's operations are recorded.

    Args:
        steps: What they run.
        runs: One closure per step.
        subjects: By node.
        nodes: The actor's node of each collective operation.
        events: Where records go.
    """
    parts = _parts(steps, nodes)
    watched = list(runs)
    for node, subject in subjects.items():
        mine = [(index, part[1]) for index, part in enumerate(parts) if part and part[0] == node]
        if mine:
            _watch(watched, mine, subject, events)
    return watched


def _parts(
    steps: Sequence[Step], nodes: Mapping[OperationId, NodeId]
) -> list[tuple[NodeId, int] | None]:
    """Return of each step which node it is a part of, and which: READ, COMPUTE or WRITE."""
    parts: list[tuple[NodeId, int] | None] = [None] * len(steps)
    makers: dict[int, NodeId] = {}
    reads: list[int] = []
    for index, step in enumerate(steps):
        match step:
            case Read():
                reads.append(index)
            case Compute(node=node, results=results):
                parts[index] = node, _COMPUTE
                makers |= dict.fromkeys(results, node)
            case CollectiveStart(operation=operation):
                parts[index] = nodes[operation], _COMPUTE
            case CollectiveWait(operation=operation, slots=slots):
                parts[index] = nodes[operation], _COMPUTE
                makers |= dict.fromkeys(slots, nodes[operation])
            case Write(slot=slot):
                parts[index] = makers[slot], _WRITE
            case Release():
                pass
        if isinstance(step, (Compute, CollectiveStart)):
            part = parts[index]
            assert part is not None
            for read in reads:
                parts[read] = part[0], _READ
            reads.clear()
    return parts


def _watch(
    runs: list[Run],
    mine: Sequence[tuple[int, int]],
    subject: Subject,
    events: list[OperationRecord],
) -> None:
    """Wrap the closures of one node: the first of each operation, and the last of all, do more."""
    times = [0.0] * 6
    kinds = [kind for _, kind in mine]
    for number, (index, kind) in enumerate(mine):
        opens = kind not in kinds[:number]
        runs[index] = _timed(runs[index], times, 2 * kind, opens=opens)
    reads, writes = _READ in kinds, _WRITE in kinds
    last, inner = mine[-1][0], runs[mine[-1][0]]

    def run(slots: list[Any]) -> None:
        inner(slots)
        if not reads:
            times[0] = times[1] = times[2]
        if not writes:
            times[4] = times[5] = times[3]
        for kind, operation in enumerate(OPERATIONS):
            events.append(subject.record(operation, times[2 * kind], times[2 * kind + 1]))

    runs[last] = run


def _timed(inner: Run, times: list[float], at: int, *, opens: bool) -> Run:
    clock = time.perf_counter

    def run(slots: list[Any]) -> None:
        start = clock()
        inner(slots)
        if opens:
            times[at] = start
        times[at + 1] = clock()

    return run
