"""References inside values: how they are pickled, and found again.

A value that is pickled for another process may hold references to objects and handles of actors.
They are taken out: the pickle says "reference number i", and the `Parcel` carries the references
themselves beside the bytes, so that whoever has the parcel keeps what it refers to alive.

Two kinds of places need two treatments. An argument that *is* a reference arrives as its value
(`Slot`); a reference *inside* an argument arrives as a reference.

Values that travel over a graph's channels have no parcel: their pickle says "the reference of
number n", which the reader asks the driver for. The writer keeps it until all readers have it. What
users pickle by themselves says the same, and is kept as long as the session lives.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Reference(Protocol):
    """What may travel inside a value: an `ObjectRef`, or an actor's `Lifeline`."""

    @property
    def number(self) -> int:
        """The same in all processes of the session; negative for an actor's lifeline."""
        ...


_BITS_OF_PROCESS: Final = 32
"""References are numbered in the process that makes them; its own number is above these bits."""


class _Numbers:
    """Numbers for references: unique in the session."""

    next = itertools.count(1).__next__


def number_from(process: int) -> None:
    """Number references as those of process `process`; 0 is the driver."""
    _Numbers.next = itertools.count((process << _BITS_OF_PROCESS) + 1).__next__


def next_reference() -> int:
    """Return a number for a reference."""
    return _Numbers.next()


class _Pickling(threading.local):
    """What this thread is pickling, or unpickling, at the moment."""

    found: dict[Any, int] | None = None
    """References met while pickling a parcel, each with its index; None: no parcel is pickled."""
    references: Sequence[Any] = ()
    """Those of the parcel being unpickled."""
    values: Sequence[Any] = ()
    """Values of the references among the arguments being unpickled."""


_state = _Pickling()


class _Strays:
    """References pickled by users on their own: how this process finds them again."""

    pin: Callable[[Any], None] | None = None
    lend: Callable[[Any], None] | None = None
    find: Callable[[int], Any] | None = None


def set_strays(
    pin: Callable[[Any], None] | None,
    lend: Callable[[Any], None] | None,
    find: Callable[[int], Any] | None,
) -> None:
    """Say what to do with references outside parcels.

    Args:
        pin: Keeps one as long as the session lives: nobody knows when it is not needed any more.
        lend: Lets others find one while it lives: whoever pickles it keeps it until they have.
        find: Finds one by its number.
    """
    _Strays.pin, _Strays.lend, _Strays.find = pin, lend, find


@contextlib.contextmanager
def collecting() -> Iterator[dict[Any, int]]:
    """Collect the references met while pickling, in order, each with its index."""
    state = _state
    before = state.found
    found: dict[Any, int] = {}
    state.found = found
    try:
        yield found
    finally:
        state.found = before


@contextlib.contextmanager
def supplying(references: Sequence[Any]) -> Iterator[None]:
    """Make `references` those that unpickling finds."""
    state = _state
    before, state.references = state.references, references
    try:
        yield
    finally:
        state.references = before


@contextlib.contextmanager
def supplying_values(values: Sequence[Any]) -> Iterator[None]:
    """Make `values` those that stand in the places of references."""
    state = _state
    before, state.values = state.values, values
    try:
        yield
    finally:
        state.values = before


def reduce_reference(reference: Any) -> tuple[Any, tuple[int]]:
    """Return how to pickle a reference (`__reduce__`) that is pickled by whomever."""
    return _reduced(reference, _Strays.pin)


def reduce_lent(reference: Any) -> tuple[Any, tuple[int]]:
    """Return how to pickle a reference that is kept by who pickles it (`codec.lend_by`)."""
    return _reduced(reference, _Strays.lend)


def _reduced(reference: Any, keep: Callable[[Any], None] | None) -> tuple[Any, tuple[int]]:
    found = _state.found
    if found is not None:
        return _reference, (index_in(reference, found),)
    if keep is None:
        raise TypeError(f"{reference!r} cannot be pickled: there is no session it belongs to")
    keep(reference)
    return _stray, (reference.number,)


def index_in(reference: Any, among: dict[Any, int]) -> int:
    """Return the index of `reference`, added if it is not there."""
    return among.setdefault(reference, len(among))


class Slot:
    """Stands for an argument that is a reference: unpickles as its value."""

    __slots__ = ("_index",)

    def __init__(self, index: int) -> None:
        self._index = index

    def __reduce__(self) -> Any:
        return _value, (self._index,)


def _value(index: int) -> Any:
    return _state.values[index]


def _reference(index: int) -> Any:
    return _state.references[index]


def _stray(number: int) -> Any:
    if _Strays.find is None:
        raise RuntimeError(f"reference {number} belongs to a session that is not here")
    return _Strays.find(number)
