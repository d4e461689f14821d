"""An actor's main loop: any number of resident programs, and the mailbox.

One thread, one thing at a time. An execution of a program starts when its first input is there and
then runs to its end; mailbox messages (ordinary calls, loading a graph) are served between
executions, one after at most one more execution; programs that are ready take turns. When nothing
is there the process waits in one place, its doorbell. What the mailbox costs a busy graph is one
comparison per execution.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, Protocol

from compiled_dag.shm.waiter import Site, Source, Waiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from compiled_dag.shm.board import Board

_UNSEEN: Final = -1
"""No count of a mailbox."""
_NOBODY: Final = -1
"""No program's number."""


class Resident(Protocol):
    """A program that lives in this process."""

    @property
    def number(self) -> int:
        """The graph's; of turns that several graphs take, one below 0."""
        ...

    @property
    def ready(self) -> Callable[[], bool]:
        """Tells whether its next execution can start."""
        ...

    def sources(self) -> tuple[Source, ...]:
        """Return the one or two words that change when its next execution can start, or none."""
        ...

    def run(self) -> bool:
        """Run one execution; returns False once the graph has ended: it has no turn any more."""
        ...

    def leave(self) -> bool:
        """Take note of that; returns whether nothing is left to be run."""
        ...


class Loop:
    """The main loop of one actor."""

    def __init__(
        self, board: Board, process: int, waiter: Waiter, serve: Callable[[], bool]
    ) -> None:
        """Make a loop.

        Args:
            board: The session's board.
            process: This process's line on it.
            waiter: The main thread's waiting policy.
            serve: Handles one message of the mailbox; returns False if there was none.
        """
        self._words = board.words
        self._mailbox = board.mailbox_index(process)
        self._waiter = waiter
        self._serve = serve
        self._residents: tuple[Resident, ...] = ()
        self._site = Site()
        self._seen = 0
        self._stopping = False

    def add(self, resident: Resident) -> None:
        """Start serving a program; it takes its turn from now on."""
        self._residents = (*self._residents, resident)

    def remove(self, number: int) -> None:
        """Stop serving the program of this number, if it is there."""
        self._residents = tuple(item for item in self._residents if item.number != number)

    @property
    def has_programs(self) -> bool:
        """Whether there is a program that it serves."""
        return bool(self._residents)

    def look_again(self) -> None:
        """Serve the mailbox soon, though nothing may have come. Takes no lock."""
        self._seen = _UNSEEN

    def stop(self) -> None:
        """Return from `run` as soon as the current message or execution is done.

        Another thread rings the doorbell afterwards.
        """
        self._stopping = True

    def run(self) -> None:
        """Serve until `stop`."""
        with contextlib.suppress(_StoppedError):
            self._run()

    def _run(self) -> None:
        words, mailbox = self._words, self._mailbox
        turn = 0
        while not self._stopping:
            if words[mailbox] != self._seen:
                self._serve_one()
            residents = self._residents
            if not residents:
                found = _NOBODY
            elif len(residents) == 1:  # the usual case of graphs, flat
                found = 0 if residents[0].ready() else _NOBODY
            else:
                found = _next_ready(residents, turn)
            # No variable for the program itself: in an idle actor it would keep one that is gone.
            if found >= 0:
                turn = found
                if not residents[turn].run() and residents[turn].leave():
                    self.remove(residents[turn].number)
            elif words[mailbox] == self._seen:
                self._wait()

    def _guard(self) -> None:
        """End the wait if another thread has stopped the loop."""
        if self._stopping:
            raise _StoppedError

    def _serve_one(self) -> None:
        """Serve one message; the mailbox counts as seen only once it is empty."""
        self._seen = self._words[self._mailbox]
        if self._serve():
            self._seen = _UNSEEN

    def _wait(self) -> None:
        """Wait until there is something to do; cheapest for one program, or none."""
        words, mailbox, seen = self._words, self._mailbox, self._seen
        residents, waiter = self._residents, self._waiter
        if not residents:
            waiter.word(words, mailbox, seen, self._guard, None, self._site)
            return
        sources = residents[0].sources() if len(residents) == 1 else ()
        if len(sources) == 1:
            waiter.either(sources[0], (words, mailbox, seen), self._guard, self._site)
            return
        if sources:
            one, other = sources
            waiter.any_of(one, other, (words, mailbox, seen), self._guard, self._site)
            return
        # What is `ready` is asked for at each look: that of `Turns` is another one once a look of
        # its own has passed the turns on.
        waiter.until(
            lambda: words[mailbox] != seen or any(resident.ready() for resident in residents),
            self._guard,
            None,
            self._site,
        )


def _next_ready(residents: tuple[Resident, ...], turn: int) -> int:
    """Return whose turn comes next, after that of number `turn`, of those that can start."""
    for step in range(1, len(residents) + 1):
        number = (turn + step) % len(residents)
        if residents[number].ready():
            return number
    return _NOBODY


class _StoppedError(Exception):
    """The loop is to end."""
