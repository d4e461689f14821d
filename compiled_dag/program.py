"""The compiler's output: one fixed list of steps per participant. Data only.

A program is a small register machine. Each participant has numbered value slots; a step moves a
value between a slot and a channel, calls a method on slots, or starts and finishes a collective.
Participant 0 is the driver. `compiled_dag.table` prints a program and parses it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from compiled_dag.channel.layout import ChannelSpec
    from compiled_dag.ir import CommunicatorId, NodeId, OperationId
    from compiled_dag.tree import Arguments, Tree


@dataclass(frozen=True, slots=True)
class Read:
    """Take the next message of a channel into a slot, or its values into several; waits for it."""

    channel: int
    slot: int
    beside: tuple[int, ...] = ()
    """Slots of the further values of the message."""

    @property
    def slots(self) -> tuple[int, ...]:
        """All that it fills."""
        return (self.slot, *self.beside)


@dataclass(frozen=True, slots=True)
class Write:
    """Send a slot's value, or those of several slots, to the readers of a channel."""

    channel: int
    slot: int
    beside: tuple[int, ...] = ()
    """Slots of the further values of the message."""

    @property
    def slots(self) -> tuple[int, ...]:
        """All that it sends."""
        return (self.slot, *self.beside)


@dataclass(frozen=True, slots=True)
class Compute:
    """Call a method on slots and constants; the results go to slots."""

    node: NodeId
    method: str
    arguments: Arguments
    """Over slots (``v``) and constants (``c``)."""
    results: tuple[int, ...]
    """One slot, or one per return value."""
    unpack: bool = False
    """Whether the method's value is a sequence of as many values as there are results."""
    cuda_graph: bool = False
    """Whether its work on the GPU is recorded once, and played (`compiled_dag.cuda.capturing`)."""


@dataclass(frozen=True, slots=True)
class CollectiveStart:
    """Begin this rank's part in an operation, with the values in some slots, or with none."""

    operation: OperationId
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CollectiveWait:
    """Finish this rank's part; the results go to slots. Waits for all ranks."""

    operation: OperationId
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """Forget values that no later step needs."""

    slots: tuple[int, ...]


Step: TypeAlias = Read | Write | Compute | CollectiveStart | CollectiveWait | Release


def uses(step: Step) -> tuple[int, ...]:
    """Return the slots whose values a step looks at."""
    match step:
        case Compute(arguments=arguments):
            return tuple(arguments.values())
        case Write():
            return step.slots
        case CollectiveStart(slots=slots):
            return slots
        case _:
            return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSpec:
    """One collective operation, as programs refer to it."""

    id: OperationId
    text: str
    members: tuple[int, ...]
    """Participants by rank."""
    nodes: tuple[NodeId, ...]
    """Its nodes by rank."""
    communicator: CommunicatorId | None = None
    """The user's, which does it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where an argument of `execute` goes."""

    key: int | str | None
    """Position, keyword, or None for the one positional argument."""
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The programs of all participants."""

    participants: tuple[str, ...]
    """Labels; the driver first."""
    steps: tuple[tuple[Step, ...], ...]
    """By participant."""
    slots: tuple[int, ...]
    """How many slots each participant needs."""
    channels: tuple[ChannelSpec, ...]
    operations: tuple[OperationSpec, ...]
    entries: tuple[Entry, ...]
    """Driver slots that `execute` fills."""
    outputs: tuple[Tree, ...]
    """Driver slots (and constants) that results are taken from."""
    single_output: bool

    @property
    def depth(self) -> int:
        """Executions in flight at most."""
        return self.channels[0].depth if self.channels else 1

    def first_channel(self, participant: int) -> int:
        """Return the channel that an actor reads first: all their programs begin with a read."""
        return next(step.channel for step in self.steps[participant] if isinstance(step, Read))

    def node_of(self, participant: int, position: int) -> int | None:
        """Return the node that a step belongs to; a value is read for the node that needs it.

        None for the driver's reads, which are for the output, and where nothing follows.
        """
        steps = self.steps[participant]
        for step in steps[position:]:
            match step:
                case Compute(node=node):
                    return node
                case CollectiveStart(operation=number) | CollectiveWait(operation=number):
                    spec = self.operations[number]
                    return spec.nodes[spec.members.index(participant)]
                case Write(channel=channel) if step is steps[position]:
                    return self.channels[channel].node
                case _:
                    pass
        return None

    def __str__(self) -> str:
        from compiled_dag.table import render  # noqa: PLC0415  the table module parses programs

        return render(self)
