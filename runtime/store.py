"""What the session keeps beside the outcomes of calls: functions, and references pickled by users.

Objects themselves are kept by their references: a value lives as long as any process has one.
"""

from __future__ import annotations

from typing import Any

from runtime.function import Function
from runtime.parcel import Parcel


class Store:
    """Functions and stray references of a session. Any thread may use it."""

    def __init__(self) -> None:
        self._functions: dict[int, Function] = {}
        self._pinned: dict[int, Any] = {}

    def export(self, number: int, name: str, function: Any) -> None:
        """Keep a function for tasks.

        Raises:
            TypeError: It cannot be pickled.
        """
        self.keep(number, name, Parcel.of(function))

    def keep(self, number: int, name: str, parcel: Parcel) -> None:
        """Keep an encoded function."""
        self._functions[number] = Function(number, name, parcel)

    def function(self, number: int) -> Function:
        """Return a function that was exported."""
        return self._functions[number]

    def functions(self) -> list[Function]:
        """Return all of them."""
        return list(self._functions.values())

    def pin(self, reference: Any) -> None:
        """Keep a reference that was pickled outside a value as long as the session lives."""
        self._pinned[reference.number] = reference

    def find_stray(self, number: int) -> Any:
        """Return a reference that was pinned.

        Raises:
            RuntimeError: There is none of that number.
        """
        if number not in self._pinned:
            raise RuntimeError(f"reference {number} does not belong to this session")
        return self._pinned[number]

    def clear(self) -> None:
        """Let go of everything: the session is over."""
        self._functions.clear()
        self._pinned.clear()
