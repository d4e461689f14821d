"""A backend that a user has registered, as eager groups use it."""

from __future__ import annotations

from typing import Any

from collective.communicator_group import CommunicatorGroup
from compiled_dag.communicator import OPERATIONS
from compiled_dag.communicators import CommunicatorEnd


class RegisteredGroup(CommunicatorGroup):
    """One rank's end of a group on a backend of the user's."""

    def __init__(self, name: str, made_by: Any, world_size: int, rank: int, group: str) -> None:
        """Make the user's object."""
        communicator = made_by(world_size, rank, group)
        super().__init__(CommunicatorEnd(communicator, rank), range(world_size))
        self.backend = name
        self._user: Any = communicator

    def lacks(self, kind: str) -> bool:
        """Tell whether the user's object cannot do an operation."""
        return kind in OPERATIONS and not callable(getattr(self._user, kind, None))

    def abort(self) -> None:
        """Have the user's object let go of everything. Idempotent."""
        user, self._user = self._user, None
        destroy = getattr(user, "destroy", None)
        if destroy is not None:
            try:
                destroy()
            except Exception:
                import logging  # noqa: PLC0415  10 ms that few groups need

                name = type(user).__name__
                logging.getLogger(__name__).exception("%s.destroy() raised", name)
