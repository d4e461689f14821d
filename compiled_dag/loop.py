"""An actor's main loop: any number of resident programs, and the mailbox.

One thread, one thing at a time. An execution of a program starts when its first input is there and
then runs to its end; mailbox messages (ordinary calls, loading a graph) are served between
executions, one after at most one more execution; programs that are ready take turns. When nothing is there the process waits in one
place, its doorbell. What the mailbox costs a busy graph is one comparison per execution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from compiled_dag.shm.board import Board
from compiled_dag.shm.waiter import Waiter


class Resident(Protocol):
    """A program that lives in this process."""

    @property
    def key(self) -> int:
        """The graph's number."""
        ...

    def ready(self) -> bool:
        """Tell whether its next execution can start (or the graph has ended)."""
        ...

    def run(self) -> None:
        """Run one execution; returns early, and stays not ready, once the graph has ended."""
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
        self._seen = 0
        self._stopping = False

    def add(self, resident: Resident) -> None:
        """Start serving a program; it takes its turn from now on."""
        self._residents = (*self._residents, resident)

    def remove(self, key: int) -> None:
        """Stop serving the program of graph `key`, if it is there."""
        self._residents = tuple(item for item in self._residents if item.key != key)

    def stop(self) -> None:
        """Return from `run` as soon as the current message or execution is done."""
        self._stopping = True

    def run(self) -> None:
        """Serve until `stop`."""
        words, mailbox = self._words, self._mailbox
        turn = 0
        while not self._stopping:
            if words[mailbox] != self._seen:
                self._serve_one()
            residents = self._residents
            for _ in residents:
                turn = (turn + 1) % len(residents)
                if residents[turn].ready():
                    residents[turn].run()
                    break
            else:
                if words[mailbox] == self._seen:
                    self._waiter.until(self._something, _no_guard)

    def _serve_one(self) -> None:
        """Serve one message; remember the mailbox as seen only once it is empty."""
        count = self._words[self._mailbox]
        if not self._serve():
            self._seen = count

    def _something(self) -> bool:
        if self._words[self._mailbox] != self._seen:
            return True
        return any(resident.ready() for resident in self._residents)


def _no_guard() -> None:
    """The loop itself always waits: its end comes as a message."""
