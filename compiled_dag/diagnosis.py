"""From what is seen of a graph to who waits for whom. Pure.

What is seen: how many messages each channel has had, the step each actor was last in, which of them
are dead, what their processes are doing. The program says what that means: who has to write what an
actor reads, which ranks an operation needs. Those who wait point to whom they wait for, and where
the pointing ends is who is to blame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compiled_dag.hang import ActorReport, HangReport
from compiled_dag.host import Activity
from compiled_dag.program import CollectiveStart, CollectiveWait, Compute, Program, Read, Write

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compiled_dag.host import ActorId
    from compiled_dag.ir import NodeId
    from compiled_dag.program import Step

_NOTHING = Activity()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One actor at one moment."""

    actor_id: ActorId
    begun: int
    """Executions begun."""
    execution: int
    """The one it was last in."""
    step: int
    """Of its program, from 1; 0 is between executions."""
    for_s: float = 0.0
    """Since when it has been in that step; between executions, how long ago it began the last."""
    death: str = ""
    """Why it is dead; empty while it lives."""
    activity: Activity = _NOTHING

    @property
    def finished(self) -> int:
        """How many executions it has finished."""
        return self.execution if self.step else self.begun


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A graph at one moment."""

    graph: str
    written: tuple[int, ...]
    """Messages that each channel has had."""
    actors: tuple[Seen, ...]
    """By participant; the first is participant 1."""
    waited_s: float | None = None
    """Since how long somebody in the driver waits; None: nobody does."""
    submitted_s: Mapping[int, float] = field(default_factory=dict)
    """How long ago executions were submitted, as far as that was recorded."""


def diagnose(program: Program, names: Mapping[NodeId, str], snapshot: Snapshot) -> HangReport:
    """Return who waits for whom, and who is to blame.

    Args:
        program: The graph's program.
        names: What messages call each node.
        snapshot: What was seen.
    """
    return _Diagnosis(program, names, snapshot).report()


def step_text(program: Program, names: Mapping[NodeId, str], participant: int, step: Step) -> str:
    """Return what messages call a step of a participant."""
    match step:
        case Compute(node=node):
            return names[node]
        case Read(channel=channel):
            spec = program.channels[channel]
            return f"waiting for {spec.label} from {program.participants[spec.writer]}"
        case Write(channel=channel):
            spec = program.channels[channel]
            readers = ", ".join(program.participants[reader] for reader in spec.readers)
            return f"sending {spec.label} to {readers}"
        case CollectiveStart(operation=number) | CollectiveWait(operation=number):
            spec_ = program.operations[number]
            rank = spec_.members.index(participant)
            return f"{spec_.text}, rank {rank} of {len(spec_.members)}"
        case other:
            return str(other)


class _Diagnosis:
    def __init__(self, program: Program, names: Mapping[NodeId, str], snapshot: Snapshot) -> None:
        self._program = program
        self._names = names
        self._snapshot = snapshot
        self._labels = program.participants
        self._outputs = [
            program.channels[step.channel] for step in program.steps[0] if isinstance(step, Read)
        ]
        written = snapshot.written
        self._submitted = max(
            (written[spec.index] for spec in program.channels if spec.writer == 0), default=0
        )
        self._first = min((written[spec.index] for spec in self._outputs), default=0)

    def report(self) -> HangReport:
        written = self._snapshot.written
        actors = tuple(self._actor(number) for number in range(1, len(self._labels)))
        missing = (
            [spec.writer for spec in self._outputs if written[spec.index] == self._first]
            if self._first < self._submitted
            else []
        )
        blamed, circle = _blame([self._labels[writer] for writer in missing], actors)
        return HangReport(
            graph=self._snapshot.graph,
            first=self._first,
            submitted=self._submitted,
            outputs=tuple(
                (spec.label, self._labels[spec.writer], written[spec.index])
                for spec in self._outputs
            ),
            actors=actors,
            blamed=blamed,
            circle=circle,
            waited_s=self._snapshot.waited_s,
            submitted_s=self._snapshot.submitted_s,
        )

    def _actor(self, participant: int) -> ActorReport:
        seen = self._snapshot.actors[participant - 1]
        label, activity = self._labels[participant], seen.activity
        if seen.death:
            return ActorReport(
                label=label, state="dead", execution=seen.finished, begun=bool(seen.step),
                text=f"is dead: {seen.death.splitlines()[0]}",
            )  # fmt: skip
        if not seen.step:
            return self._between(participant, seen)
        step = self._program.steps[participant][seen.step - 1]
        waits_for = self._waits_for(step, seen)
        text = self._text(participant, step, waits_for)
        if activity.wait is not None and not waits_for:
            text = f"{text}, where {activity.wait.by} waits for {activity.wait.text}"
            waits_for = self._participants_of(activity.wait.on)
        return ActorReport(
            label=label,
            state="waiting" if waits_for else "busy",
            execution=seen.execution,
            begun=True,
            text=text + _silence(activity),
            for_s=seen.for_s,
            waits_for=tuple(self._labels[number] for number in waits_for),
            stack=() if waits_for and activity.wait is None else activity.stack,
        )

    def _between(self, participant: int, seen: Seen) -> ActorReport:
        """Describe an actor that is between two executions."""
        label, activity, turn = self._labels[participant], seen.activity, seen.begun
        spec = self._program.channels[self._program.first_channel(participant)]
        if turn >= self._submitted:
            text = "is idle" if not activity.call else f"is {activity}"
            return ActorReport(label=label, state="idle", execution=turn, begun=False, text=text)
        if self._snapshot.written[spec.index] <= turn:
            writer = self._labels[spec.writer]
            return ActorReport(
                label=label, state="waiting", execution=turn, begun=False,
                text=f"has not begun it: waits for {spec.label} from {writer}{_silence(activity)}",
                for_s=self._idle_s(seen), waits_for=(writer,),
            )  # fmt: skip
        doing = str(activity) or "in something else, or about to begin"
        waits_for = () if activity.wait is None else self._participants_of(activity.wait.on)
        return ActorReport(
            label=label,
            state="waiting" if waits_for else "busy",
            execution=turn,
            begun=False,
            text=f"has not begun it, although {spec.label} is there: {doing}",
            waits_for=tuple(self._labels[number] for number in waits_for),
            stack=activity.stack,
        )

    def _idle_s(self, seen: Seen) -> float | None:
        """Return since when an actor waits for an execution that it has not begun.

        Not longer than since the execution was submitted, nor than since its last step began.
        """
        known = [self._snapshot.submitted_s.get(seen.begun), seen.for_s or None]
        return min((one for one in known if one is not None), default=None)

    def _waits_for(self, step: Step, seen: Seen) -> tuple[int, ...]:
        """Return the participants that have to act before an actor goes on from a step."""
        match step:
            case Read(channel=channel):
                late = self._late(channel, seen.execution)
                if self._snapshot.written[channel] > seen.execution and not late:
                    return ()
                return (self._program.channels[channel].writer,)
            case Write(channel=channel):
                return self._late(channel, seen.execution)
            case CollectiveStart(operation=number):
                members = self._program.operations[number].members
                return tuple(m for m in members if not self._has_begun(m, number, seen.execution))
            case _:
                return ()

    def _late(self, channel: int, execution: int) -> tuple[int, ...]:
        """Return the readers that have not come to where a value's ends meet, if they do."""
        if not self._is_met(channel):
            return ()
        spec = self._program.channels[channel]
        return tuple(
            reader
            for reader in spec.readers
            if not self._has_come(
                reader, execution, lambda one: isinstance(one, Read) and one.channel == channel
            )
        )

    def _has_begun(self, participant: int, operation: int, execution: int) -> bool:
        """Tell whether a rank has come to an operation of an execution."""
        return self._has_come(
            participant,
            execution,
            lambda one: isinstance(one, CollectiveStart) and one.operation == operation,
        )

    def _has_come(self, participant: int, execution: int, is_it: Callable[[Step], bool]) -> bool:
        """Tell whether a participant has come to a step of an execution."""
        seen = self._snapshot.actors[participant - 1]
        steps = self._program.steps[participant]
        start = next(number for number, step in enumerate(steps, 1) if is_it(step))
        here = (seen.execution, seen.step) if seen.step else (seen.begun, 0)
        return here >= (execution, start)

    def _text(self, participant: int, step: Step, waits_for: Sequence[int]) -> str:
        name = step_text(self._program, self._names, participant, step)
        match step:
            case Read(channel) if not waits_for and self._is_met(channel):
                return name.replace("waiting for", "is taking", 1)
            case Write() if waits_for:
                late = ", ".join(self._labels[number] for number in waits_for)
                return f"is {name}: waits for {late} to take it"
            case Read(channel=channel) if not waits_for:
                return f"is about to go on: {self._program.channels[channel].label} is there"
            case Read():
                return name.replace("waiting", "waits", 1)
            case CollectiveStart() if waits_for:
                late = ", ".join(self._labels[number] for number in waits_for)
                return f"waits in {name} for {late}"
            case Write():
                return f"is {name}"
            case CollectiveStart() | CollectiveWait():
                return f"is in {name}, with all ranks"
            case _:
                return f"is in {name}"

    def _is_met(self, channel: int) -> bool:
        return self._program.channels[channel].transport.is_rendezvous

    def _participants_of(self, actor_id: ActorId | None) -> tuple[int, ...]:
        return tuple(
            number
            for number, seen in enumerate(self._snapshot.actors, 1)
            if seen.actor_id == actor_id
        )


def _silence(activity: Activity) -> str:
    """Return, to be appended, why a process shows no stack."""
    return f" ({activity.state})" if activity.state else ""


def _blame(starts: Sequence[str], actors: Sequence[ActorReport]) -> tuple[tuple[str, ...], bool]:
    """Follow the waiting from `starts` to its ends; tells also whether it ends in a circle."""
    by_label = {actor.label: actor for actor in actors}
    reached = dict.fromkeys(label for label in starts if label in by_label)
    todo = list(reached)
    for label in todo:
        for other in by_label[label].waits_for:
            if other in by_label and other not in reached:
                reached[other] = None
                todo.append(other)
    ends = [label for label in reached if not by_label[label].waits_for]
    if ends:
        return tuple(ends), False
    circle = [label for label in reached if _comes_back(label, by_label)]
    return tuple(circle), bool(circle)


def _comes_back(start: str, by_label: Mapping[str, ActorReport]) -> bool:
    """Tell whether the waiting of an actor leads to itself."""
    todo, seen = list(by_label[start].waits_for), set[str]()
    while todo:
        label = todo.pop()
        if label == start:
            return True
        if label in by_label and label not in seen:
            seen.add(label)
            todo += by_label[label].waits_for
    return False
