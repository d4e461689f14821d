"""How values of a class travel, by Ray's names; and why a value cannot."""

from __future__ import annotations

import copyreg
import inspect
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import cloudpickle

from compiled_dag.keywords import strict_keywords

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@strict_keywords
def register_serializer(
    cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]
) -> None:
    """Have values of exactly this class travel as what `serializer` makes of them.

    Counts in the process that calls it, for pickle as a whole (`copyreg`); `deserializer` travels
    along, so a process that only receives need not register anything.

    Args:
        cls: The class.
        serializer: Takes a value; returns one that can be pickled.
        deserializer: Takes what `serializer` returned; returns the value.

    Raises:
        TypeError: `cls` is no class, or one of the functions cannot be called.
    """
    if not isinstance(cls, type):
        raise TypeError(f"register_serializer takes a class, not {cls!r}")
    for name, function in (("serializer", serializer), ("deserializer", deserializer)):
        if not callable(function):
            raise TypeError(f"register_serializer: {name}={function!r} cannot be called")
    copyreg.pickle(cls, lambda value: (deserializer, (serializer(value),)))


def deregister_serializer(cls: type) -> None:
    """Undo `register_serializer`; without effect where nothing is registered."""
    copyreg.dispatch_table.pop(cls, None)


class Failure(NamedTuple):
    """One value that cannot be pickled."""

    obj: Any
    name: str
    parent: Any
    """What holds it; None for the value that was asked about."""

    def __hash__(self) -> int:
        return hash((id(self.obj), self.name))


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, set[Failure]]:
    """Find out what in a value keeps it from being sent, and print it.

    Args:
        base_obj: The value; of functions, what they take along is looked at.
        name: What to call it.
        depth: How deep to look.
        print_file: Where to; standard output by default.

    Returns:
        Whether it can be sent, and the innermost values that cannot.
    """
    out = sys.stdout if print_file is None else print_file
    called = name or getattr(base_obj, "__qualname__", None) or type(base_obj).__name__
    failures = set(_failures(base_obj, called, None, depth))
    if not failures:
        out.write(f"{called} can be sent\n")
        return True, failures
    out.write(f"{called} cannot be sent, because of\n")
    for failure in failures:
        of = "" if failure.parent is None else f", held by {failure.parent!r}"
        out.write(f"  {failure.name}: {failure.obj!r}{of}\n")
    return False, failures


def _failures(value: Any, name: str, parent: Any, depth: int) -> Iterator[Failure]:
    """Yield the innermost values that cannot be pickled; nothing if `value` can."""
    if _can_be_sent(value):
        return
    inner = (
        [f for key, member in _parts(value) for f in _failures(member, key, value, depth - 1)]
        if depth > 0
        else []
    )
    yield from inner or [Failure(value, name, parent)]


def _can_be_sent(value: Any) -> bool:
    try:
        cloudpickle.dumps(value)
    except Exception:  # noqa: BLE001  whatever the value's own code raises
        return False
    return True


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what pickling a value would pickle with it, under names for a person."""
    if inspect.isfunction(value):
        captured = inspect.getclosurevars(value)
        yield from captured.nonlocals.items()
        yield from captured.globals.items()
    elif isinstance(value, dict):
        yield from ((f"[{key!r}]", member) for key, member in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"[{index}]", member) for index, member in enumerate(value))
    else:
        yield from getattr(value, "__dict__", {}).items()
