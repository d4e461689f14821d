"""Zero-copy values pin their slot until the last view of them dies.

A lease is a ctypes array over one payload slot. Every numpy array and tensor made from it keeps it
alive through the buffer protocol; its ``__del__`` stores the reader's release word. Making one
takes under 1 us, which is why only values of 64 KiB and more are leased.

A forked child inherits the Python objects but must not release its parent's slots: a lease is of
use only in the process that made it. (Actors are forked children themselves, and make their own.)
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.interrupts import finalizer
from compiled_dag.shm.forks import generation
from compiled_dag.shm.futex import STORES_STAY_IN_ORDER, fence

if TYPE_CHECKING:
    from collections.abc import Callable

    from compiled_dag.shm.segment import Mapping

LEASE_BYTES: Final = 64 * 1024
"""Smaller values are copied out."""


# Defaults, not global names: __del__ may run when the module's globals are already gone.
@finalizer
def _release(
    self: Any,
    generation: list[int] = generation,
    ordered: bool = STORES_STAY_IN_ORDER,
    fence: Callable[[], None] = fence,
) -> None:
    words = self.words
    if words is not None and self.generation == generation[0]:
        if not ordered:
            fence()  # every read of the slot before the word that gives it back
        words[self.word] = self.use


def lease_type(capacity: int) -> Any:
    """Return the lease class for slots of `capacity` bytes."""
    # `words` is None on the class: an instance that was never filled in releases nothing.
    body = {"__del__": _release, "words": None}
    return type("Lease", (ctypes.c_ubyte * capacity,), body)


def lease(
    kind: Any, mapping: Mapping, offset: int, words: memoryview | None, word: int, use: int
) -> Any:
    """Return a buffer over ``mapping[offset:]`` that stores ``words[word] = use`` when it dies.

    Without `words` it stores nothing, until its `words` are set.
    """
    made = kind.from_address(mapping.address + offset)
    made.mapping = mapping
    made.word = word
    made.use = use
    made.generation = generation[0]
    made.words = words
    return made
