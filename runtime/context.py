"""What this process is: a driver, an actor, or a child that an actor forked."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

running: Final[ContextVar[tuple[int, bytes, int] | None]] = ContextVar("running", default=None)
"""The call that this thread or coroutine runs: number, method as in its message, start (ns)."""


class _State:
    __slots__ = ("actor_id", "class_name", "gpu_ids", "label")

    def __init__(self) -> None:
        self.actor_id: int | None = None
        self.class_name = ""
        self.label = ""
        self.gpu_ids: tuple[int | str, ...] = ()


_state = _State()


def enter_actor(actor_id: int, class_name: str, gpu_ids: tuple[int | str, ...]) -> None:
    """Make this process an actor."""
    _state.actor_id = actor_id
    _state.class_name = class_name
    _state.label = f"{class_name}({actor_id})"
    _state.gpu_ids = gpu_ids


def leave_actor() -> None:
    """Note that this process was forked by an actor and is none itself."""
    if _state.actor_id is not None:
        _state.label = f"a process forked by {_state.label}"


def label() -> str:
    """Return what messages call this process."""
    return _state.label or "the driver"


def actor_id() -> int | None:
    """Return the number of this actor or worker; None in a driver."""
    return _state.actor_id


def class_name() -> str:
    """Return the name of this actor's class."""
    return _state.class_name


def in_actor() -> bool:
    """Tell whether this process is an actor."""
    return _state.actor_id is not None


def gpu_ids() -> list[int | str]:
    """Return the GPUs assigned to this actor; none in a driver."""
    return list(_state.gpu_ids)
