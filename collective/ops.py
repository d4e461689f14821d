"""What ranks can do together: frozen operations, drawn into graphs and carried to the actors."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from collective.group import open_group
from collective.rank import RankOperation
from compiled_dag.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collective.group import DriverGroup
    from compiled_dag.host import Actor, ActorContext, Host
    from compiled_dag.outcome import Place


class ReduceOp(Enum):
    """How values are reduced over the ranks."""

    SUM = "SUM"
    PRODUCT = "PRODUCT"
    MAX = "MAX"
    MIN = "MIN"
    AVG = "AVG"
    """The sum, divided by the number of ranks; floating point and complex only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllReduce:
    """Every rank gets the reduction of all ranks' tensors."""

    op: ReduceOp = ReduceOp.SUM

    def __str__(self) -> str:
        return f"allreduce({self.op.value})"

    def backend(self, actors: Sequence[Actor]) -> str:
        """Return ``"nccl"`` if every actor has a physical GPU of its own, else ``"gloo"``."""
        return choose_backend(actors)

    def open_group(self, host: Host, actors: Sequence[Actor], deadline: float) -> DriverGroup:
        """Form a group of `actors`, ranks in this order."""
        return open_group(host, actors, self.backend(actors), deadline)

    def bind_rank(
        self, context: ActorContext, group_id: int, rank: int, places: Sequence[Place]
    ) -> RankOperation:
        """Return this rank's part, in its actor's process."""
        return RankOperation(context, group_id, rank, places, str(self), self.op.value)


def choose_backend(actors: Sequence[Actor]) -> str:
    """Return the default backend for `actors`.

    NCCL refuses two ranks on one GPU, so it is chosen only where every actor has its own.
    """
    gpus = [actor.physical_gpus[:1] for actor in actors]
    if all(gpus) and len(set(gpus)) == len(gpus):
        return "nccl"
    return "gloo"


def parse_reduce_op(op: object) -> ReduceOp:
    """Return `op` as a `ReduceOp`; other enumerations count by name, never by number.

    Raises:
        ValueError: It is no reduce op; names the valid ones.
    """
    if isinstance(op, ReduceOp):
        return op
    name = getattr(op, "name", None)
    if isinstance(op, Enum) and name in ReduceOp.__members__:
        return ReduceOp[str(name)]
    valid = ", ".join(f"ReduceOp.{member}" for member in ReduceOp.__members__)
    msg = f"op={op!r} is not a reduce op: use one of {valid}"
    raise ValueError(msg)


def check_inputs(name: str, inputs: object) -> None:
    """Refuse what is no list of nodes.

    Raises:
        GraphError: `inputs` is no list or tuple.
    """
    if not isinstance(inputs, (list, tuple)):
        msg = f"{name}.bind takes a list with one node per actor, not {type(inputs).__name__}"
        raise GraphError(msg)
