"""More ranks than cores: as many on each core.

Ranks that yield while they wait look busy to the scheduler, all the same, and it moves none that
has just run. So three of four on one of two cores stay there for some thousand operations, each of
which takes twice the time: 42 us instead of 20. Therefore every rank shows, once in `BETWEEN`
operations, the core it is on; and if one core has two more than another, one of those goes there.

It goes only where other ranks wait by yielding, which says that nobody else keeps that core: a rank
beside a hog sleeps, and shows no core. It is free to be moved again, as it was before.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from compiled_dag.shm import cores

if TYPE_CHECKING:
    from collections.abc import Sequence

BETWEEN: Final = 8
"""Operations. To show and to look take 2 us together, a move 10 to 20."""


def due(shown: Sequence[int]) -> tuple[int, int] | None:
    """Return which rank is to move, and to which of the cores shown; None if none is.

    Args:
        shown: By rank: 1 + its core, or 0 if it shows none.
    """
    if 0 in shown:
        return None
    counts = {core: shown.count(core) for core in sorted(shown)}
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[most] - counts[least] < 2:  # noqa: PLR2004  a move would only turn them round
        return None
    return shown.index(most), least - 1


class Spread:
    """One rank's part: `show` before the ranks meet, `look` after it."""

    def __init__(self, words: memoryview, places: Sequence[int], rank: int) -> None:
        """Take part.

        Args:
            words: Shared memory.
            places: By rank: which of the words says where it is.
            rank: This one.
        """
        self._words = words
        self._places = places
        self._rank = rank

    def show(self, *, yields: bool) -> None:
        """Show the core that this thread is on, if it waits by yielding."""
        self._words[self._places[self._rank]] = 1 + cores.current() if yields else 0

    def look(self) -> None:
        """Move, if it is this rank that is to."""
        words = self._words
        move = due([words[place] for place in self._places])
        if move is not None and move[0] == self._rank:
            with contextlib.suppress(OSError):  # not allowed there, or at all: it is only slower
                cores.move(move[1])
