"""Find a work by its name, in this process or in a peer's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import building, graphs, reducing
from benchmarks.works import core_works

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.works import Work

_WORKS: dict[str, Callable[..., Work]] = {**graphs.WORKS, **building.WORKS, **reducing.WORKS}


def find(what: str, trips: int) -> Work:
    """Return a work by its name: ``"chain 4"``, ``"payload numpy in 1024"``, ``"actor call"``.

    Args:
        what: A graph's work, with its parameters; or one of `core_works`.
        trips: What batches of those are multiples of.

    Raises:
        KeyError: There is none of that name.
    """
    name, *parameters = what.split()
    if name in _WORKS:
        return _WORKS[name](*parameters)
    return core_works(trips)[what]
