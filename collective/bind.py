"""The operations as users have them: ``allreduce.bind(nodes, op=ReduceOp.AVG)``.

Called, in actors, they are done at once: `collective.calls`. What all `bind` have in common:

The tensors must agree in shape and dtype, which is checked on every execution before the
backend is touched. The inputs are left as they are. `input_nodes` has one node per actor; a
node's position is its rank. `transport` is what does it: ``"gloo"``, ``"nccl"``, ``"shm"``
(shared memory: for CPU tensors, and faster than gloo), or a `Communicator` of the same actors;
None (or ``"auto"``, ``"accelerator"``) for NCCL where every actor has a GPU of its own,
``"cuda_ipc"`` where all share one (its memory is shared; gloo if that is refused, which
`explain` tells), and gloo otherwise. With ``"shm"`` and ``"cuda_ipc"`` all ranks get the same
bits, added in the order of the ranks.

**Several tensors in one operation**: `input_nodes` may be several lists of nodes, each with
the same actors in the same order, called buckets. All tensors of a rank, which have one dtype,
travel in one message, or in messages of at most ``bucket_bytes``. Shapes may differ between
buckets. With two lists or more, there is then in place of every rank's node a list, with a node
for each bucket; the results may be views of one piece of memory, which is the rank's own.

**``inplace=True``** puts results where the inputs are, which saves a copy and the memory for
it. It says that nobody needs the input any more: no other node reads it, which is checked, and
what the method that returned it keeps of it (an attribute of the actor, say) may be
overwritten, which is up to you. The tensor must be memory that may be written: not what
`torch.from_numpy` makes of an array that came from another process. If the backend fails, what
is in it is undefined. Methods bound later may run before the result is there (below), and must
not write to it. With `broadcast` every rank then brings a tensor like the source's.

**While allreduce, reduce and broadcast run**, so do the methods of their actors that are bound
later and do not need the result, up to the next value that comes, goes or is reduced: bind an
operation as soon as its inputs are bound, and it is hidden behind what is bound next.

**``uneven=True``** lets ranks bring tensors of different first dimensions to `allgather` and
`gather`, and divides such as do not divide in `scatter` and `all_to_all`: of d0 rows for W
ranks, the first ``d0 % W`` ranks get one row more than the others, as with
`numpy.array_split`. Ranks learn of each other's shapes when they meet. In `gather`, `scatter`
and `all_to_all` every part then travels as if it were as long as the longest one.

Every `bind` raises `GraphError` for inputs that are empty, no list, no nodes of actors, or two
nodes of one actor, for lists of different actors, for an option that the operation does not
have, and for an input of ``inplace=True`` that others read (when compiled); and `ValueError`
for another argument that is none of the valid ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from collective import calls, kinds
from collective.draw import Drawing
from collective.ops import ReduceOp, parse_inputs
from compiled_dag.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Never

    from compiled_dag.communicator import Communicator


class _Moving(Drawing):
    """Every rank brings a tensor and gets one."""

    def bind(
        self,
        input_nodes: Sequence[Any],
        transport: str | Communicator | None = None,
        *,
        bucket_bytes: int | None = None,
        inplace: bool = False,
        uneven: bool = False,
        **unknown: Never,
    ) -> list[Any]:
        """Draw it; returns what each rank gets: a node; of two lists or more, a list of nodes.

        `help(collective.bind)` says more.

        Args:
            input_nodes: One node of each actor (a position is a rank); or several such lists.
            transport: None or "auto" (by the actors' GPUs), "gloo", "nccl", "shm", "cuda_ipc", or a
                `Communicator`.
            bucket_bytes: With several lists: several messages of at most so many bytes of a rank's
                tensors, in order; a tensor that is larger goes alone.
            inplace: Of other operations (allreduce, reduce, broadcast).
            uneven: Let first dimensions differ, or not divide; they must agree otherwise.
            unknown: Nothing: what is here is refused, with the name that may be meant.

        Raises:
            GraphError: The inputs are not such, or the operation does not have an option.
            ValueError: Another argument is none of the valid ones.
            TypeError: There is no such option.
        """
        return self._draw(
            input_nodes,
            transport,
            bucket_bytes=bucket_bytes,
            inplace=inplace,
            uneven=uneven,
            unknown=unknown,
        )


class _Reducing(Drawing):
    """Tensors of one shape are reduced, for all ranks."""

    def bind(
        self,
        input_nodes: Sequence[Any],
        op: ReduceOp = ReduceOp.SUM,
        transport: str | Communicator | None = None,
        *,
        bucket_bytes: int | None = None,
        inplace: bool = False,
        uneven: bool = False,
        **unknown: Never,
    ) -> list[Any]:
        """Draw it; returns what each rank gets: a node; of two lists or more, a list of nodes.

        `help(collective.bind)` says more.

        Args:
            input_nodes: One node of each actor (a position is a rank); or several such lists.
            op: How to reduce; AVG needs a floating-point or complex dtype, bitwise ones integers.
            transport: None or "auto" (by the actors' GPUs), "gloo", "nccl", "shm", "cuda_ipc", or a
                `Communicator`.
            bucket_bytes: With several lists: several messages of at most so many bytes of a rank's
                tensors, in order; a tensor that is larger goes alone.
            inplace: allreduce: put results where the inputs are, which nobody else may read then.
            uneven: Of other operations (allgather, gather, scatter, all_to_all).
            unknown: Nothing: what is here is refused, with the name that may be meant.

        Raises:
            GraphError: The inputs are not such, or the operation does not have an option.
            ValueError: Another argument is none of the valid ones.
            TypeError: There is no such option.
        """
        return self._draw(
            input_nodes,
            transport,
            op=op,
            bucket_bytes=bucket_bytes,
            inplace=inplace,
            uneven=uneven,
            unknown=unknown,
        )


class _FromOne(Drawing):
    """One rank's tensor goes to all.

    What the other ranks bring only says when they are there, and is not looked at; in place of a
    node they may have their actor.
    """

    def bind(
        self,
        input_nodes: Sequence[Any],
        src_rank: int = 0,
        transport: str | Communicator | None = None,
        *,
        bucket_bytes: int | None = None,
        inplace: bool = False,
        uneven: bool = False,
        **unknown: Never,
    ) -> list[Any]:
        """Draw it; returns what each rank gets: a node; of two lists or more, a list of nodes.

        `help(collective.bind)` says more.

        Args:
            input_nodes: One node of each actor (a position is a rank); or several such lists.
            src_rank: The rank whose tensor it is.
            transport: None or "auto" (by the actors' GPUs), "gloo", "nccl", "shm", "cuda_ipc", or a
                `Communicator`.
            bucket_bytes: With several lists: several messages of at most so many bytes of a rank's
                tensors, in order; a tensor that is larger goes alone.
            inplace: broadcast: put results where the inputs are, which nobody else may read then.
            uneven: scatter: let the first dimension not divide.
            unknown: Nothing: what is here is refused, with the name that may be meant.

        Raises:
            GraphError: The inputs are not such, or the operation does not have an option.
            ValueError: Another argument is none of the valid ones.
            TypeError: There is no such option.
        """
        return self._draw(
            input_nodes,
            transport,
            special=src_rank,
            bucket_bytes=bucket_bytes,
            inplace=inplace,
            uneven=uneven,
            unknown=unknown,
        )


class AllReduceOperation(calls.AllReduceCall, _Reducing):
    """Reduce the tensors of several actors; each gets the result, of the input's shape."""

    _kind = kinds.ALLREDUCE


class AllGatherOperation(calls.AllGatherCall, _Moving):
    """Join the tensors of several actors along the first dimension: ``(d0 * W, ...)`` for all."""

    _kind = kinds.ALLGATHER


class ReduceScatterOperation(calls.ReduceScatterCall, _Reducing):
    """Reduce the tensors of several actors; rank r gets part r of the result: ``(d0 / W, ...)``."""

    _kind = kinds.REDUCESCATTER


class BroadcastOperation(calls.BroadcastCall, _FromOne):
    """Give the tensor of one actor to all."""

    _kind = kinds.BROADCAST


class ScatterOperation(calls.ScatterCall, _FromOne):
    """Divide one actor's tensor along the first dimension; rank r gets part r of it."""

    _kind = kinds.SCATTER


class AllToAllOperation(calls.AllToAllCall, _Moving):
    """Divide every actor's tensor along the first dimension; rank r gets part r of each, joined."""

    _kind = kinds.ALL_TO_ALL


class ReduceOperation(calls.ReduceCall, Drawing):
    """Reduce the tensors of several actors; one of them gets the result, of the input's shape."""

    _kind = kinds.REDUCE

    def bind(
        self,
        input_nodes: Sequence[Any],
        dst_rank: int = 0,
        op: ReduceOp = ReduceOp.SUM,
        transport: str | Communicator | None = None,
        *,
        bucket_bytes: int | None = None,
        inplace: bool = False,
        uneven: bool = False,
        **unknown: Never,
    ) -> Any:
        """Draw it; returns what `dst_rank` gets: one node; of two lists or more, a list.

        `help(collective.bind)` says more.

        Args:
            input_nodes: One node of each actor (a position is a rank); or several such lists.
            dst_rank: The rank that gets the result.
            op: How to reduce; AVG needs a floating-point or complex dtype, bitwise ones integers.
            transport: None or "auto" (by the actors' GPUs), "gloo", "nccl", "shm", "cuda_ipc", or a
                `Communicator`.
            bucket_bytes: With several lists: several messages of at most so many bytes of a rank's
                tensors, in order; a tensor that is larger goes alone.
            inplace: Put the results where the inputs are, which nobody else may read then.
            uneven: Of other operations (allgather, gather, scatter, all_to_all).
            unknown: Nothing: what is here is refused, with the name that may be meant.

        Raises:
            GraphError: The inputs are not such, or the operation does not have an option.
            ValueError: Another argument is none of the valid ones.
            TypeError: There is no such option.
        """
        drawn = self._draw(
            input_nodes,
            transport,
            op=op,
            special=dst_rank,
            bucket_bytes=bucket_bytes,
            inplace=inplace,
            uneven=uneven,
            unknown=unknown,
        )
        return drawn[dst_rank]


class GatherOperation(calls.GatherCall, Drawing):
    """Join the tensors of several actors along the first dimension, on one: ``(d0 * W, ...)``."""

    _kind = kinds.GATHER

    def bind(
        self,
        input_nodes: Sequence[Any],
        dst_rank: int = 0,
        transport: str | Communicator | None = None,
        *,
        bucket_bytes: int | None = None,
        inplace: bool = False,
        uneven: bool = False,
        **unknown: Never,
    ) -> Any:
        """Draw it; returns what `dst_rank` gets: one node; of two lists or more, a list.

        `help(collective.bind)` says more.

        Args:
            input_nodes: One node of each actor (a position is a rank); or several such lists.
            dst_rank: The rank that gets the result.
            transport: None or "auto" (by the actors' GPUs), "gloo", "nccl", "shm", "cuda_ipc", or a
                `Communicator`.
            bucket_bytes: With several lists: several messages of at most so many bytes of a rank's
                tensors, in order; a tensor that is larger goes alone.
            inplace: Of other operations (allreduce, reduce, broadcast).
            uneven: Let first dimensions differ, or not divide; they must agree otherwise.
            unknown: Nothing: what is here is refused, with the name that may be meant.

        Raises:
            GraphError: The inputs are not such, or the operation does not have an option.
            ValueError: Another argument is none of the valid ones.
            TypeError: There is no such option.
        """
        return self._draw(
            input_nodes,
            transport,
            special=dst_rank,
            bucket_bytes=bucket_bytes,
            inplace=inplace,
            uneven=uneven,
            unknown=unknown,
        )[dst_rank]


class BarrierOperation(calls.BarrierCall, Drawing):
    """Wait until all actors are there. Values pass unchanged and may be of any type."""

    _kind = kinds.BARRIER

    def bind(self, input_nodes: Sequence[Any], **unknown: Never) -> list[Any]:
        """Draw it; returns one node per rank: its own value, once all ranks have theirs.

        Args:
            input_nodes: One node of each actor.
            unknown: Nothing: what is here is refused.

        Raises:
            GraphError: The inputs are not such.
            TypeError: There is no such option.
        """
        _, nested = parse_inputs(self._kind.name, input_nodes)
        if nested:
            msg = "barrier.bind takes one list of nodes, no lists of lists: it moves no tensors"
            raise GraphError(msg)
        return self._draw(input_nodes, unknown=unknown)


allreduce = AllReduceOperation()
allgather = AllGatherOperation()
reducescatter = ReduceScatterOperation()
broadcast = BroadcastOperation()
reduce = ReduceOperation()
gather = GatherOperation()
scatter = ScatterOperation()
all_to_all = AllToAllOperation()
barrier = BarrierOperation()
