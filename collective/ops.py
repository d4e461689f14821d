"""What ranks can do together: frozen operations, drawn into graphs and carried to the actors."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from collective.kinds import BARRIER, Kind
from compiled_dag.communicator import Communicator
from compiled_dag.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collective.group import DriverGroup
    from collective.rank import RankBarrier
    from collective.rank_operation import RankOperation
    from compiled_dag.communicators import CommunicatorPart
    from compiled_dag.host import Actor, ActorContext, Host
    from compiled_dag.outcome import Place


Backend: TypeAlias = Literal["gloo", "nccl", "shm", "cuda_ipc"]


class ReduceOp(Enum):
    """How values are reduced over the ranks."""

    SUM = "SUM"
    PRODUCT = "PRODUCT"
    MAX = "MAX"
    """As `torch.maximum`: NaN of any rank comes out on all; but on NCCL, whose rule is its own."""
    MIN = "MIN"
    """As `torch.minimum`, in the same way."""
    AVG = "AVG"
    """The sum, divided by the number of ranks; floating point and complex only."""
    BAND = "BAND"
    """Bitwise and; of integers and booleans, as are the next two; not on NCCL."""
    BOR = "BOR"
    BXOR = "BXOR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation as it is drawn: `compiled_dag.operation.CollectiveOp`."""

    kind: Kind
    op: ReduceOp | None = None
    """How to reduce, if it does."""
    root: int = 0
    """The one special rank, if it has one."""
    transport: Backend | None = None
    """What it is to run on, if the user says so."""
    num_buckets: int = 1
    """How many tensors each rank brings."""
    bucket_bytes: int | None = None
    """What no message of several tensors is to exceed."""
    inplace: bool = False
    """Whether results go where the inputs are."""
    uneven: bool = False
    """Whether first dimensions may differ, or not divide."""

    @property
    def method(self) -> str:
        """The method of `Communicator` that does it."""
        return self.kind.name

    @property
    def frees_input(self) -> bool:
        """Whether inputs may be changed once the operation has begun: what is sent is a copy."""
        return self.kind.in_place

    def __str__(self) -> str:
        root = f"{self.kind.root}={self.root}" if self.kind.root else ""
        buckets = f"{self.num_buckets} buckets" if self.num_buckets > 1 else ""
        options = "inplace" if self.inplace else "uneven" if self.uneven else ""
        inside = ", ".join(filter(None, (root, self.op and self.op.value, buckets, options)))
        return f"{self.kind.name}({inside})" if inside else self.kind.name

    def only_gets(self, rank: int) -> bool:
        """Tell whether a rank brings no value, so that its actor may stand for a node of it."""
        return not (self.inplace or self.kind.brings(rank, self.root))

    def backend(self, actors: Sequence[Actor]) -> str:
        """Return what the user wants, or else what suits the actors' GPUs.

        Raises:
            GraphError: It is wanted and cannot run.
        """
        from collective.choice import check_backend, choose_backend  # noqa: PLC0415  not to draw

        if self.transport is None:
            return choose_backend(actors)
        check_backend(str(self), self.transport, actors)
        return self.transport

    def why(self, actors: Sequence[Actor]) -> str:
        """Return why `backend` is what it is for these actors."""
        if self.transport is not None:
            return f"transport={self.transport!r} was asked for"
        from collective.choice import why_chosen  # noqa: PLC0415  drawing needs none of it

        return why_chosen(actors)

    def advice(self, actors: Sequence[Actor]) -> str:
        """Return what would serve these actors better than the default, or an empty text."""
        has_choice = self.transport is None and self.kind != BARRIER and len(actors) > 1
        if not has_choice or any(actor.physical_gpus for actor in actors):
            return ""
        return "transport='shm' would be faster: their tensors are in one machine's memory"

    def new_group(
        self, host: Host, actors: Sequence[Actor], communicator: CommunicatorPart | None = None
    ) -> DriverGroup:
        """Return a group of `actors`, to be opened; a user's communicator may do the work."""
        backend = "communicator" if communicator else self.backend(actors)
        from collective.group import DriverGroup  # noqa: PLC0415  drawing needs none of it

        may_fall_back = self.transport is None
        return DriverGroup(host, actors, backend, communicator, may_fall_back=may_fall_back)

    def bind_rank(
        self, context: ActorContext, group_id: int, rank: int, places: Sequence[Place]
    ) -> RankOperation | RankBarrier:
        """Return this rank's part, in its actor's process."""
        from collective.plain import PlainOperation  # noqa: PLC0415  as above
        from collective.rank import RankBarrier  # noqa: PLC0415
        from collective.rank_operation import RankOperation  # noqa: PLC0415

        if self.kind == BARRIER:
            return RankBarrier(context, group_id, rank, places, str(self))
        part = PlainOperation if PlainOperation.fits(self, rank) else RankOperation
        return part(context, group_id, rank, places, self)


def parse_transport(transport: object) -> tuple[Backend | None, Communicator | None]:
    """Return the backend or the communicator that `transport` is; neither is our choice.

    Raises:
        ValueError: It is none of these; names the valid ones.
    """
    if isinstance(transport, Communicator):
        return None, transport
    match transport:
        case None | "auto" | "accelerator":
            return None, None
        case "gloo" | "nccl" | "shm" | "cuda_ipc":
            return transport, None
    msg = (
        f"transport={transport!r}: use None, 'auto', 'accelerator', 'gloo', 'nccl', 'shm', "
        "'cuda_ipc', or an instance of compiled_dag.Communicator"
    )
    if isinstance(transport, ReduceOp):
        msg += ". A reduce op is given as op=, to operations that reduce"
    raise ValueError(msg)


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
    hint = ""
    if op in ("gloo", "nccl", "shm", "cuda_ipc") or isinstance(op, Communicator):
        hint = ". A backend is given as transport="
    elif isinstance(op, str) and op.upper() in ReduceOp.__members__:
        hint = f". Names are no ops: ReduceOp.{op.upper()}"
    msg = f"op={op!r} is not a reduce op: use one of {valid}{hint}"
    raise ValueError(msg)


def parse_inputs(name: str, inputs: object) -> tuple[list[list[Any]], bool]:
    """Return the lists of nodes that are given, one for each bucket, and whether there are lists.

    Raises:
        GraphError: `inputs` is no list or tuple of nodes, or of lists of nodes.
    """
    if not isinstance(inputs, (list, tuple)):
        msg = (
            f"{name}.bind takes a list with one node per actor, [actor.method.bind(...) for actor "
            f"in actors], not {type(inputs).__name__}"
        )
        raise GraphError(msg)
    nested = [isinstance(one, (list, tuple)) for one in inputs]
    if not any(nested):
        return [list(inputs)], False
    if not all(nested):
        odd = nested.index(False)
        msg = (
            f"{name}.bind takes nodes, or lists of nodes, one list for each tensor: input {odd} "
            f"({inputs[odd]!r}) is no list, and input {nested.index(True)} is one"
        )
        raise GraphError(msg)
    return [list(one) for one in inputs], True


def check_options(
    kind: Kind, *, nested: bool, bucket_bytes: object, inplace: object, uneven: object
) -> None:
    """Refuse options that an operation does not have.

    Raises:
        GraphError: It has not; names option and operation.
        ValueError: The option's value is none.
    """
    for option, flag in (("inplace", inplace), ("uneven", uneven)):
        if not isinstance(flag, bool):
            msg = f"{kind.name}: {option}={flag!r} is neither True nor False"
            raise ValueError(msg)  # noqa: TRY004  as for every other option
    if bucket_bytes is not None:
        if isinstance(bucket_bytes, bool) or not isinstance(bucket_bytes, int) or bucket_bytes < 1:
            msg = f"{kind.name}: bucket_bytes={bucket_bytes!r} is no number of bytes: at least 1"
            raise ValueError(msg)
        if not nested:
            msg = (
                f"{kind.name}: bucket_bytes={bucket_bytes} divides the tensors of several lists "
                "into messages, and one list of nodes is given. Leave it out"
            )
            raise GraphError(msg)
    if inplace and not kind.in_place:
        msg = (
            f"{kind.name}: inplace=True is of allreduce, reduce and broadcast, whose results are "
            "as large as the inputs. Leave it out"
        )
        raise GraphError(msg)
    if uneven and not kind.may_be_uneven:
        msg = (
            f"{kind.name}: uneven=True is of allgather, gather, scatter and all_to_all. Leave it "
            "out"
        )
        raise GraphError(msg)


def check_root(name: str, root: object, world_size: int, what: str = "", who: str = "") -> int:
    """Return the special rank of an operation.

    Args:
        name: What the argument is called.
        root: What is given.
        world_size: Number of ranks.
        what: The operation, for the message.
        who: Who has which rank, for the message.

    Raises:
        ValueError: It is no rank.
    """
    if isinstance(root, bool) or not isinstance(root, int) or not 0 <= root < world_size:
        last = world_size - 1
        where = f"{what}: " if what else ""
        msg = f"{where}{name}={root!r} is no rank of the {world_size} given, 0 to {last}"
        raise ValueError(f"{msg}; {who}" if who else msg)
    return root
