"""The operations as actors call them: ``allreduce(tensor, group_name)``. In place.

Each is the other half of an operation of `collective.bind`: the same object draws it into graphs
(``allreduce.bind(nodes)``) and does it at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from collective import kinds
from collective.kinds import DEFAULT_GROUP
from collective.ops import ReduceOp, check_root, parse_reduce_op
from compiled_dag.keywords import strict_keywords

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collective.kinds import Kind
    from collective.lane import Work
    from collective.member import Member


def _member(what: str, group_name: str) -> Member:
    from collective.eager import find_group  # noqa: PLC0415  drawing needs none of it

    return find_group(what, group_name)


class Call:
    """What calls have in common.

    They are for methods of actors that are in a group (`create_collective_group`,
    `init_collective_group`). All ranks call the same operations of a group in the same order;
    tensors are `torch.Tensor` or `numpy.ndarray` and are written in place. Every call compares
    operation, dtype, shape and device on all ranks before anything is moved.

    With ``async_op=True`` a call returns a `Work` at once, and its tensors are the operation's
    until ``work.wait()`` has returned. Without, it returns None when this rank has its result.

    Every call raises `RuntimeError` where there is no such group or this is no actor; `ValueError`
    for a rank or `op` that is none; `CollectiveMismatchError` on every rank where ranks bring
    different things; `ValueError` or `TypeError` for what is no tensor or cannot be reduced, on the
    rank that brings it, and the same as a `TaskError` on the others; `CollectiveTimeoutError` on
    every rank where one did not come within the group's `timeout_s`; `ActorDiedError` on every rank
    where one died. The last two break the group: destroy it, and create it again.
    """

    _kind: Kind

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Have wrong arguments told by the name that users call."""
        super().__init_subclass__(**kwargs)
        call: Any = cls.__call__
        for function in (call, getattr(call, "__wrapped__", call)):
            function.__name__ = function.__qualname__ = f"collective.{cls._kind.name}"

    def _call(
        self,
        group_name: str,
        one: Any,
        many: Any = None,
        *,
        op: ReduceOp | None = None,
        root: int = 0,
        async_op: bool = False,
    ) -> Work | None:
        from collective.operands import Operands  # noqa: PLC0415  it needs torch

        kind = self._kind
        if isinstance(root, str):
            msg = f"{kind.name}: {kind.root}={root!r} is no rank; a group is given as group_name="
            raise ValueError(msg)  # noqa: TRY004  as for every rank that is none
        member = _member(kind.name, group_name)
        reduce_op = parse_reduce_op(op).value if kind.reduces else None
        inside = [reduce_op] if reduce_op else []
        if kind.root:
            check_root(kind.root, root, member.world_size, kind.name)
            inside.insert(0, f"{kind.root}={root}")
        text = f"{kind.name}({', '.join(inside)})" if inside else kind.name
        seat = (member.rank, member.world_size)
        return member.collective(
            text, lambda: Operands(kind, reduce_op, root, *seat, one, many), async_op=async_op
        )


class AllReduceCall(Call):
    """Reduce a tensor over all ranks, in place; every rank gets the result."""

    _kind = kinds.ALLREDUCE

    @strict_keywords
    def __call__(
        self,
        tensor: Any,
        group_name: str = DEFAULT_GROUP,
        op: ReduceOp = ReduceOp.SUM,
        *,
        async_op: bool = False,
    ) -> Work | None:
        """Reduce `tensor` over the group; it has the result on every rank.

        Args:
            tensor: Of the same shape and dtype on all ranks.
            group_name: The group.
            op: How to reduce; AVG needs a floating-point or complex dtype, bitwise ones integers.
            async_op: Return a `Work` at once.
        """
        return self._call(group_name, tensor, op=op, async_op=async_op)


class AllGatherCall(Call):
    """Give every rank the tensors of all."""

    _kind = kinds.ALLGATHER

    @strict_keywords
    def __call__(
        self,
        tensor_list: Sequence[Any],
        tensor: Any,
        group_name: str = DEFAULT_GROUP,
        *,
        async_op: bool = False,
    ) -> Work | None:
        """Put every rank's `tensor` into `tensor_list`, by rank.

        Args:
            tensor_list: One tensor for each rank, as `tensor` is; written to.
            tensor: Of the same shape and dtype on all ranks.
            group_name: The group.
            async_op: Return a `Work` at once.
        """
        return self._call(group_name, tensor, tensor_list, async_op=async_op)


class ReduceScatterCall(Call):
    """Reduce a list of tensors over all ranks; rank r gets tensor r of the result."""

    _kind = kinds.REDUCESCATTER

    @strict_keywords
    def __call__(
        self,
        tensor: Any,
        tensor_list: Sequence[Any],
        group_name: str = DEFAULT_GROUP,
        op: ReduceOp = ReduceOp.SUM,
        *,
        async_op: bool = False,
    ) -> Work | None:
        """Reduce tensor r of every rank's `tensor_list` into the `tensor` of rank r.

        Args:
            tensor: Written to; of the same shape and dtype on all ranks.
            tensor_list: One tensor for each rank, as `tensor` is; left as they are.
            group_name: The group.
            op: How to reduce.
            async_op: Return a `Work` at once.
        """
        return self._call(group_name, tensor, tensor_list, op=op, async_op=async_op)


class BroadcastCall(Call):
    """Give the tensor of one rank to all, in place."""

    _kind = kinds.BROADCAST

    @strict_keywords
    def __call__(
        self,
        tensor: Any,
        src_rank: int = 0,
        group_name: str = DEFAULT_GROUP,
        *,
        async_op: bool = False,
    ) -> Work | None:
        """Overwrite `tensor` on every rank with that of rank `src_rank`.

        Args:
            tensor: Of the same shape and dtype on all ranks.
            src_rank: The rank whose tensor it is.
            group_name: The group.
            async_op: Return a `Work` at once.
        """
        return self._call(group_name, tensor, root=src_rank, async_op=async_op)


class ReduceCall(Call):
    """Reduce a tensor over all ranks; one of them gets the result, in place."""

    _kind = kinds.REDUCE

    @strict_keywords
    def __call__(
        self,
        tensor: Any,
        dst_rank: int = 0,
        group_name: str = DEFAULT_GROUP,
        op: ReduceOp = ReduceOp.SUM,
        *,
        async_op: bool = False,
    ) -> Work | None:
        """Reduce `tensor` over the group into that of rank `dst_rank`; the others keep theirs.

        Args:
            tensor: Of the same shape and dtype on all ranks.
            dst_rank: The rank that gets the result.
            group_name: The group.
            op: How to reduce.
            async_op: Return a `Work` at once.
        """
        return self._call(group_name, tensor, op=op, root=dst_rank, async_op=async_op)


class GatherCall(Call):
    """Give one rank the tensors of all."""

    _kind = kinds.GATHER

    @strict_keywords
    def __call__(
        self,
        tensor: Any,
        tensor_list: Sequence[Any] | None = None,
        dst_rank: int = 0,
        group_name: str = DEFAULT_GROUP,
        *,
        async_op: bool = False,
    ) -> Work | None:
        """Put every rank's `tensor` into the `tensor_list` of rank `dst_rank`, by rank.

        Args:
            tensor: Of the same shape and dtype on all ranks.
            tensor_list: On rank `dst_rank` one tensor for each rank; None elsewhere, or unused.
            dst_rank: The rank that gets them.
            group_name: The group.
            async_op: Return a `Work` at once.
        """
        return self._call(group_name, tensor, tensor_list, root=dst_rank, async_op=async_op)


class ScatterCall(Call):
    """Give each rank one of the tensors of one rank."""

    _kind = kinds.SCATTER

    @strict_keywords
    def __call__(
        self,
        tensor: Any,
        tensor_list: Sequence[Any] | None = None,
        src_rank: int = 0,
        group_name: str = DEFAULT_GROUP,
        *,
        async_op: bool = False,
    ) -> Work | None:
        """Put tensor r of the `tensor_list` of rank `src_rank` into the `tensor` of rank r.

        Args:
            tensor: Written to; of the same shape and dtype on all ranks.
            tensor_list: On rank `src_rank` one tensor for each rank; None elsewhere, or unused.
            src_rank: The rank that has them.
            group_name: The group.
            async_op: Return a `Work` at once.
        """
        return self._call(group_name, tensor, tensor_list, root=src_rank, async_op=async_op)


class AllToAllCall(Call):
    """Give each rank one tensor of every rank."""

    _kind = kinds.ALL_TO_ALL

    @strict_keywords
    def __call__(
        self,
        output_list: Sequence[Any],
        input_list: Sequence[Any],
        group_name: str = DEFAULT_GROUP,
        *,
        async_op: bool = False,
    ) -> Work | None:
        """Put tensor r of every rank's `input_list` into the `output_list` of rank r, by rank.

        Args:
            output_list: One tensor for each rank; written to.
            input_list: One tensor for each rank; all of the same shape and dtype, on all ranks.
            group_name: The group.
            async_op: Return a `Work` at once.
        """
        from collective.operands import ListOperands  # noqa: PLC0415  it needs torch

        kind = self._kind
        member = _member(kind.name, group_name)
        return member.collective(
            kind.name,
            lambda: ListOperands(kind, member.world_size, output_list, input_list),
            async_op=async_op,
        )


class BarrierCall(Call):
    """Wait until all ranks are there."""

    _kind = kinds.BARRIER

    @strict_keywords
    def __call__(self, group_name: str = DEFAULT_GROUP, *, async_op: bool = False) -> Work | None:
        """Return when every rank of the group has called this.

        Args:
            group_name: The group.
            async_op: Return a `Work` at once; the others need not wait for its `wait`.
        """
        return _member("barrier", group_name).barrier(async_op=async_op)


@strict_keywords
def send(
    tensor: Any, dst_rank: int, group_name: str = DEFAULT_GROUP, *, async_op: bool = False
) -> Work | None:
    """Send a tensor to another rank of a group; returns when that has begun to `recv` it.

    Messages between two ranks arrive in the order in which they were sent. They go through shared
    memory, on every backend; shape and dtype are compared with those of `recv` first.

    Args:
        tensor: `torch.Tensor` or `numpy.ndarray`.
        dst_rank: The rank that receives it.
        group_name: The group.
        async_op: Return a `Work` at once: two ranks that send to each other need it.

    Raises:
        RuntimeError: There is no such group, this is no actor, or `dst_rank` is this rank.
        ValueError: `dst_rank` is no rank, or `tensor` is none.
        CollectiveMismatchError: `recv` was given another shape or dtype; raised there, too.
        CollectiveTimeoutError: It did not come within the group's `timeout_s`, which is broken now.
        ActorDiedError: A member of the group died.
    """
    return _message("send", tensor, "dst_rank", dst_rank, group_name, async_op=async_op)


@strict_keywords
def recv(
    tensor: Any, src_rank: int, group_name: str = DEFAULT_GROUP, *, async_op: bool = False
) -> Work | None:
    """Receive a tensor from another rank of a group, in place.

    Args:
        tensor: `torch.Tensor` or `numpy.ndarray` of the shape and dtype that is sent; written to.
        src_rank: The rank that sends it.
        group_name: The group.
        async_op: Return a `Work` at once.

    Raises:
        Exception: As `send`.
    """
    return _message("recv", tensor, "src_rank", src_rank, group_name, async_op=async_op)


def _message(
    what: str, tensor: Any, name: str, peer: int, group_name: str, *, async_op: bool
) -> Work | None:
    from collective.operands import as_tensor  # noqa: PLC0415  it needs torch

    member = _member(what, group_name)
    check_root(name, peer, member.world_size)
    if peer == member.rank:
        msg = f"{what}({name}={peer}) of group {group_name!r}: this is rank {peer} itself"
        raise RuntimeError(msg)
    sends = what == "send"
    return member.message(
        peer,
        lambda: as_tensor(tensor, "the tensor", writes=not sends),
        sends=sends,
        async_op=async_op,
    )
