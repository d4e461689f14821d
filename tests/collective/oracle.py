"""What the operations are to give, by numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from collective.kinds import Kind
from compiled_dag import CollectiveMismatchError

REDUCE: dict[str, Any] = {
    "SUM": lambda stack: stack.sum(axis=0),
    "PRODUCT": lambda stack: stack.prod(axis=0),
    "MAX": lambda stack: stack.max(axis=0),
    "MIN": lambda stack: stack.min(axis=0),
    "AVG": lambda stack: stack.mean(axis=0),
    "BAND": np.bitwise_and.reduce,
    "BOR": np.bitwise_or.reduce,
    "BXOR": np.bitwise_xor.reduce,
}
BITWISE = ("BAND", "BOR", "BXOR")
FLOATS = ["float32", "float64", "float16", "bfloat16"]
COMPLEX = ["complex64", "complex128"]
DTYPES = [
    *(*FLOATS, *COMPLEX, "bool", "int8", "uint8", "int32", "int64"),
    *("int16", "uint16", "uint32", "uint64"),
]
LACKING = {
    "gloo": ("int16", "uint16", "uint32", "uint64"),
    "cuda_ipc": ("uint16", "uint32", "uint64"),
}
"""Dtypes that a backend cannot reduce."""


def small(shape: tuple[int, ...], dtype: str, seed: int) -> torch.Tensor:
    """Return small numbers that every dtype holds exactly, other ones for every seed."""
    numbers = (torch.arange(int(np.prod(shape))) * (seed % 5 + 3)) % 4 + seed % 3
    return numbers.reshape(shape).to(getattr(torch, dtype))


def numbers(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return a tensor as an array that numpy can calculate with exactly."""
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.double()
    return tensor.resolve_conj().numpy()


def expected(kind: Kind, op: str | None, root: int, inputs: list[Any]) -> list[Any]:
    """Return what every rank gets of one bucket, None where it gets nothing."""
    ranks = range(len(inputs))
    parts = [np.array_split(one, len(inputs)) if one.ndim else [] for one in inputs]
    match kind.name:
        case "allreduce":
            return [_reduced(inputs, op)] * len(inputs)
        case "reduce":
            return [_reduced(inputs, op) if rank == root else None for rank in ranks]
        case "reducescatter":
            return np.array_split(_reduced(inputs, op), len(inputs))
        case "broadcast":
            return [inputs[root]] * len(inputs)
        case "scatter":
            return parts[root]
        case "allgather":
            return [np.concatenate(inputs)] * len(inputs)
        case "gather":
            return [np.concatenate(inputs) if rank == root else None for rank in ranks]
        case "all_to_all":
            return [np.concatenate([of[rank] for of in parts]) for rank in ranks]
    raise AssertionError(kind.name)


def _reduced(inputs: list[Any], op: str | None) -> Any:
    found = REDUCE[str(op)](np.stack(inputs))
    return np.asarray(found).astype(inputs[0].dtype)


def refusal(
    backend: str, kind: Kind, op: str | None, dtype: str, shapes: list[Any], *, uneven: bool
) -> type[Exception] | None:
    """Return the error that all ranks are to get, by the documented rules."""
    if kind.reduces:
        is_float = dtype in FLOATS or dtype in COMPLEX
        if (
            dtype in LACKING.get(backend, ())
            or (op in BITWISE and is_float)
            or (op == "AVG" and not is_float)
            or (op in ("MAX", "MIN") and dtype in COMPLEX)
            or (op == "PRODUCT" and dtype in COMPLEX and backend not in ("shm", "cuda_ipc"))
        ):
            return TypeError
    has_rows = kind.divides or kind.result == "joined"
    for shape in shapes:
        if has_rows and not shape:
            return CollectiveMismatchError
        if kind.divides and not uneven and shape[0] % 3:
            return CollectiveMismatchError
    return None
