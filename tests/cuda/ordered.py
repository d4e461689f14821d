"""torch's operations on tensors of the fake GPU, in order with its current stream.

Those that write into tensors they are given are enqueued, and run late; so are a backend's kernels
over other ranks' memory, which must still be there *then*. Those that make new tensors wait for the
stream first: to code that calls them it is the same, only later. What only looks at the shape runs
at once.

Where host memory takes part, the host waits, as torch does.
"""

from __future__ import annotations

import ctypes
import traceback
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from tests.cuda.fake import violation

if TYPE_CHECKING:
    from tests.cuda.fake import FakeDevice


def order_torch(device: FakeDevice) -> None:
    """Order all that this thread does with torch from now on."""
    _Ordered(device).__enter__()


class _Place:
    """Where a tensor is; it keeps nothing alive."""

    def __init__(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        self.start, self.nbytes = storage.data_ptr(), storage.nbytes()
        self.at, self.dtype = tensor.data_ptr(), tensor.dtype
        self.layout = tensor.storage_offset(), tuple(tensor.shape), tensor.stride()

    def tensor(self, device: FakeDevice) -> torch.Tensor:
        if not device.ranges.has(self.at, self.dtype.itemsize):
            violation(f"torch uses {self.at:#x}, which is no memory by now")
        memory = (ctypes.c_ubyte * self.nbytes).from_address(self.start)
        flat = torch.frombuffer(memory, dtype=torch.uint8)
        return torch.empty(0, dtype=self.dtype).set_(flat.untyped_storage(), *self.layout)


class _Ordered(TorchDispatchMode):
    def __init__(self, device: FakeDevice) -> None:
        super().__init__()
        self._device = device

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here: a wrapper against that would import 1.5 s of modules first."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        ours = [one for one in tensors if self._is_ours(one)]
        if not ours:
            return func(*args, **kwargs)
        schema = func._schema
        written = [one for one in schema.arguments if _writes(one)]
        if written and all(self._is_ours(one) or not one.dim() for one in tensors):
            self._enqueue(func, args, kwargs)
            return self._given(schema, written, args, kwargs) if schema.returns else None
        if not written and any(one.alias_info is not None for one in schema.returns):
            return func(*args, **kwargs)
        self._device.streams[self._device.current].synchronize()
        found = func(*args, **kwargs)
        return found if written else tree_map_only(torch.Tensor, self._on_gpu, found)

    def _is_ours(self, tensor: torch.Tensor) -> bool:
        if not tensor.nbytes:
            return False
        return self._device.ranges.has(tensor.data_ptr(), tensor.dtype.itemsize)

    def _enqueue(self, func: Any, args: Any, kwargs: Any) -> None:
        def placed(one: torch.Tensor) -> Any:
            return _Place(one) if self._is_ours(one) else one.clone()

        kept = tree_map_only(torch.Tensor, placed, (args, kwargs))

        def work() -> None:
            try:
                args, kwargs = tree_map_only(_Place, lambda one: one.tensor(self._device), kept)
                func(*args, **kwargs)
            except BaseException:
                traceback.print_exc()
                violation("a kernel failed")

        self._device.streams[self._device.current].put(work)

    @staticmethod
    def _given(schema: Any, written: list[Any], args: Any, kwargs: Any) -> Any:
        """Return the tensor that an operation has written to."""
        (one,) = written
        number = schema.arguments.index(one)
        return args[number] if number < len(args) else kwargs[one.name]

    def _on_gpu(self, found: torch.Tensor) -> torch.Tensor:
        made = self._device.new((str(found.dtype)[6:], tuple(found.shape)))
        return made.copy_(found) if found.numel() else made


def _writes(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write
