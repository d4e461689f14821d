"""What is done with the numbers of tensors in host memory: copied, and combined two and two.

numpy costs a fifth of what torch does for a handful of numbers (a sum 0.4 us, not 2), and has the
unsigned integers that torch does not add. torch has bfloat16, is many times faster with float16,
and uses the threads that its process has been given: so it takes what is large. On one thread it
only costs more: 100 us of each rank's processor where four sum 1 MiB, for some thirty calls.

All ranks combine the same pieces in the same order, by rank; and where several combine the same
numbers, with the same of the two, for those do not round products of complex numbers alike. So they
have the same bits. Rounding is that of the dtype at every step, as in gloo.
"""

from __future__ import annotations

from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import torch

from collective.process_group import why_not_op

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Combine: TypeAlias = Callable[..., object]
    """Combines two arrays into a third, called `out`, which may be the first."""

_SMALL_BYTES: Final = 2 << 20
"""For less torch's threads are not worth waking."""
_SMALL_HALVES_BYTES: Final = 1024
"""numpy takes float16 number by number."""

_UNSIGNED: Final = frozenset({torch.uint16, torch.uint32, torch.uint64})
_HALVES: Final = frozenset({torch.float16, torch.bfloat16})
_NUMPY_DTYPES: Final = {
    getattr(torch, name): np.dtype(name)
    for name in (
        *("float16", "float32", "float64", "complex64", "complex128", "bool"),
        *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    )
}
_REDUCED: Final = frozenset(_NUMPY_DTYPES) | _HALVES


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """One of the two libraries; an array is a flat array of it."""

    array: Callable[[torch.Tensor], Any]
    """The tensor's elements in host memory, one after the other: its own memory if it can be."""
    view: Callable[[Any, torch.dtype], Any]
    """The bytes of a memoryview as elements."""
    copy: Callable[[Any, Any], object]
    """Copies the second into the first, of the same shape."""
    combine: Mapping[str, Combine]
    """By reduce op."""


def _numpy_array(tensor: torch.Tensor) -> Any:
    return tensor.numpy(force=True).reshape(-1)


def _numpy_view(memory: memoryview, dtype: torch.dtype) -> Any:
    return np.frombuffer(memory, _NUMPY_DTYPES[dtype])


def _numpy_copy(target: Any, source: Any) -> None:
    target[...] = source


def quiet() -> Callable[..., Any]:
    """Return what calls functions of numpy that say nothing of infinities and NaN.

    What the actor's own code has numpy say of them (`np.seterr`, warnings that are errors) would
    end it in the middle of an operation, and which rank combines them is no matter of the user's.
    It is for one thread at a time, and takes 0.1 us where ``np.errstate`` takes 0.5.
    """
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":  # it is a matter of threads there
        return _quietly
    context = Context()  # of its own: what is said there is said nowhere else
    context.run(partial(np.seterr, all="ignore"))
    return context.run


def _quietly(function: Callable[..., Any], *args: Any) -> Any:
    with np.errstate(all="ignore"):
        return function(*args)


def _torch_array(tensor: torch.Tensor) -> Any:
    return tensor.detach().cpu().resolve_conj().resolve_neg().reshape(-1)


def _torch_view(memory: memoryview, dtype: torch.dtype) -> Any:
    return torch.frombuffer(memory, dtype=dtype)


def _torch_copy(target: Any, source: Any) -> None:
    target.copy_(source)


NUMPY: Final = Arithmetic(
    array=_numpy_array,
    view=_numpy_view,
    copy=_numpy_copy,
    combine={
        "SUM": np.add,
        "AVG": np.add,
        "PRODUCT": np.multiply,
        "MAX": np.maximum,
        "MIN": np.minimum,
        "BAND": np.bitwise_and,
        "BOR": np.bitwise_or,
        "BXOR": np.bitwise_xor,
    },
)

TORCH: Final = Arithmetic(
    array=_torch_array,
    view=_torch_view,
    copy=_torch_copy,
    combine={
        "SUM": torch.add,
        "AVG": torch.add,
        "PRODUCT": torch.mul,
        "MAX": torch.maximum,
        "MIN": torch.minimum,
        "BAND": torch.bitwise_and,
        "BOR": torch.bitwise_or,
        "BXOR": torch.bitwise_xor,
    },
)


def arithmetic_for(dtype: torch.dtype, nbytes: int, *, alike: bool) -> Arithmetic:
    """Return what to calculate with.

    Args:
        dtype: Of the tensors.
        nbytes: How large they are.
        alike: Whether other ranks combine the same numbers, so that all must choose the same. Ranks
            may have different numbers of threads.
    """
    if dtype in _UNSIGNED:
        return NUMPY
    if dtype in _HALVES:
        return NUMPY if nbytes < _SMALL_HALVES_BYTES and dtype in _NUMPY_DTYPES else TORCH
    small = nbytes < _SMALL_BYTES or (not alike and torch.get_num_threads() == 1)
    return NUMPY if small and dtype in _NUMPY_DTYPES else TORCH


def combine_all(combine: Combine, rows: Sequence[Any], out: Any) -> None:
    """Combine at least two arrays, in their order. numpy is as quiet as by `quiet`."""
    with np.errstate(all="ignore"):  # one for each call: before numpy 2 it holds what was before
        combine(rows[0], rows[1], out=out)
        for row in rows[2:]:
            combine(out, row, out=out)


def why_not(tensor: torch.Tensor, op: str) -> str | None:
    """Return why `tensor` cannot be reduced with `op`, or None."""
    if tensor.dtype not in _REDUCED:
        return f"shm cannot reduce {tensor.dtype}"
    if op == "PRODUCT" and tensor.is_complex():
        return None
    return why_not_op(tensor, op)
