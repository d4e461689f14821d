"""A program as text: a table of steps by participant, with a legend. Prints and parses back.

The row of a step is the tick at which it can first run, so the table reads as a timeline::

    # R read, W write, ...
    program inflight=10 single
    participant 0 driver
    participant 1 Worker(0)
    channel 0 0>1 0 input
    channel 1 1>0 1 Worker.f#1
    slots 2,2
    entry - v0
    output v1
    step | driver | Worker(0)
       0 | W0 v0  |
       1 |        | R0 v0
       2 |        | C1 v1=f(v0)
       3 |        | W1 v1
       4 | R1 v1  | D v0,v1

Steps: ``R`` read, ``W`` write, ``C`` compute, ``S`` start and ``J`` join a collective, ``D`` drop.
A method with ``!`` behind its name is recorded as a CUDA graph.
"""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from typing import Any, get_args

from compiled_dag.channel.layout import ChannelSpec
from compiled_dag.channel.transport import UNHINTED, Mechanism, Transport
from compiled_dag.ir import CommunicatorId, DeviceName, NodeId, OperationId
from compiled_dag.program import (
    CollectiveStart,
    CollectiveWait,
    Compute,
    Entry,
    OperationSpec,
    Program,
    Read,
    Release,
    Step,
    Write,
)
from compiled_dag.simulate import simulate
from compiled_dag.tree import Arguments

_KEY = "# R read, W write, C compute, S start and J join a collective, D drop; v slots, c constants"


def render(program: Program) -> str:
    """Return `program` as text."""
    lines = [_KEY]
    lines += [f"program inflight={program.depth} {'single' if program.single_output else 'list'}"]
    lines += [f"participant {i} {name}" for i, name in enumerate(program.participants)]
    lines += [
        f"channel {spec.index} {spec.writer}>{_numbers(spec.readers)} "
        f"{_numbers(spec.nodes)} {spec.label}"
        for spec in program.channels
    ]
    lines += [
        f"transport {spec.index} {_transport_text(spec.transport)}"
        for spec in program.channels
        if spec.transport != UNHINTED
    ]
    lines += [
        f"operation {op.id} {_numbers(op.members)} {_numbers(op.nodes)} {op.text}"
        for op in program.operations
    ]
    lines += [
        f"through {op.id} {op.communicator}"
        for op in program.operations
        if op.communicator is not None
    ]
    lines += [f"slots {_numbers(program.slots)}"]
    lines += [f"entry {'-' if e.key is None else repr(e.key)} v{e.slot}" for e in program.entries]
    lines += [f"output {tree}" for tree in program.outputs]
    return "\n".join(lines + _rows(program))


def _rows(program: Program) -> list[str]:
    ticks = simulate(program)
    height = 1 + max((tick for column in ticks for tick in column), default=-1)
    header = ["step", *program.participants]
    rows = [[str(row)] + [""] * len(ticks) for row in range(height)]
    for number, column in enumerate(ticks, 1):
        for tick, step in zip(column, program.steps[number - 1], strict=True):
            rows[tick][number] = step_text(step)
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [row[0].rjust(widths[0])]
        cells += [cell.ljust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append(" | ".join(cells).rstrip())
    return lines


def step_text(step: Step) -> str:
    """Return one step in a few characters."""
    match step:
        case Read(channel=channel):
            return f"R{channel} {_slots_text(step.slots)}"
        case Write(channel=channel):
            return f"W{channel} {_slots_text(step.slots)}"
        case Compute(node, method, arguments, results, unpack, cuda_graph):
            values = ",".join(f"v{slot}" for slot in results) + ("," if unpack else "")
            return f"C{node} {values}={method}{'!' * cuda_graph}({arguments})"
        case CollectiveStart(operation, slots):
            return f"S{operation} {_slots_text(slots)}"
        case CollectiveWait(operation, slots):
            return f"J{operation} {_slots_text(slots)}"
        case Release(slots):
            return f"D {_slots_text(slots)}"


def parse(text: str) -> Program:
    """Return the program that `render` printed.

    Raises:
        ValueError: Malformed text; names the line.
    """
    return _Parser().program(text)


_STEPS: list[tuple[re.Pattern[str], Any]] = [
    (
        re.compile(r"R(\d+) v(\d+)((?:,v\d+)*)"),
        lambda m: Read(int(m[1]), int(m[2]), _slots(m[3])),
    ),
    (
        re.compile(r"W(\d+) v(\d+)((?:,v\d+)*)"),
        lambda m: Write(int(m[1]), int(m[2]), _slots(m[3])),
    ),
    (
        re.compile(r"C(\d+) ((?:v\d+,)*(?:v\d+)?)=(\w+)(!?)\((.*)\)"),
        lambda m: Compute(
            NodeId(int(m[1])),
            m[3],
            Arguments.parse(m[5]),
            _slots(m[2]),
            unpack=m[2].endswith(","),
            cuda_graph=bool(m[4]),
        ),
    ),
    (
        re.compile(r"S(\d+) (-|v\d+(?:,v\d+)*)"),
        lambda m: CollectiveStart(OperationId(int(m[1])), _slots(m[2])),
    ),
    (
        re.compile(r"J(\d+) (-|v\d+(?:,v\d+)*)"),
        lambda m: CollectiveWait(OperationId(int(m[1])), _slots(m[2])),
    ),
    (re.compile(r"D (v\d+(?:,v\d+)*)"), lambda m: Release(_slots(m[1]))),
]


def parse_step(text: str) -> Step:
    """Return the step that `step_text` printed.

    Raises:
        ValueError: The text is no step.
    """
    for pattern, make in _STEPS:
        match = pattern.fullmatch(text)
        if match:
            step: Step = make(match)
            return step
    msg = f"not a step: {text!r}"
    raise ValueError(msg)


class _Parser:
    """Collects the legend, then the table."""

    def __init__(self) -> None:
        self._depth = 0
        self._single = False
        self._participants: list[str] = []
        self._channels: list[ChannelSpec] = []
        self._operations: list[OperationSpec] = []
        self._slots: tuple[int, ...] = ()
        self._entries: list[Entry] = []
        self._outputs: list[Any] = []
        self._steps: list[list[Step]] = []

    def program(self, text: str) -> Program:
        for number, line in enumerate(text.splitlines(), 1):
            try:
                if line.strip():
                    self._line(line.strip())
            except (ValueError, IndexError, SyntaxError) as error:
                msg = f"line {number} of the program is malformed: {line.strip()!r} ({error})"
                raise ValueError(msg) from error
        if not self._participants:
            msg = "the text holds no program"
            raise ValueError(msg)
        return Program(
            participants=tuple(self._participants),
            steps=tuple(map(tuple, self._steps)),
            slots=self._slots,
            channels=tuple(self._channels),
            operations=tuple(self._operations),
            entries=tuple(self._entries),
            outputs=tuple(self._outputs),
            single_output=self._single,
        )

    def _line(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        match word:
            case "program":
                depth, form = rest.split()
                self._depth, self._single = int(depth.removeprefix("inflight=")), _is_single(form)
            case "participant":
                self._participants.append(rest.split(" ", 1)[1])
                self._steps.append([])
            case "channel":
                index, ends, nodes, label = rest.split(" ", 3)
                writer, readers = ends.split(">")
                node, *beside = _parse_numbers(nodes) or (None,)
                self._channels.append(
                    ChannelSpec(
                        index=int(index),
                        writer=int(writer),
                        readers=_parse_numbers(readers),
                        depth=self._depth,
                        label=label,
                        node=node,
                        beside=tuple(beside),
                    )
                )
            case "transport" | "through":
                index, rest = rest.split(" ", 1)
                self._amend(word, int(index), rest)
            case "operation":
                index, members, nodes, label = rest.split(" ", 3)
                self._operations.append(
                    OperationSpec(
                        id=OperationId(int(index)),
                        text=label,
                        members=_parse_numbers(members),
                        nodes=tuple(NodeId(node) for node in _parse_numbers(nodes)),
                    )
                )
            case "slots":
                self._slots = _parse_numbers(rest)
            case "entry":
                key, slot = rest.rsplit(" ", 1)
                value = None if key == "-" else ast.literal_eval(key)
                self._entries.append(Entry(key=value, slot=int(slot[1:])))
            case "output":
                self._outputs.append(Arguments.parse(rest).args[0])
            case "step" | "#":
                pass
            case _:
                self._row(line)

    def _amend(self, word: str, number: int, rest: str) -> None:
        """Take a second line on a channel or an operation, which most have no need of."""
        if word == "transport":
            spec = self._channels[number]
            self._channels[number] = replace(spec, transport=_parse_transport(rest))
        else:
            operation = self._operations[number]
            by = CommunicatorId(int(rest))
            self._operations[number] = replace(operation, communicator=by)

    def _row(self, line: str) -> None:
        first, *cells = line.split("|")
        int(first)
        if len(cells) > len(self._steps):
            msg = f"{len(cells)} columns for {len(self._steps)} participants"
            raise ValueError(msg)
        for number, cell in enumerate(cells):
            if cell.strip():
                self._steps[number].append(parse_step(cell.strip()))


def _transport_text(transport: Transport) -> str:
    switches = [name for name in _SWITCHES if getattr(transport, name)]
    number = transport.communicator
    by = [] if number is None else [f"communicator={number}"]
    if transport.copying:
        by.append(f"copying={_numbers(transport.copying)}")
    words = (transport.mechanism, transport.device, *switches, *by, "|", transport.reason)
    return " ".join(words)


def _parse_transport(text: str) -> Transport:
    words, reason = text.split(" | ", 1)
    mechanism, device, *rest = words.split()
    if mechanism not in get_args(Mechanism) or device not in get_args(DeviceName):
        msg = f"no such transport: {mechanism} {device}"
        raise ValueError(msg)
    named = dict(word.split("=") for word in rest if "=" in word)
    number = named.get("communicator")
    return Transport(
        mechanism=mechanism,  # type: ignore[arg-type]  # checked above
        device=device,  # type: ignore[arg-type]  # checked above
        static_shape="static_shape" in rest,
        direct_return="direct_return" in rest,
        host_ordered="host_ordered" in rest,
        views="views" in rest,
        communicator=CommunicatorId(int(number)) if number else None,
        copying=_parse_numbers(named.get("copying", "-")),
        reason=reason,
    )


_SWITCHES = ("static_shape", "direct_return", "host_ordered", "views")


def _is_single(form: str) -> bool:
    return ("list", "single").index(form) == 1


def _numbers(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values)) or "-"


def _parse_numbers(text: str) -> tuple[int, ...]:
    return () if text == "-" else tuple(map(int, text.split(",")))


def _slots_text(slots: tuple[int, ...]) -> str:
    return ",".join(f"v{slot}" for slot in slots) or "-"


def _slots(text: str) -> tuple[int, ...]:
    return tuple(int(part[1:]) for part in text.split(",") if part not in ("", "-"))
