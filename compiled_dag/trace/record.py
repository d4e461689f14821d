"""A trace as data: who did what when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["read", "compute", "write", "collective"]
KINDS: Final[tuple[Kind, ...]] = ("read", "compute", "write", "collective")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing that a participant does in every execution."""

    kind: Kind
    name: str
    step: int | None = None
    """Number in the participant's program, from 1."""
    node: int | None = None
    """The node it works for, where that is one."""
    source: str = ""
    """``file:line`` of its `.bind()`."""
    channels: tuple[int, ...] = ()
    """What it reads or writes."""


class Span(NamedTuple):
    """One run of an operation; times are of the machine's monotonic clock."""

    operation: int
    """Index into the lane's operations."""
    execution: int
    begin_ns: int
    arrived_ns: int
    """When a read's message was there; `begin_ns` if it was there before, and for all others."""
    end_ns: int
    state: Literal["ok", "failed", "running"] = "ok"
    """Whether its method raised; whether it had not ended when the trace was taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What one participant, or one side of the driver, did: spans that do not overlap."""

    participant: int
    label: str
    pid: int
    operations: tuple[Operation, ...]
    spans: tuple[Span, ...]
    """The earliest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The last executions of a graph."""

    graph: str
    channels: tuple[str, ...]
    """Labels."""
    lanes: tuple[Lane, ...]
    """The driver's two, then the actors'."""
