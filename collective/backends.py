"""What can carry a group's operations, by name; and users' own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from compiled_dag.keywords import strict_keywords

if TYPE_CHECKING:
    from collections.abc import Callable

AUTO: Final = "auto"
BUILT_IN: Final = ("gloo", "nccl", "shm", "cuda_ipc")
_ALIASES: Final = {"torch_gloo": "gloo"}
_registered: dict[str, Any] = {}


@strict_keywords
def register_collective_backend(name: str, cls: Callable[[int, int, str], Any]) -> None:
    """Make a backend of your own known in this process, for groups that are made from here.

    Every rank of a group makes one object, ``cls(world_size, rank, group_name)``, once all ranks
    are there. It has the operations of `compiled_dag.Communicator` that it can do (``allreduce(
    send_buf, recv_buf, op)`` and so on, called by one thread at a time, on contiguous tensors),
    and may have ``destroy()``. The contract is that of `Communicator`: in particular, what cannot
    be finished raises on every rank. A class that is registered where `create_collective_group` is
    called need not be registered in the actors.

    Args:
        name: What to give as `backend`; upper and lower case are the same.
        cls: The class, or any function that makes such an object.

    Raises:
        ValueError: The name is taken.
    """
    key = name.lower()
    if key in (AUTO, *BUILT_IN, *_ALIASES, *_registered):
        msg = f"the backend {name!r} exists: choose another name"
        raise ValueError(msg)
    _registered[key] = cls


def parse_backend(name: object) -> tuple[str, Any]:
    """Return a backend's one name, and the class that was registered for it, if one was.

    Raises:
        ValueError: There is none of that name; names those there are.
    """
    key = name.lower() if isinstance(name, str) else ""
    key = _ALIASES.get(key, key)
    if key in (AUTO, *BUILT_IN):
        return key, None
    if key in _registered:
        return key, _registered[key]
    known = ", ".join(map(repr, (AUTO, *BUILT_IN, *_ALIASES, *_registered)))
    msg = f"backend={name!r} is not known: use one of {known}, or register_collective_backend"
    raise ValueError(msg)


def is_backend_available(name: str) -> bool:
    """Tell whether groups of a backend can be made on this machine; imports torch."""
    try:
        key, made_by = parse_backend(name)
    except ValueError:
        return False
    if made_by is not None:
        check = getattr(made_by, "check_backend_availability", None)
        return check is None or bool(check())
    try:
        import torch  # noqa: PLC0415  only for those who ask
        import torch.distributed  # noqa: PLC0415
    except ImportError:
        return False
    if key == "nccl":
        return torch.distributed.is_nccl_available() and torch.cuda.is_available()
    if key == "cuda_ipc":
        from importlib.util import find_spec  # noqa: PLC0415  only for those who ask

        return torch.cuda.is_available() and find_spec("cupy") is not None
    return key != "gloo" or torch.distributed.is_gloo_available()


def nccl_available() -> bool:
    """Tell whether groups can run on NCCL here: torch has it, and there is a GPU."""
    return is_backend_available("nccl")


def gloo_available() -> bool:
    """Tell whether groups can run on gloo here."""
    return is_backend_available("gloo")
