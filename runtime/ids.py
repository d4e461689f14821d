"""Identifiers as users see them: hexadecimal strings, whose first two digits say of what."""

from __future__ import annotations

from typing import Final

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


def task(number: int) -> str:
    """Return the id of a task; `number` is that of its first result."""
    return f"05{number:046x}"


def call(number: int, actor_id: int) -> str:
    """Return the id of an actor's call; number 0 is the constructor's."""
    return f"06{actor_id:022x}{number:024x}"
