"""How an operation comes into a graph: arguments, checked. `collective.bind` has what users see."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from collective.kinds import BARRIER
from collective.ops import (
    Operation,
    ReduceOp,
    check_options,
    check_root,
    parse_inputs,
    parse_reduce_op,
    parse_transport,
)
from compiled_dag.collective_node import bind_collective, name_of
from compiled_dag.communicator import Communicator
from compiled_dag.keywords import choice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from collective.kinds import Kind


_NONE: Final[Mapping[str, object]] = MappingProxyType({})


class Drawing:
    """What the operations have in common."""

    _kind: Kind

    def _draw(
        self,
        input_nodes: Sequence[Any],
        transport: str | Communicator | None = None,
        *,
        op: ReduceOp | None = None,
        special: int = 0,
        bucket_bytes: int | None = None,
        inplace: bool = False,
        uneven: bool = False,
        unknown: Mapping[str, object] = _NONE,
    ) -> list[Any]:
        """Draw it; returns what each rank gets: a node, or a list of them."""
        kind = self._kind
        buckets, nested = parse_inputs(kind.name, input_nodes)
        _check_names(kind, unknown)
        check_options(
            kind, nested=nested, bucket_bytes=bucket_bytes, inplace=inplace, uneven=uneven
        )
        if isinstance(transport, Communicator):
            from collective.cpu_communicator import CPUCommunicator  # noqa: PLC0415  few use it

            if isinstance(transport, CPUCommunicator):
                transport.check_members(kind.name, buckets[0])
                transport = "gloo"
        backend, communicator = parse_transport(transport)
        reduce_op = parse_reduce_op(op) if kind.reduces else None
        if kind.root and buckets[0]:
            seats = ", ".join(f"{rank}: {name_of(one)}" for rank, one in enumerate(buckets[0]))
            who = f"a position in input_nodes is a rank ({seats})"
            special = check_root(kind.root, special, len(buckets[0]), kind.name, who)
        operation = Operation(
            kind=kind,
            op=reduce_op,
            root=special,
            transport=backend,
            num_buckets=len(buckets),
            bucket_bytes=bucket_bytes,
            inplace=inplace,
            uneven=uneven,
        )
        results_on = special if kind.root == "dst_rank" else None
        return bind_collective(operation, buckets, communicator, results_on=results_on)

    def __repr__(self) -> str:
        return f"collective.{self._kind.name}"


_ROOTS: Final = frozenset({"root", "src_rank", "dst_rank", "src", "dst"})
"""What the special rank is called here or elsewhere."""


_OF_CALLS: Final = frozenset({"async_op", "group_name"})


def _options_of(kind: Kind) -> list[str]:
    """Return the arguments that `bind` of an operation can do something with."""
    if kind == BARRIER:
        return ["input_nodes"]
    has = {
        "input_nodes": True,
        kind.root: bool(kind.root),
        "op": kind.reduces,
        "transport": True,
        "bucket_bytes": True,
        "inplace": kind.in_place,
        "uneven": kind.may_be_uneven,
    }
    return [name for name, can in has.items() if can]


def _check_names(kind: Kind, unknown: Mapping[str, object]) -> None:
    """Refuse options that no operation has, with more help than Python gives by itself."""
    if unknown:
        name = min(unknown)
        if name in _ROOTS:
            hint = f": it is called {kind.root}" if kind.root else ": all its ranks are alike"
        elif name in _OF_CALLS:
            hint = f": it is of calls in actors, {kind.name}(...)"
        else:
            hint = choice(name, _options_of(kind))
        msg = f"{kind.name}.bind() got an unexpected keyword argument {name!r}{hint}"
        raise TypeError(msg)
