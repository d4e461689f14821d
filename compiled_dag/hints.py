"""Tensor transport hints, as users write them: `with_tensor_transport` and the types behind it.

A hint says how the tensors in a node's value travel to its readers, where they land, and what the
user promises about them. `capture` turns it into data (`ir.Hint`); `passes.transports` decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from compiled_dag.communicator import Communicator
from compiled_dag.errors import GraphError
from compiled_dag.keywords import strict_init, strict_keywords

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compiled_dag.ir import DeviceName, TransportName

_TRANSPORTS: Final[dict[object, TransportName]] = {
    "auto": "auto",
    "accelerator": "accelerator",
    "nccl": "accelerator",
    "shm": "shm",
    "cpu": "shm",
}
_DEVICES: Final[dict[object, DeviceName]] = {
    "default": "default",
    "cpu": "cpu",
    "gpu": "cuda",
    "cuda": "cuda",
}


@strict_init
@dataclass(frozen=True)
class TorchTensorType:
    """How the tensors in a node's value travel. Frozen; copies share the communicator.

    Args:
        transport: ``"auto"``, ``"accelerator"`` (``"nccl"`` is another name), ``"shm"`` (so is
            ``"cpu"``), or a `Communicator`.
        device: Where tensors land: ``"default"`` (the sender's kind of device), ``"cpu"``,
            ``"cuda"`` (or ``"gpu"``: the receiver's first GPU).
        _static_shape: All values of the node have tensors of the same shapes and dtypes.
        _direct_return: Each value of the node is one tensor.
        views: Readers on the writer's own GPU get the tensors where the writer put them, without
            a copy: valid until the method they are given to returns.

    Raises:
        ValueError: Unknown transport or device, an accelerator with ``device="cpu"``, views of what
            never lies on a GPU, or `views` that is no bool.
    """

    transport: str | Communicator = "auto"
    device: str = "default"
    _static_shape: bool = False
    _direct_return: bool = False
    views: bool = False

    AUTO: ClassVar[str] = "auto"
    CPU: ClassVar[str] = "cpu"
    ACCELERATOR: ClassVar[str] = "accelerator"

    def __post_init__(self) -> None:
        device = self.device.value if isinstance(self.device, Enum) else self.device
        if not _is_key(device, _DEVICES):
            msg = f"device={self.device!r}: use one of {', '.join(map(repr, _DEVICES))}"
            raise ValueError(msg)
        object.__setattr__(self, "device", device)
        transport = self.transport
        if not (isinstance(transport, Communicator) or _is_key(transport, _TRANSPORTS)):
            msg = (
                f"transport={transport!r}: use 'auto', 'accelerator', 'nccl', 'shm', or an "
                "instance of compiled_dag.Communicator"
            )
            raise ValueError(msg)
        if device == "cpu" and self.requires_accelerator():
            msg = (
                f"transport={self.transport!r} with device='cpu': an accelerator delivers to the "
                "receiver's device. Use transport='shm', or leave the device out"
            )
            raise ValueError(msg)
        self._check_views(device)

    def _check_views(self, device: str) -> None:
        if not isinstance(self.views, bool):
            msg = f"views={self.views!r} is neither True nor False"
            raise ValueError(msg)  # noqa: TRY004  as for every other part of a hint
        is_own = isinstance(self.transport, Communicator)
        if self.views and (is_own or device == "cpu" or self.transport_name == "shm"):
            msg = (
                f"views=True with transport={self.transport!r} and device={device!r}: there is "
                "something to view only where tensors stay on a GPU that writer and readers "
                "share. Use transport='accelerator', or leave views out"
            )
            raise ValueError(msg)

    @property
    def static_shape(self) -> bool:
        """Whether shapes and dtypes are the same in every execution."""
        return self._static_shape

    @property
    def direct_return(self) -> bool:
        """Whether the value is one tensor."""
        return self._direct_return

    @property
    def transport_name(self) -> TransportName:
        """The transport, by one name each."""
        if isinstance(self.transport, Communicator):
            return "accelerator"
        return _TRANSPORTS[self.transport]

    @property
    def device_name(self) -> DeviceName:
        """The device, by one name each."""
        return _DEVICES[self.device]

    def get_custom_communicator(self) -> Communicator | None:
        """Return the communicator, if the transport is one."""
        return self.transport if isinstance(self.transport, Communicator) else None

    def requires_accelerator(self) -> bool:
        """Tell whether the tensors have to travel between accelerators."""
        if isinstance(self.transport, Communicator):
            return self.transport.get_transport_name() == self.ACCELERATOR
        return _TRANSPORTS[self.transport] == self.ACCELERATOR

    def __deepcopy__(self, _memo: object) -> TorchTensorType:
        return self


def _is_key(value: object, table: Mapping[object, object]) -> bool:
    return isinstance(value, str) and value in table


class AutoTransportType(TorchTensorType):
    """A `TorchTensorType` whose transport is chosen from where writer and readers are."""

    @strict_keywords
    def __init__(
        self,
        device: str = "default",
        _static_shape: bool = False,
        _direct_return: bool = False,
        views: bool = False,
    ) -> None:
        super().__init__("auto", device, _static_shape, _direct_return, views)

    def __repr__(self) -> str:
        return (
            f"AutoTransportType(device={self.device!r}, _static_shape={self._static_shape}, "
            f"_direct_return={self._direct_return}, views={self.views})"
        )


_Self = TypeVar("_Self", bound="Hinted")


class Hinted:
    """What carries a hint: every kind of node that has a value of its own."""

    _takes_hint: ClassVar[bool] = True
    _hint: TorchTensorType | None = None

    @strict_keywords
    def with_tensor_transport(  # noqa: PYI019  typing.Self needs Python 3.11
        self: _Self,
        transport: str | Communicator | TorchTensorType = "auto",
        device: str = "default",
        _static_shape: bool = False,
        _direct_return: bool = False,
        views: bool = False,
    ) -> _Self:
        """Say how the tensors in this node's value travel; returns the node.

        Args:
            transport: ``"auto"`` chooses from where writer and readers are; ``"accelerator"`` or
                ``"nccl"`` keeps tensors on GPUs; ``"shm"`` is host memory; a `Communicator` is
                used as it is. A `TorchTensorType` stands for all five arguments.
            device: Where tensors land: ``"default"`` (the sender's kind of device), ``"cpu"``,
                ``"cuda"`` or ``"gpu"`` (the receiver's first GPU).
            _static_shape: Promise that all values have tensors of the same shapes and dtypes. One
                that differs is an error of its execution.
            _direct_return: Promise that every value is one tensor. Another value is an error of
                its execution.
            views: Give readers that are on the writer's own GPU the tensors where the writer put
                them, without a copy, until the method they are given to returns. A method may
                return them; it must not change them if others read the value. Where a method
                keeps one after all, that stays as it is, and this reader gets copies from then
                on. `explain()` says where readers get copies from the start.

        Raises:
            ValueError: Unknown transport or device, an accelerator with ``device="cpu"``, views of
                what never lies on a GPU, or `views` that is no bool.
            GraphError: This kind of node has no value that travels.
        """
        if not self._takes_hint:
            msg = (
                f"{self!r}.with_tensor_transport(): a {type(self).__name__} has no value of its "
                "own that travels. Hint inputs, methods, functions and collectives"
            )
            raise GraphError(msg)
        self._hint = _merged(transport, device, _static_shape, _direct_return, views)
        return self

    @property
    def type_hint(self) -> TorchTensorType | None:
        """The hint given by `with_tensor_transport`, or None."""
        return self._hint


def _merged(
    transport: Any, device: str, static_shape: bool, direct_return: bool, views: bool
) -> TorchTensorType:
    if not isinstance(transport, TorchTensorType):
        return TorchTensorType(transport, device, static_shape, direct_return, views)
    if (device, static_shape, direct_return, views) != ("default", False, False, False):
        msg = (
            f"with_tensor_transport({transport!r}, ...): the {type(transport).__name__} holds "
            "device and promises already. Give them to it, or give a transport by name"
        )
        raise ValueError(msg)
    return transport
