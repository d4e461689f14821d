"""Why a rank's tensors cannot take part in an operation, before any rank touches the backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from collective.record import MAX_DIMS
from compiled_dag.channel import tensor as tensors
from compiled_dag.errors import CollectiveMismatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from collective.ops import Operation
    from collective.process_group import ProcessGroup


def why_not(
    operation: Operation, group: ProcessGroup, world_size: int, values: Sequence[Any]
) -> Exception | None:
    """Return what speaks against what a rank brings to an operation, or None."""
    several = len(values) > 1
    for bucket, value in enumerate(values):
        who = f"{operation}, bucket {bucket}" if several else str(operation)
        if not (tensors.is_tensor(type(value)) or tensors.is_parameter(type(value))):
            kind = type(value)
            text = f"{who} takes a torch.Tensor, not {kind.__module__}.{kind.__qualname__}"
            return ValueError(text)
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
    return any(
        not stride and of > 1 for stride, of in zip(tensor.stride(), tensor.shape, strict=True)
    )


def _why_not_overwritten(value: torch.Tensor) -> str | None:
    if value.is_inference():
        return "inplace=True cannot overwrite a tensor made in torch.inference_mode"
    if overlaps(value):
        return "inplace=True cannot overwrite an expanded tensor, whose elements share memory"
    return None


def _why_not_together(values: Sequence[torch.Tensor]) -> str | None:
    for name in ("dtype", "device"):
        found = [str(getattr(value, name)) for value in values]
        odd = next((bucket for bucket, one in enumerate(found) if one != found[0]), None)
        if odd is not None:
            return (
                f"the tensors of one rank travel in one message and must have one {name}, but "
                f"bucket 0 has {found[0]} and bucket {odd} has {found[odd]}"
            )
    return None
