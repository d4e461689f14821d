"""Accelerators that users bring: a device module of torch, and the communicators its graphs use.

CUDA and CPUs need none of this. After `register_accelerator_context` what is hinted
``"accelerator"``, and collectives that name no transport, are carried by communicators of the
registered class: one for the edges of a graph, and one for each set of actors with collectives.
"""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from compiled_dag.communicator import Communicator
from compiled_dag.errors import GraphError
from compiled_dag.host import ASSIGNED_GPUS, offered
from compiled_dag.keywords import strict_keywords

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    import torch


class AcceleratorContext:
    """The accelerator of this process: its torch module, and the class of its communicators."""

    registered: ClassVar[AcceleratorContext | None] = None
    """The one that `set` was given."""

    def __init__(self, torch_module_name: str, communicator_cls: Any = None) -> None:
        """Describe an accelerator.

        Args:
            torch_module_name: Its device module in torch: ``"cuda"``, ``"xpu"``, ``"cpu"``, ...
            communicator_cls: A subclass of `Communicator`, made on each rank as ``cls(world_size,
                communicator_id, rank, actor_handles, stream, use_communication_streams)``. None:
                graphs make for themselves what they need.

        Raises:
            TypeError: `communicator_cls` is no subclass of `Communicator`.
            ValueError: torch has no such module.
        """
        if communicator_cls is not None and not (
            isinstance(communicator_cls, type) and issubclass(communicator_cls, Communicator)
        ):
            msg = (
                f"communicator_cls={communicator_cls!r} is no subclass of compiled_dag.Communicator"
            )
            raise TypeError(msg)
        try:
            self._torch: Any = importlib.import_module(f"torch.{torch_module_name}")
        except ImportError as error:
            msg = f"torch_module_name={torch_module_name!r}: cannot import torch.{error.name}"
            if error.name == f"torch.{torch_module_name}":
                msg = f"torch_module_name={torch_module_name!r}: torch has no such device module"
            raise ValueError(msg) from error
        self._name = torch_module_name
        self._communicator_cls: type[Communicator] | None = communicator_cls

    @classmethod
    def get(cls) -> AcceleratorContext:
        """Return the registered one; else CUDA if this process has a GPU, else CPUs."""
        return cls.registered or cls("cuda" if _has_cuda() else "cpu")

    @classmethod
    def set(cls, accelerator_context: AcceleratorContext | None) -> None:
        """Use a context in this process from now on; None ends that."""
        AcceleratorContext.registered = accelerator_context

    @property
    def module_name(self) -> str:
        """The name of the torch module."""
        return self._name

    @property
    def communicator_cls(self) -> type[Communicator] | None:
        """The class of communicators; None: graphs make for themselves what they need."""
        return self._communicator_cls

    @property
    def accelerator_count(self) -> int:
        """How many GPUs are assigned to this process."""
        return len(_assigned_gpus())

    def get_accelerator_devices(self) -> list[torch.device]:
        """Return the devices this process may use: as many as are assigned to it, at least one."""
        import torch  # noqa: PLC0415  imported by the constructor

        if self._name == "cpu":
            return [torch.device("cpu")]
        return [torch.device(self._name, index) for index in range(max(self.accelerator_count, 1))]

    def get_device_context(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return a context in which `device` is the current one."""
        if device.type == "cpu":
            return contextlib.nullcontext()
        found: AbstractContextManager[Any] = self._torch.device(device)
        return found

    def current_stream(self) -> Any:
        """Return the module's current stream."""
        return self._torch.current_stream()

    def create_event(self) -> Any:
        """Return a new event of the module; None for CPUs, where work is done when it returns."""
        return None if self._name == "cpu" else self._torch.Event()

    def generate_communicator_id(self) -> str:
        """Return a text that no other communicator has."""
        return (self._communicator_cls or Communicator).generate_communicator_id()

    def create_communicator(self, *args: Any, **kwargs: Any) -> Communicator:
        """Return a new communicator of the registered class.

        Raises:
            GraphError: None is registered.
        """
        if self._communicator_cls is None:
            msg = (
                f"no class of communicators is registered for {self._name!r}: graphs make theirs "
                "by themselves. Use register_accelerator_context, or collective groups"
            )
            raise GraphError(msg)
        return self._communicator_cls(*args, **kwargs)

    def __repr__(self) -> str:
        by = "" if self._communicator_cls is None else f", {self._communicator_cls.__name__}"
        return f"<AcceleratorContext {self._name}{by}>"


@strict_keywords
def register_accelerator_context(
    torch_module_name: str, communicator_cls: type[Communicator]
) -> None:
    """Have the graphs that this process compiles use an accelerator of yours.

    Their actors use it too, from then on. `AcceleratorContext.set(None)` ends that here.

    Raises:
        TypeError: `communicator_cls` is no subclass of `Communicator`.
        ValueError: torch has no such module.
    """
    AcceleratorContext.set(AcceleratorContext(torch_module_name, communicator_cls))


def is_accelerator_context_registered() -> bool:
    """Tell whether an accelerator was registered in this process."""
    return AcceleratorContext.registered is not None


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """A communicator of the registered class that every rank makes for itself."""

    module_name: str
    communicator_cls: type[Communicator]
    communicator_id: str
    handles: tuple[Any, ...]
    """Of its members, by rank."""
    overlaps: bool
    """Whether it is to use streams of its own."""

    def get_actor_handles(self) -> list[Any]:
        """Return the handles of all members."""
        return list(self.handles)

    def get_rank(self, actor: Any) -> int:
        """Return the rank of a member."""
        return self.handles.index(actor)

    def get_world_size(self) -> int:
        """Return how many members there are."""
        return len(self.handles)

    def get_transport_name(self) -> str:
        """Return ``"accelerator"``."""
        return "accelerator"

    def make(self, rank: int) -> Communicator:
        """Make this process's communicator, and register the context here."""
        context = AcceleratorContext(self.module_name, self.communicator_cls)
        AcceleratorContext.set(context)
        return context.create_communicator(
            len(self.handles),
            self.communicator_id,
            rank,
            list(self.handles),
            context.current_stream(),
            self.overlaps,
        )


def recipe_for(handles: Sequence[Any], *, overlaps: bool) -> Recipe | None:
    """Return how members make a communicator of the registered class; None: there is none."""
    context = AcceleratorContext.registered
    if context is None or context.communicator_cls is None:
        return None
    number = context.generate_communicator_id()
    cls = context.communicator_cls
    return Recipe(context.module_name, cls, number, tuple(handles), overlaps)


def class_of(communicator: Communicator | Recipe) -> type[Communicator]:
    """Return the class of a communicator, made already or not."""
    if isinstance(communicator, Recipe):
        return communicator.communicator_cls
    return type(communicator)


def _assigned_gpus() -> Sequence[Any]:
    find = offered(ASSIGNED_GPUS)
    found: Sequence[Any] = () if find is None else find()
    return found


def _has_cuda() -> bool:
    if not _assigned_gpus():
        return False
    import torch  # noqa: PLC0415  few processes ask

    return torch.cuda.is_available()  # fake GPUs are none
