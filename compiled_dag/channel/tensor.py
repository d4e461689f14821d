"""torch CPU tensors as bytes and back; imports torch only once somebody holds a tensor.

torch's own pickling of a tensor takes 130 us; this takes about 5. A tensor travels as its
contiguous bytes plus dtype, shape and device kind, detached from autograd.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import torch

Header: TypeAlias = tuple[str, tuple[int, ...], str]
"""dtype name, shape, device kind (``"cpu"`` or ``"cuda"``)"""

Look: TypeAlias = tuple[str, tuple[Any, ...]]
"""dtype name and shape (of a nested tensor, the shapes of its parts)"""

_NUMPY: Final = {
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
}
"""Names of dtypes that numpy has too."""

# Dtypes, shapes and sizes repeat for ever in a graph.
_CACHE_LIMIT: Final = 512
_headers: dict[Any, Header] = {}
_memory_types: dict[int, Any] = {}


class NoGpuError(RuntimeError):
    """A tensor is to be on a GPU and this process has none."""

    def __init__(self, kind: str) -> None:
        text = "a tensor is to be on a GPU, and this process sees no GPU"
        if kind == "cuda":  # else it is a hint that wants it there, and who knows that says more
            text += ". Give the reader num_gpus, or send tensor.cpu()"
        super().__init__(text)
        self.kind = kind
        """The device it comes from, ``"cpu"`` or ``"cuda"``."""


def is_loaded() -> bool:
    """Tell whether this process has imported torch."""
    return "torch" in sys.modules


def warm_up() -> None:
    """Import torch now, if it is installed, rather than when the first tensor arrives."""
    with contextlib.suppress(ImportError):  # a tensor that does arrive raises it again
        import torch  # noqa: F401, PLC0415


def is_plain(tensor: torch.Tensor) -> bool:
    """Tell whether `tensor` is dense memory that a header and its bytes describe."""
    import torch  # noqa: PLC0415  torch is imported by whoever made the tensor

    return (
        tensor.layout is torch.strided
        and not tensor.is_quantized
        and not tensor.is_nested
        and tensor.device.type in ("cpu", "cuda")
    )


def to_bytes(tensor: torch.Tensor) -> tuple[Header, np.ndarray[Any, np.dtype[np.uint8]]]:
    """Return header and bytes of `tensor`; the bytes share its memory where they can."""
    import torch  # noqa: PLC0415  torch is imported by whoever made the tensor

    if tensor.is_cpu and tensor.is_contiguous() and not (tensor.is_conj() or tensor.is_neg()):
        nbytes = tensor.nbytes
        if nbytes:  # the usual case, in a third of the time
            return _header_of(tensor), _bytes_at(tensor, nbytes)
    flat = tensor.detach()
    kind = flat.device.type
    if kind != "cpu":
        flat = flat.cpu()
    if flat.is_conj() or flat.is_neg():
        flat = flat.resolve_conj().resolve_neg()
    # Not `reshape`: of a dimension of size 0 or 1 it keeps the stride, whatever that is.
    flat = flat.contiguous().as_strided((flat.numel(),), (1,))
    header = (str(tensor.dtype)[6:], tuple(tensor.shape), kind)  # "torch.float32"[6:]
    return header, flat.view(torch.uint8).numpy()


def _header_of(tensor: torch.Tensor) -> Header:
    """Return the header of a tensor on the CPU."""
    key = tensor.dtype, tensor.shape
    found = _headers.get(key)
    if found is None:
        if len(_headers) >= _CACHE_LIMIT:
            _headers.clear()
        found = _headers[key] = (str(tensor.dtype)[6:], tuple(tensor.shape), "cpu")
    return found


def _bytes_at(tensor: torch.Tensor, nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the memory of a contiguous tensor on the CPU, of any dtype; keeps the tensor."""
    kind: Any = _memory_types.get(nbytes)
    if kind is None:
        if len(_memory_types) >= _CACHE_LIMIT:
            _memory_types.clear()
        kind = _memory_types[nbytes] = type("Memory", (ctypes.c_ubyte * nbytes,), {})
    import numpy as np  # noqa: PLC0415  torch has imported it

    memory = kind.from_address(tensor.data_ptr())
    memory.tensor = tensor
    found: np.ndarray[Any, np.dtype[np.uint8]] = np.ndarray((nbytes,), np.uint8, memory)
    return found


def from_buffer(header: Header, buffer: Any, device: str = "default") -> torch.Tensor:
    """Return a tensor over `buffer` (writable, kept alive by the tensor), or a copy on the GPU.

    Args:
        header: What `to_bytes` returned.
        buffer: The bytes.
        device: Where it lands: ``"default"`` is the sender's kind of device; the GPU is this
            process's first.

    Raises:
        ImportError: torch is not installed here.
        NoGpuError: It is to land on a GPU and this process has none.
    """
    try:
        import numpy as np  # noqa: PLC0415  torch needs it for memory of ours
        import torch  # noqa: PLC0415  torch is imported by whoever made the tensor
    except ImportError as error:
        msg = "a torch.Tensor arrived and torch is not installed here: pip install torch"
        raise ImportError(msg) from error
    dtype_name, shape, kind = header
    dtype = getattr(torch, dtype_name)
    if 0 in shape:
        tensor = torch.empty(shape, dtype=dtype)
    elif dtype_name in _NUMPY:
        tensor = torch.from_numpy(np.ndarray(shape, dtype_name, buffer))  # half as long as below
    else:
        tensor = torch.frombuffer(buffer, dtype=dtype).reshape(shape)
    if (kind if device == "default" else device) == "cuda":
        if not torch.cuda.is_available():
            raise NoGpuError(kind)
        tensor = tensor.to("cuda:0")
    return tensor


def parameter_from_buffer(
    header: Header, buffer: Any, device: str = "default", *, requires_grad: bool
) -> torch.Tensor:
    """Return a parameter over `buffer`: modules must not come back with plain tensors in them."""
    return parameter_of(from_buffer(header, buffer, device), requires_grad)


def parameter_of(tensor: torch.Tensor, requires_grad: bool) -> torch.Tensor:
    """Return `tensor` as a parameter."""
    import torch  # noqa: PLC0415  torch is imported by whoever made the tensor

    return torch.nn.Parameter(tensor, requires_grad=requires_grad)


def to_send(tensor: torch.Tensor) -> torch.Tensor:
    """Return `tensor` as a communicator takes it: contiguous, detached, as its bytes say."""
    return tensor.detach().resolve_conj().resolve_neg().contiguous()


def dtype_of(look: Look) -> Any:
    """Return the dtype of a tensor that looks so."""
    import torch  # noqa: PLC0415  a tensor is about to arrive

    return getattr(torch, look[0])


def empty(look: Look) -> torch.Tensor:
    """Return the tensor without elements that looks so."""
    import torch  # noqa: PLC0415  a tensor is about to arrive

    return torch.empty(look[1], dtype=dtype_of(look))


def nbytes_of(look: Look) -> int:
    """Return how many bytes a tensor that looks so takes."""
    return math.prod(look[1], start=int(dtype_of(look).itemsize))


def within(flat: torch.Tensor, place: int, look: Look) -> torch.Tensor:
    """Return the tensor that begins at a byte of the memory of `flat`, and is no view of that."""
    import torch  # noqa: PLC0415  there is a tensor

    dtype, shape = dtype_of(look), look[1]
    strides = [math.prod(shape[axis:]) for axis in range(1, len(shape) + 1)]
    made = torch.empty(0, dtype=dtype, device=flat.device)
    made.set_(flat.untyped_storage(), place // dtype.itemsize, shape, strides)
    return made


def land(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """Return `tensor` on a device; ``"default"`` leaves it where it is.

    Raises:
        NoGpuError: It is to be on a GPU and this process has none.
    """
    import torch  # noqa: PLC0415  there is a tensor

    if device in ("default", tensor.device.type):
        return tensor
    if device == "cuda" and not torch.cuda.is_available():
        raise NoGpuError(tensor.device.type)
    return tensor.to("cuda:0" if device == "cuda" else device)


def is_tensor(kind: type) -> bool:
    """Tell whether `kind` is exactly torch.Tensor."""
    torch_module = sys.modules.get("torch")
    return torch_module is not None and kind is getattr(torch_module, "Tensor", None)


def is_any_tensor(value: object) -> bool:
    """Tell whether `value` is a tensor of any kind, subclasses included."""
    torch_module = sys.modules.get("torch")
    return torch_module is not None and isinstance(value, getattr(torch_module, "Tensor", ()))


def look(tensor: torch.Tensor) -> Look:
    """Return what must stay the same where shapes are static."""
    shape = [tuple(part.shape) for part in tensor.unbind()] if tensor.is_nested else tensor.shape
    return str(tensor.dtype)[6:], tuple(shape)


def layout_of(tensor: torch.Tensor) -> str:
    """Return in words what a tensor that is not plain is."""
    if tensor.is_quantized:
        return f"a quantised tensor ({tensor.dtype})"
    if tensor.device.type not in ("cpu", "cuda"):
        return f"a tensor on the device {tensor.device.type!r}"
    if tensor.is_nested:
        return "a nested tensor"
    return f"a tensor of layout {tensor.layout}"


def is_parameter(kind: type) -> bool:
    """Tell whether `kind` is exactly torch.nn.Parameter."""
    return kind.__name__ == "Parameter" and kind.__module__ == "torch.nn.parameter"
