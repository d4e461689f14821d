"""How many GPUs NVIDIA's management library knows: where the kernel does not show them itself.

Under WSL 2 a GPU is behind ``/dev/dxg``, and there is neither ``/dev/nvidia0`` nor
``/proc/driver/nvidia``. The library comes with the driver, makes no CUDA context, starts no thread,
and does not heed ``CUDA_VISIBLE_DEVICES``.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.notice import warn

if TYPE_CHECKING:
    from collections.abc import Callable

LIBRARY: Final = "libnvidia-ml.so.1"


def count(load: Callable[[str], Any] = ctypes.CDLL) -> int:
    """Return how many GPUs there are; 0 where there is no driver of NVIDIA's.

    Warns if there is one that does not work, and returns 0 then too.

    Args:
        load: Opens the library by name, or raises `OSError`.
    """
    try:
        library = load(LIBRARY)
    except OSError:
        return 0
    found = ctypes.c_uint()
    status = library.nvmlInit_v2()
    if not status:
        status = library.nvmlDeviceGetCount_v2(ctypes.byref(found))
        library.nvmlShutdown()
    if status:
        warn(
            f"{LIBRARY} is there, and cannot tell how many GPUs are (status {status} of "
            "nvmlReturn_t): they count as none, and num_gpus is faked. Run nvidia-smi"
        )
        return 0
    return found.value
