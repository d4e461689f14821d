"""`ChannelContext`: what code in a process learns of the channels it is at the end of."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar

from compiled_dag.accelerator import AcceleratorContext

if TYPE_CHECKING:
    import torch

    from compiled_dag.communicator import Communicator


class ChannelContext:
    """This process's: where its tensors are, and the communicators that graphs gave it."""

    _current: ClassVar[ChannelContext | None] = None

    def __init__(self) -> None:
        self.communicators: dict[str, Communicator] = {}
        """Of the graphs that are up here, by ``graph/number``."""
        self._torch_device: torch.device | None = None

    @classmethod
    def get_current(cls) -> ChannelContext:
        """Return this process's, always the same one."""
        if ChannelContext._current is None:
            ChannelContext._current = cls()
        return ChannelContext._current

    @property
    def torch_available(self) -> bool:
        """Whether torch is installed."""
        return importlib.util.find_spec("torch") is not None

    @property
    def torch_device(self) -> torch.device:
        """Where this process's tensors are: its first GPU, or the CPU."""
        if self._torch_device is not None:
            return self._torch_device
        return AcceleratorContext.get().get_accelerator_devices()[0]

    def set_torch_device(self, device: torch.device) -> None:
        """Have `torch_device` say something else. Channels do not ask it: hints decide."""
        self._torch_device = device

    def __repr__(self) -> str:
        held: Any = ", ".join(self.communicators) or "none"
        return f"<ChannelContext, communicators: {held}>"
