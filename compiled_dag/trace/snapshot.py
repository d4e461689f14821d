"""Taking a trace of a graph, which may be at work: nobody is stopped."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from compiled_dag.channel.layout import IDLE_STEP, SINCE_NS
from compiled_dag.program import CollectiveStart, CollectiveWait, Compute, Read, Release, Write
from compiled_dag.trace.record import Lane, Operation, Span, Trace
from compiled_dag.trace.ring import BEGIN, Columns, Row, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.ir import NodeId
    from compiled_dag.outcome import Place
    from compiled_dag.program import Program, Step
    from compiled_dag.trace.log import Log, Taken

Writes: TypeAlias = "Mapping[tuple[int, int], Span]"
"""By channel and execution."""


class Source(Protocol):
    """What a trace is taken from: a graph that is up, or was."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def owner(self) -> int:
        """Process id of the driver."""
        ...

    @property
    def segment(self) -> GraphSegment:
        """Its memory."""
        ...

    @property
    def program(self) -> Program:
        """What its participants run."""
        ...

    @property
    def places(self) -> Mapping[NodeId, Place]:
        """Names of its nodes."""
        ...

    @property
    def closed_at(self) -> float | None:
        """When it was torn down, by `time.monotonic`."""
        ...


def take(source: Source, log: Log) -> Trace:
    """Read what everybody has recorded, without stopping anybody."""
    now = time.monotonic() if source.closed_at is None else source.closed_at
    until_ns = int(now * 1e9)
    program = source.program
    actors = [_actor_lane(source, number, until_ns) for number in range(1, len(program.steps))]
    execute, get = _driver_lanes(source, log, actors)
    return Trace(
        graph=source.name,
        channels=tuple(spec.label for spec in program.channels),
        lanes=(execute, get, *actors),
    )


# --- the driver -----------------------------------------------------------------------------------


def _driver_lanes(source: Source, log: Log, actors: Sequence[Lane]) -> tuple[Lane, Lane]:
    submitted, taken = log.read()
    steps = source.program.steps[0]
    written_ = tuple(step.channel for step in steps if isinstance(step, Write))
    execute = Operation(kind="write", name="execute", channels=written_)
    reads = _operations(source, 0, (step for step in steps if isinstance(step, Read)))
    executes = (Span(0, one.execution, one.begin_ns, one.begin_ns, one.end_ns) for one in submitted)
    gets = _gets(reads, taken, written(actors))
    lane = Lane(participant=0, label="driver: execute", pid=source.owner, operations=(execute,),
                spans=_apart(executes))  # fmt: skip
    return lane, replace(lane, label="driver: get", operations=reads, spans=_apart(gets))


def _gets(reads: Sequence[Operation], taken: Iterable[Taken], writes: Writes) -> Iterable[Span]:
    """Yield a span per result; when it was there its writer knows."""
    number = {operation.channels[0]: index for index, operation in enumerate(reads)}
    for one in taken:
        since = one.since_ns or one.end_ns
        write = writes.get((one.channel, one.execution))
        arrived = since if write is None else min(max(write.end_ns, since), one.end_ns)
        yield Span(number[one.channel], one.execution, since, arrived, one.end_ns)


def written(lanes: Iterable[Lane]) -> Writes:
    """Return the span that wrote each message, by channel and execution."""
    return {
        (channel, span.execution): span
        for lane in lanes
        for span in lane.spans
        if lane.operations[span.operation].kind == "write" and span.state != "running"
        for channel in lane.operations[span.operation].channels
    }


def _apart(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Begin each where the one before it ended: threads wait side by side and take in turn."""
    made, last = [], 0
    for span in sorted(spans, key=lambda span: span.end_ns):
        begin, arrived = max(span.begin_ns, last), max(span.arrived_ns, last)
        made.append(span._replace(begin_ns=begin, arrived_ns=arrived))
        last = span.end_ns
    return tuple(made)


# --- actors ---------------------------------------------------------------------------------------


def _actor_lane(source: Source, participant: int, until_ns: int) -> Lane:
    steps = source.program.steps[participant]
    columns = Columns.of(steps)
    spans = [
        span
        for row in read_rows(source.segment, participant, columns)
        for span in _spans(row, steps, columns)
    ]
    running = _running(source.segment, participant, steps, until_ns)
    if running is not None and (not spans or spans[-1].end_ns <= running.begin_ns):
        spans.append(running)
    return Lane(
        participant=participant,
        label=source.program.participants[participant],
        pid=source.segment.pid(participant),
        operations=_operations(source, participant, steps),
        spans=tuple(spans),
    )


def _spans(row: Row, steps: Sequence[Step], columns: Columns) -> Iterable[Span]:
    """Yield what a row says: not methods that were skipped, nor what was broken off."""
    begin, operation = row.stamps[BEGIN], -1
    for number, step in enumerate(steps, 1):
        if isinstance(step, Release):
            continue
        operation += 1
        done = columns.done[number - 1]
        end = row.stamps[done]
        if end < begin:
            return  # the execution was broken off here
        arrived = row.stamps[done - 1] if isinstance(step, Read) else begin
        if end > begin:
            state: Literal["ok", "failed"] = "failed" if row.failed == number else "ok"
            yield Span(operation, row.execution, begin, arrived, end, state)
        begin = end


def _running(
    segment: GraphSegment, participant: int, steps: Sequence[Step], until_ns: int
) -> Span | None:
    """Return what an actor is in the middle of, by its progress words."""
    progress = segment.progress(participant)
    since = segment.words[segment.layout.participant(participant) // 8 + SINCE_NS]
    if progress.step == IDLE_STEP or since >= until_ns:
        return None
    before = steps[: progress.step - 1]
    operation = sum(not isinstance(step, Release) for step in before)
    return Span(operation, progress.execution, since, since, until_ns, "running")


def _operations(source: Source, participant: int, steps: Iterable[Step]) -> tuple[Operation, ...]:
    made = (_operation(source, participant, n, step) for n, step in enumerate(steps, 1))
    return tuple(operation for operation in made if operation is not None)


def _operation(source: Source, participant: int, number: int, step: Step) -> Operation | None:
    program = source.program
    match step:
        case Read(channel=channel):
            name = f"read {program.channels[channel].label}"
            node = program.channels[channel].node
            return Operation(kind="read", name=name, step=number, node=node, channels=(channel,))
        case Write(channel=channel):
            name = f"write {program.channels[channel].label}"
            node = program.channels[channel].node
            return Operation(kind="write", name=name, step=number, node=node, channels=(channel,))
        case Compute(node=node):
            place = source.places[node]
            return Operation(
                kind="compute", name=place.method, step=number, node=node, source=place.source
            )
        case CollectiveStart(operation=index) | CollectiveWait(operation=index):
            spec = program.operations[index]
            node = spec.nodes[spec.members.index(participant)]
            what = "start" if isinstance(step, CollectiveStart) else "wait"
            return Operation(
                kind="collective",
                name=f"{spec.text} {what}",
                step=number,
                node=node,
                source=source.places[node].source,
            )
        case Release():
            return None
