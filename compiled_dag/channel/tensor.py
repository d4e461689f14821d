"""torch CPU tensors as bytes and back; imports torch only once somebody holds a tensor.

torch's own pickling of a tensor takes 130 us; this takes about 2. A tensor travels as its
contiguous bytes plus dtype, shape and device kind, detached from autograd.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import pickle
import sys
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

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

_CACHE_LIMIT: Final = 512
_plans: dict[Any, _Plan] = {}
_makers: dict[Header, Callable[[Any], torch.Tensor]] = {}


class _Plan(NamedTuple):
    """How tensors of one dtype and shape are sent: these repeat for ever in a graph."""

    header: Header
    head: bytes
    """The header, pickled."""
    nbytes: int


class _Memory(ctypes.c_ubyte * (1 << 46)):  # type: ignore[misc]  # one class for all sizes
    """Memory from a tensor's first byte on, which keeps the tensor. Only a part of it is there."""


class _Known:
    """The class of tensors, once somebody has asked about it."""

    tensor: Any = None


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


def in_place(tensor: torch.Tensor) -> tuple[_Plan, memoryview] | None:
    """Return the bytes of a tensor where they are, which keeps it; None: that cannot be.

    The usual tensor is dense, contiguous and on the CPU. For it this is most of the cost of being
    sent, and after a large copy nothing is in the caches: so it is asked little. By its address,
    since ``tensor.numpy()`` would leave it unable to be resized.
    """
    if tensor.is_nested or tensor.layout is not sys.modules["torch"].strided:
        return None
    plan = _plans.get((tensor.dtype, tensor.shape)) or _new_plan(tensor)
    if plan is None or not (tensor.is_cpu and tensor.is_contiguous()) or tensor.is_neg():
        return None
    memory = _Memory.from_address(tensor.data_ptr())
    memory.tensor = tensor
    return plan, PickleBuffer(memory).raw()[: plan.nbytes]


def _new_plan(tensor: torch.Tensor) -> _Plan | None:
    """Return the plan of a dense tensor; None if it has no bytes, or needs a look at each time."""
    nbytes, dtype = tensor.nbytes, tensor.dtype
    if not nbytes or dtype.is_complex or tensor.is_quantized:
        return None
    if len(_plans) >= _CACHE_LIMIT:
        _plans.clear()
    header = (str(dtype)[6:], tuple(tensor.shape), "cpu")  # "torch.float32"[6:]
    plan = _plans[dtype, tensor.shape] = _Plan(header, pickle.dumps(header, 5), nbytes)
    return plan


def to_bytes(tensor: torch.Tensor) -> tuple[Header, Any]:
    """Return header and bytes of a plain `tensor`; the bytes share its memory where they can."""
    import torch  # noqa: PLC0415  torch is imported by whoever made the tensor

    found = in_place(tensor)
    if found is not None:
        return found[0].header, found[1]
    flat = tensor.detach()
    kind = flat.device.type
    if kind != "cpu":
        flat = flat.cpu()
    if flat.is_conj() or flat.is_neg():
        flat = flat.resolve_conj().resolve_neg()
    # Not `reshape`: of a dimension of size 0 or 1 it keeps the stride, whatever that is.
    flat = flat.contiguous().as_strided((flat.numel(),), (1,))
    header = (str(tensor.dtype)[6:], tuple(tensor.shape), kind)
    return header, flat.view(torch.uint8).numpy()


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
    maker = _makers.get(header)
    if maker is None:
        if len(_makers) >= _CACHE_LIMIT:
            _makers.clear()
        maker = _makers[header] = _maker(header)
    tensor = maker(buffer)
    kind = header[2]
    if (kind if device == "default" else device) == "cuda":
        import torch  # noqa: PLC0415  there is a tensor

        if not torch.cuda.is_available():
            raise NoGpuError(kind)
        tensor = tensor.to("cuda:0")
    return tensor


def _maker(header: Header) -> Callable[[Any], torch.Tensor]:
    """Return what makes such tensors of bytes."""
    try:
        import numpy as np  # noqa: PLC0415  torch needs it for memory of ours
        import torch  # noqa: PLC0415  torch is imported by whoever made the tensor
    except ImportError as error:
        msg = "a torch.Tensor arrived and torch is not installed here: pip install torch"
        raise ImportError(msg) from error
    name, shape, _ = header
    dtype = getattr(torch, name)
    if 0 in shape:
        return lambda _buffer: torch.empty(shape, dtype=dtype)
    if name not in _NUMPY:
        return lambda buffer: torch.frombuffer(buffer, dtype=dtype).reshape(shape)
    from_numpy, array, numpys = torch.from_numpy, np.ndarray, np.dtype(name)
    return lambda buffer: from_numpy(array(shape, numpys, buffer))  # takes half as long


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
    if kind is _Known.tensor:
        return True
    if kind.__name__ != "Tensor":
        return False
    torch_module = sys.modules.get("torch")
    if torch_module is not None:
        _Known.tensor = getattr(torch_module, "Tensor", None)  # None: it is being imported
    return kind is _Known.tensor


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
