"""Why a rank's tensors cannot take part in an operation, before any rank touches the backend."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, Final

from collective.record import MAX_DIMS
from compiled_dag.channel import tensor as tensors
from compiled_dag.errors import CollectiveMismatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from collective.ops import Operation
    from collective.process_group import ProcessGroup


_NAMED: Final = 4
"""How many lists of a kind a message names."""


def why_not(
    operation: Operation, group: ProcessGroup, world_size: int, values: Sequence[Any]
) -> Exception | None:
    """Return what speaks against what a rank brings to an operation, or None."""
    several = len(values) > 1
    for bucket, value in enumerate(values):
        who = f"{operation}, bucket {bucket}" if several else str(operation)
        if not (tensors.is_tensor(type(value)) or tensors.is_parameter(type(value))):
            return ValueError(f"{who} takes a torch.Tensor, not {_kind_and_remedy(value)}")
        why = _why_not_one(operation, group, value)
        if why is not None:
            return TypeError(f"{who}: {why}")
        why = operation.kind.why_not(tuple(value.shape), world_size, uneven=operation.uneven)
        if why is not None:
            return CollectiveMismatchError(f"{who}: {why}")
        why = _why_not_overwritten(value) if operation.inplace else None
        if why is not None:
            return ValueError(f"{who}: {why}")
    why = _why_not_together(values)
    return None if why is None else ValueError(f"{operation}: {why}")


def _kind_and_remedy(value: Any) -> str:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, (list, tuple, dict)):
        return (
            f"{kind}: for several tensors in one operation, give a list of nodes for each, as in "
            "[[a0, b0], [a1, b1]], of methods that return one tensor each or have num_returns"
        )
    if hasattr(value, "__array_interface__"):
        return f"{kind}: return torch.from_numpy(array)"
    return kind


def _why_not_one(operation: Operation, group: ProcessGroup, value: torch.Tensor) -> str | None:
    why = why_not_dense(value)
    if why is not None or operation.op is None:
        return why
    return group.why_not(value, operation.op.value)


def why_not_dense(tensor: torch.Tensor) -> str | None:
    """Return why a tensor cannot be sent at all, or None."""
    if not tensors.is_plain(tensor):
        return f"{_kind_of(tensor)} is not supported"
    if tensor.dim() > MAX_DIMS:
        return f"{tensor.dim()} dimensions are more than {MAX_DIMS}"
    return None


def _kind_of(tensor: torch.Tensor) -> str:
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.is_quantized:
        return f"the quantized dtype {tensor.dtype}"
    if tensor.device.type not in ("cpu", "cuda"):
        return f"device {tensor.device}"
    return f"the layout {tensor.layout}"


def overlaps(tensor: torch.Tensor) -> bool:
    """Tell whether elements share memory, as those of an expanded tensor do."""
    if tensor.is_contiguous() or not tensor.numel():
        return False
    steps = sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1)
    reach = 0
    for stride, of in steps:
        if not stride:
            return True
        if stride <= reach:  # steps that cross each other: few have them, and most of those overlap
            return _meet(steps)
        reach += stride * (of - 1)
    return False


def _meet(steps: Sequence[tuple[int, int]]) -> bool:
    """Tell whether two elements have one place, given every dimension's stride and size."""
    import numpy as np  # noqa: PLC0415  it is there where tensors are

    places = np.zeros(1, np.int64)
    for stride, of in steps:
        places = np.unique(places[:, None] + stride * np.arange(of))
    return len(places) < math.prod(of for _, of in steps)


def sharing(many: Sequence[torch.Tensor]) -> tuple[int, int] | None:
    """Return the positions of two tensors that have elements in the same memory, or None."""
    spans = sorted((*_span(one), number) for number, one in enumerate(many) if one.numel())
    if all(before[1] <= after[0] for before, after in itertools.pairwise(spans)):
        return None
    for position, (begin, _, number) in enumerate(spans):
        for _, end, earlier in spans[:position]:
            if begin < end and _share(many[earlier], many[number]):
                return min(earlier, number), max(earlier, number)
    return None


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the addresses of a tensor's first byte, and behind its last one."""
    begin, item = tensor.data_ptr(), tensor.element_size()
    if tensor.is_contiguous():
        return begin, begin + tensor.nbytes
    steps = zip(tensor.stride(), tensor.shape, strict=True)
    return begin, begin + item * (1 + sum(stride * (of - 1) for stride, of in steps))


def _share(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether an element of two tensors is in the same place: columns of a matrix are not."""
    import numpy as np  # noqa: PLC0415  as above

    return np.shares_memory(np.asarray(_Places(one)), np.asarray(_Places(other)))


class _Places:
    """Where a tensor's elements are, for NumPy to reason about: nothing is read."""

    def __init__(self, tensor: torch.Tensor) -> None:
        item = tensor.element_size()
        self.__array_interface__ = {
            "version": 3,
            "typestr": f"|V{item}",
            "data": (tensor.data_ptr(), False),
            "shape": tuple(tensor.shape),
            "strides": tuple(stride * item for stride in tensor.stride()),
        }


def _why_not_overwritten(value: torch.Tensor) -> str | None:
    if value.is_inference():
        return "inplace=True cannot overwrite a tensor made in torch.inference_mode"
    if overlaps(value):
        return (
            "inplace=True cannot overwrite a tensor whose elements share memory (expand, "
            "as_strided): return tensor.contiguous()"
        )
    return None


def _why_not_together(values: Sequence[torch.Tensor]) -> str | None:
    for name in ("dtype", "device"):
        of: dict[str, list[int]] = {}
        for bucket, value in enumerate(values):
            of.setdefault(str(getattr(value, name)), []).append(bucket)
        if len(of) > 1:
            found = "; ".join(f"{one} in {_positions(buckets)}" for one, buckets in of.items())
            return (
                f"the tensors of one rank are sent together, also with bucket_bytes, and must have "
                f"one {name}: there is {found}. Bind one operation for each {name}, with the lists "
                "of that one, or have the method return all in one"
            )
    return None


def _positions(buckets: Sequence[int]) -> str:
    """Return what lists are called; of many, the first ones."""
    more = f" and {len(buckets) - _NAMED} more" if len(buckets) > _NAMED else ""
    names = ", ".join(map(str, buckets[:_NAMED]))
    return f"bucket{'s' if len(buckets) > 1 else ''} {names}{more}"
