"""Identifiers as users see them: hexadecimal strings, whose first two digits say of what."""

from __future__ import annotations

from typing import Final


class TaskId(str):
    """The id of a task or of an actor's call: a text."""

    __slots__ = ()

    def hex(self) -> str:
        """Return the digits, as Ray's ids do."""
        return str(self)


JOB: Final = "01000000"
"""A session is one job."""
NODE: Final = f"02{1:054x}"
"""There is one machine."""


def actor(number: int) -> str:
    """Return the id of an actor."""
    return f"03{number:030x}"


def worker(number: int) -> str:
    """Return the id of a process; 0 is the driver."""
    return f"04{number:054x}"


def task(number: int) -> TaskId:
    """Return the id of a task; `number` is that of its first result."""
    return TaskId(f"05{number:046x}")


def call(number: int, actor_id: int) -> TaskId:
    """Return the id of an actor's call; number 0 is the constructor's."""
    return TaskId(f"06{actor_id:022x}{number:024x}")
