"""What one rank brings to an eager operation, and where it wants the result: in its own tensors.

A backend works on contiguous memory where it can reach it. Tensors that are so already are used
themselves; for others there is a copy, and one back.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from collective.refusals import overlaps, sharing, why_not_dense

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collective.kinds import Kind
    from collective.process_group import ProcessGroup


class Operands:
    """One rank's tensors in one operation."""

    def __init__(
        self,
        kind: Kind,
        op: str | None,
        root: int,
        rank: int,
        world_size: int,
        one: Any,
        many: Any = None,
    ) -> None:
        """Check and take the user's tensors.

        Args:
            kind: The operation; not a barrier.
            op: How to reduce, if it does.
            root: Its special rank, if it has one.
            rank: This one.
            world_size: Number of ranks.
            one: The tensor of one part, or all there is.
            many: A tensor for each rank, where the operation and the rank have them.

        Raises:
            ValueError: A tensor is none, or cannot be written; a list is wrong.
            TypeError: NumPy's dtype has no counterpart.
        """
        self.kind = kind
        self.op = op
        self.root = root
        self._gets = kind.gets(rank, root)
        self._brings = kind.brings(rank, root)
        self._is_source = kind.root == "src_rank" and self._brings
        self._world_size = world_size
        self._divides_list = kind.divides and kind.result == "part"
        """Whether this rank brings many and gets one; otherwise it gets many, or one."""
        self._keeps = kind.in_place and not self._gets
        """Whether its tensor must stay as it is, although the backend works in place."""
        writes = self._divides_list or (kind.in_place and self._gets and not self._is_source)
        self.tensor = as_tensor(one, "the tensor", writes=writes)
        self._many = self._take_many(many)
        self._result: torch.Tensor | None = None

    def _take_many(self, many: Any) -> list[torch.Tensor]:
        if self.kind.result == "same":
            return []
        needed = self._brings if self._divides_list else self._gets
        if not needed and many is None:
            return []
        found = as_tensors(many, self._world_size, writes=not self._divides_list)
        if not needed:
            return []
        check_alike(self.tensor, found)
        return found

    def buffers(self, group: ProcessGroup) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return what `ProcessGroup.run` is to be given: elements in a row, of no shape.

        Raises:
            RuntimeError: There is no memory.
        """
        one, kind = self.tensor, self.kind
        usable = _is_usable(one, group)
        if kind.in_place and group.in_place:
            if not usable or self._keeps:
                one = group.empty(tuple(one.shape), one.dtype, one.device).copy_(one)
            self._result = one
            return one.reshape(-1), one.reshape(-1)
        send = None
        if self._brings:
            send = group.stage(kind.name, self._whole(group).reshape(-1), self.op, self.root)
        if self._gets:
            joins = kind.result == "joined"
            if joins or not usable:
                shape = (self._world_size, *one.shape) if joins else tuple(one.shape)
                one = group.empty(shape, one.dtype, one.device)
            self._result = one
        return send, None if self._result is None else self._result.reshape(-1)

    def _whole(self, group: ProcessGroup) -> torch.Tensor:
        """Return all that this rank brings."""
        return _joined(self._many, group) if self._divides_list else self.tensor

    def finish(self) -> None:
        """Bring the result to where the user wants it."""
        result, self._result = self._result, None
        if result is None or self._keeps:
            return
        if self.op == "AVG":
            result /= self._world_size
        if self._many and not self._divides_list:
            for place, part in zip(self._many, result, strict=True):
                place.copy_(part)
        elif result.data_ptr() != self.tensor.data_ptr():
            self.tensor.copy_(result)


class ListOperands(Operands):
    """All-to-all: a list in, a list out."""

    def __init__(self, kind: Kind, world_size: int, outputs: Any, inputs: Any) -> None:
        """Check and take the user's tensors; raises as `Operands`."""
        self._inputs = as_tensors(inputs, world_size, writes=False)
        check_alike(self._inputs[0], self._inputs)
        super().__init__(kind, None, 0, 0, world_size, self._inputs[0])
        self._many = as_tensors(outputs, world_size, writes=True)
        check_alike(self._inputs[0], self._many)

    def buffers(self, group: ProcessGroup) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return what `ProcessGroup.run` is to be given."""
        send = _joined(self._inputs, group)
        self._result = group.empty(tuple(send.shape), send.dtype, send.device)
        return group.stage(self.kind.name, send.reshape(-1), None, 0), self._result.reshape(-1)


def as_tensor(value: Any, what: str, *, writes: bool) -> torch.Tensor:
    """Return a user's tensor or array as a tensor over the same memory.

    Args:
        value: `torch.Tensor` or `numpy.ndarray`.
        what: What messages call it.
        writes: Whether it will be written to.

    Raises:
        ValueError: It is neither, or an array that cannot be written to, or has negative strides;
            its elements share memory, and it is to be written to.
        TypeError: torch has no such dtype, or not in this order of bytes; the layout is not
            supported, or there are too many dimensions.
    """
    if isinstance(value, torch.Tensor):
        tensor = value.detach()
        _check_memory(tensor, what, writes=writes)
        return tensor
    if not isinstance(value, np.ndarray):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        msg = f"{what} must be a torch.Tensor or a numpy.ndarray, not {kind}"
        raise ValueError(msg)  # noqa: TRY004  as in graphs
    if writes and not value.flags.writeable:
        msg = f"{what} is a read-only array, and is to be written to: pass a copy, array.copy()"
        raise ValueError(msg)
    if not writes and not value.flags.writeable:
        value = value.copy()  # torch warns of what cannot be written to
    _check_array(value, what)
    tensor = torch.from_numpy(value)
    _check_memory(tensor, what, writes=writes)
    return tensor


def _check_array(array: np.ndarray[Any, Any], what: str) -> None:
    """Refuse an array that torch cannot have as it is in memory."""
    dtype = array.dtype
    if not dtype.isnative:
        msg = (
            f"{what} is an array of dtype {dtype.str!r}, whose bytes are in the order of other "
            "machines: pass a copy, array.astype(array.dtype.newbyteorder('='))"
        )
        raise TypeError(msg)
    if dtype.type not in _dtypes():
        msg = (
            f"{what} is an array of dtype {dtype}, which torch {torch.__version__} has none for: "
            "pass numbers of another dtype, such as array.astype(np.float64)"
        )
        raise TypeError(msg)
    if any(stride < 0 or stride % dtype.itemsize for stride in array.strides):
        msg = (
            f"{what} is an array with strides of {array.strides} bytes, and torch needs multiples "
            f"of the {dtype.itemsize} of {dtype}, none negative: pass a copy, array.copy()"
        )
        raise ValueError(msg)


@functools.cache
def _dtypes() -> frozenset[type[np.generic]]:
    """Return the types of numpy's that this torch has, too."""
    found = set()
    for kind in (np.bool_, *np.sctypeDict.values()):
        with contextlib.suppress(TypeError):  # torch has none like it
            torch.from_numpy(np.empty(0, kind))
            found.add(np.dtype(kind).type)
    return frozenset(found)


def _check_memory(tensor: torch.Tensor, what: str, *, writes: bool) -> None:
    why = why_not_dense(tensor)
    if why is not None:
        raise TypeError(f"{what}: {why}")
    if writes and overlaps(tensor):
        msg = (
            f"{what} has elements that share memory (expand, as_strided), and is to be written "
            "to: pass one with memory for each element, tensor.contiguous()"
        )
        raise ValueError(msg)


def _check_apart(many: Sequence[torch.Tensor]) -> None:
    """Refuse results that would overwrite each other."""
    shared = sharing(many)
    if shared is not None:
        first, second = shared
        same = many[first].data_ptr() == many[second].data_ptr()
        how = "begin at the same address" if same else "overlap"
        msg = (
            f"tensors {first} and {second} of the list share memory (they {how}), and each is to "
            "get the part of its rank: pass one for each rank, as [torch.empty_like(tensor) for _ "
            "in range(world_size)] makes them"
        )
        raise ValueError(msg)


def as_tensors(value: Any, world_size: int, *, writes: bool) -> list[torch.Tensor]:
    """Return a list of one tensor for each rank.

    Raises:
        ValueError: As `as_tensor`; it is no list, or not so long; two that will be written to share
            memory.
        TypeError: As `as_tensor`.
    """
    if not isinstance(value, (list, tuple)):
        kind = type(value).__name__
        msg = f"a list with one tensor for each of the {world_size} ranks is needed, not {kind}"
        raise ValueError(msg)  # noqa: TRY004  as in graphs
    if len(value) != world_size:
        msg = f"the list has {len(value)} tensors, and the group has {world_size} ranks"
        raise ValueError(msg)
    many = [as_tensor(one, f"tensor {n} of the list", writes=writes) for n, one in enumerate(value)]
    if writes:
        _check_apart(many)
    return many


def check_alike(one: torch.Tensor, many: Sequence[torch.Tensor]) -> None:
    """Refuse a list whose tensors are not as `one` is.

    Raises:
        ValueError: One differs.
    """
    for number, other in enumerate(many):
        if other.shape != one.shape or other.dtype != one.dtype or other.device != one.device:
            msg = (
                f"tensor {number} of the list has {_text(other)}, and {_text(one)} is needed, "
                "as all ranks have"
            )
            raise ValueError(msg)


def _text(tensor: torch.Tensor) -> str:
    return f"shape {tuple(tensor.shape)}, {tensor.dtype}, {tensor.device}"


def _is_usable(tensor: torch.Tensor, group: ProcessGroup) -> bool:
    """Tell whether the backend can work in a tensor's own memory."""
    plain = tensor.is_contiguous() and not (tensor.is_conj() or tensor.is_neg())
    return plain and group.empty((0,), tensor.dtype, tensor.device).device == tensor.device


def _joined(many: Sequence[torch.Tensor], group: ProcessGroup) -> torch.Tensor:
    """Return tensors one after the other, where the backend can read them."""
    one = many[0]
    joined = group.empty((len(many), *one.shape), one.dtype, one.device)
    for place, part in zip(joined, many, strict=True):
        place.copy_(part)
    return joined
