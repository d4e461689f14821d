"""From the arguments of `execute` to the driver's slots, and from there to its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compiled_dag.tree import Tree, Val, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.program import Program


class Inputs:
    """Checks the arguments of `execute` against the graph's entries and puts them into slots."""

    def __init__(self, program: Program) -> None:
        self._num_slots = program.slots[0]
        self._entries = program.entries
        self._whole = next((entry.slot for entry in program.entries if entry.key is None), None)
        positions = [entry.key for entry in program.entries if isinstance(entry.key, int)]
        least = [key + 1 if key >= 0 else -key for key in positions]  # inp[-1]: the last of these
        self._num_positional = 1 if self._whole is not None else max(least, default=0)

    def slots(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
        """Return the driver's slots, filled.

        Raises:
            ValueError: Wrong number of positional arguments, or a keyword is missing.
        """
        if len(args) != self._num_positional:
            msg = f"the graph takes {self._expected()}, execute got {len(args)}"
            raise ValueError(msg)
        slots: list[Any] = [None] * self._num_slots
        if self._whole is not None:
            slots[self._whole] = args[0]
            return slots
        for entry in self._entries:
            if isinstance(entry.key, int):
                slots[entry.slot] = args[entry.key]
            elif entry.key is not None:
                if entry.key not in kwargs:
                    given = ", ".join(map(repr, kwargs)) or "none"
                    msg = f"the graph needs the keyword input {entry.key!r}, execute got {given}"
                    raise ValueError(msg)
                slots[entry.slot] = kwargs[entry.key]
        return slots

    def _expected(self) -> str:
        count = self._num_positional
        text = f"{count} positional input{'s' * (count != 1)}"
        keywords = [repr(entry.key) for entry in self._entries if isinstance(entry.key, str)]
        plural = "s" * (len(keywords) > 1)
        return f"{text} and the keyword{plural} {', '.join(keywords)}" if keywords else text


class Output:
    """Where one result comes from: an output channel, or what the driver has itself."""

    def __init__(self, tree: Tree, reader_of: dict[int, int], constants: Sequence[Any]) -> None:
        self._tree = tree
        self._constants = constants
        self.reader: int | None = None
        """Index of the output channel's reader, or None."""
        if isinstance(tree, Val):
            self.reader = reader_of.get(tree.id)

    def local(self, value: Callable[[int], Any]) -> Any:
        """Return an output that no actor makes: an input or a constant."""
        return fill(self._tree, value, lambda number: self._constants[number])
