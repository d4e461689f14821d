"""What every actor does in one execution, in order: the public view of a program.

A `Schedule` is plain data: it pickles, compares, prints as a table and parses back. It holds what
the deadlock proof needs and nothing else (no slots, no arguments), so a schedule that was printed
in one place is verified in another, without a session, actors or torch. It is made from a program
and turned back into a skeleton of one to be verified: there is one scheduler and one proof.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from compiled_dag.program import CollectiveStart, CollectiveWait, Compute, Read, Write
from compiled_dag.simulate import simulate
from compiled_dag.skeleton import skeleton

if TYPE_CHECKING:
    from compiled_dag.ir import Graph
    from compiled_dag.program import Program

Kind: TypeAlias = Literal["READ", "COMPUTE", "WRITE", "START", "WAIT"]

_KINDS: Final[dict[str, Kind]] = {kind: kind for kind in get_args(Kind)}
_DRIVER: Final = "driver"
_MEETINGS: Final = "meetings on channels"
_COLUMNS: Final = ("actor", "operation", "node", "channel", "peers", "name")


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of one actor."""

    node: int
    """The node it belongs to: what is read for it, computed by it, written of it."""
    kind: Kind
    peers: tuple[str, ...] = ()
    """Who wrote what is read; who reads what is written; the other ranks of a collective."""
    channel: int | None = None
    """The channel of a READ or WRITE; the collective operation of a START or WAIT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Mapping[str, tuple[Op, ...]]):
    """The operations of every actor, by its label (``Worker(3)``).

    `str` is a table with one row per operation and actor, which `parse` reads back.
    """

    depth: int
    """Executions in flight at most: messages a channel holds."""
    lanes: tuple[tuple[str, tuple[Op, ...]], ...]
    """Label and operations of everybody; the driver first."""
    names: tuple[tuple[int, str], ...]
    """Node number and what messages call it, of every node that has an operation."""
    meetings: tuple[int, ...] = ()
    """Channels whose writer and readers meet: a user's communicator carries their values."""

    @property
    def driver(self) -> tuple[Op, ...]:
        """The driver's operations: it writes the inputs and reads the outputs."""
        return self.lanes[0][1]

    @classmethod
    def of(cls, program: Program, graph: Graph) -> Schedule:
        """Return the view of `program`, which was compiled from `graph`."""
        lanes = tuple(
            (label, tuple(_ops(program, graph, number)))
            for number, label in enumerate(program.participants)
        )
        used = sorted({op.node for _, ops in lanes for op in ops})
        names = tuple((node, graph.nodes[node].label) for node in used)
        met = tuple(spec.index for spec in program.channels if spec.transport.is_rendezvous)
        return cls(depth=program.depth, lanes=lanes, names=names, meetings=met)

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Return the schedule that `str` printed.

        Raises:
            TypeError: `text` is no text.
            ValueError: Malformed text; names the line.
        """
        if not isinstance(text, str):
            msg = f"Schedule.parse takes the text of a schedule, not {text!r}"
            raise TypeError(msg)
        return _parse(text)

    def verify(self) -> None:
        """Prove anew that nobody can wait for ever, for any timing.

        Raises:
            DeadlockError: Somebody would; shows the cycle.
            GraphError: A channel has two writers, or one that is not what its readers expect.
        """
        simulate(skeleton(self))

    def __getitem__(self, actor: str) -> tuple[Op, ...]:
        for label, ops in self.lanes[1:]:
            if label == actor:
                return ops
        raise KeyError(actor)

    def __iter__(self) -> Iterator[str]:
        return (label for label, _ in self.lanes[1:])

    def __len__(self) -> int:
        return len(self.lanes) - 1

    def __repr__(self) -> str:
        return f"<Schedule of {len(self)} actors, {sum(len(ops) for _, ops in self.lanes)} ops>"

    def __str__(self) -> str:
        names = dict(self.names)
        rows = [_COLUMNS, *(_row(label, op, names) for label, ops in self.lanes for op in ops)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
        lines = [f"schedule inflight={self.depth} of {', '.join(self)}"]
        if self.meetings:
            lines.append(f"{_MEETINGS} {', '.join(map(str, self.meetings))}")
        lines += [
            " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join(lines)


def _ops(program: Program, graph: Graph, participant: int) -> Iterator[Op]:
    names = program.participants
    for position, step in enumerate(program.steps[participant]):
        node = program.node_of(participant, position)
        if node is None:  # the driver reads for the output, and starts whom nobody else starts
            node = graph.output if isinstance(step, Read) else 0
        match step:
            case Read(channel=channel):
                writer = program.channels[channel].writer
                yield Op(node, "READ", (names[writer],), channel)
            case Write(channel=channel):
                readers = program.channels[channel].readers
                yield Op(node, "WRITE", tuple(names[reader] for reader in readers), channel)
            case Compute():
                yield Op(node, "COMPUTE")
            case CollectiveStart(operation=number) | CollectiveWait(operation=number):
                members = program.operations[number].members
                peers = tuple(names[member] for member in members if member != participant)
                kind: Kind = "START" if isinstance(step, CollectiveStart) else "WAIT"
                yield Op(node, kind, peers, number)
            case _:
                pass  # dropping values concerns nobody else


# --- text -----------------------------------------------------------------------------------------


def _row(label: str, op: Op, names: dict[int, str]) -> tuple[str, ...]:
    channel = "" if op.channel is None else str(op.channel)
    return (label, op.kind, str(op.node), channel, ", ".join(op.peers), names[op.node])


def _parse(text: str) -> Schedule:
    lanes: dict[str, list[Op]] = {_DRIVER: []}
    names: dict[int, str] = {}
    meetings: tuple[int, ...] = ()
    depth = None
    for number, line in enumerate(text.splitlines(), 1):
        try:
            if depth is None:
                if line.strip():
                    depth, actors = _parse_head(line.strip())
                    lanes |= {actor: [] for actor in actors}
            elif line.strip().startswith(_MEETINGS):
                meetings = tuple(map(int, line.strip().removeprefix(_MEETINGS).split(",")))
            elif line.strip() and tuple(map(str.strip, line.split("|"))) != _COLUMNS:
                label, op, name = _parse_row(line)
                if label not in lanes:
                    msg = f"no actor {label!r} in the first line"
                    raise ValueError(msg)  # noqa: TRY301  one place adds the line
                if names.setdefault(op.node, name) != name:
                    msg = f"node {op.node} is {names[op.node]!r} further up"
                    raise ValueError(msg)  # noqa: TRY301  one place adds the line
                lanes[label].append(op)
        except ValueError as error:
            msg = f"line {number} of the schedule is malformed: {line.strip()!r} ({error})"
            raise ValueError(msg) from error
    if depth is None:
        msg = "the text holds no schedule (line 1 is empty)"
        raise ValueError(msg)
    return Schedule(
        depth=depth,
        lanes=tuple((label, tuple(ops)) for label, ops in lanes.items()),
        names=tuple(sorted(names.items())),
        meetings=meetings,
    )


def _parse_head(line: str) -> tuple[int, list[str]]:
    words = line.split(" ", 3)
    if words[0] != "schedule" or len(words) != len(("schedule", "inflight=", "of", "actors")):
        msg = "expected 'schedule inflight=N of Actor(1), ...'"
        raise ValueError(msg)
    depth = int(words[1].removeprefix("inflight="))
    if depth < 1:
        msg = "at least one execution is in flight"
        raise ValueError(msg)
    return depth, words[3].split(", ")


def _parse_row(line: str) -> tuple[str, Op, str]:
    cells = [cell.strip() for cell in line.split("|", len(_COLUMNS) - 1)]
    if len(cells) != len(_COLUMNS):
        msg = f"{len(cells)} columns, expected {len(_COLUMNS)}"
        raise ValueError(msg)
    label, kind, node, channel, peers, name = cells
    if kind not in _KINDS:
        msg = f"no operation {kind!r}"
        raise ValueError(msg)
    num_peers = peers.count(", ") + bool(peers)
    wrong = {
        "COMPUTE": bool(channel or peers),
        "READ": not channel or num_peers != 1,
        "WRITE": not channel or num_peers == 0,
    }
    if wrong.get(kind, not channel):
        msg = f"a {kind} has another number of channels or peers"
        raise ValueError(msg)
    op = Op(
        int(node),
        _KINDS[kind],
        tuple(peers.split(", ")) if peers else (),
        int(channel) if channel else None,
    )
    return label, op, name
