"""One rank's end of a group, and what all its operations do: meet the others, say what fails."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from collective.header import FAULTED, GroupHeader
from compiled_dag.errors import ChannelClosedError, CollectiveError
from compiled_dag.outcome import Error, Place
from compiled_dag.shm.state import STATE_WORD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collective.preflight import Preflight
    from collective.process_group import OperationError, ProcessGroup
    from compiled_dag.host import ActorContext
    from compiled_dag.shm.waiter import Waiter

ENDS: Final = (ChannelClosedError, SystemExit, KeyboardInterrupt)
"""What ends the graph, or the actor; all else is of one execution, whatever it is."""

_DEATH_NOTICE_S: Final = 2.0
"""How long a rank whose backend failed waits to hear that a peer died."""

_FAULTED_TEXT: Final = "The group cannot be used any more: compile the graph again"


@dataclass(slots=True)
class RankGroup:
    """This process's end of a group."""

    header: GroupHeader
    preflight: Preflight
    process_group: ProcessGroup
    rank: int
    waiter: Waiter

    @property
    def is_faulted(self) -> bool:
        """Whether a rank has given its backend up."""
        return self.header.words[STATE_WORD] == FAULTED

    def faulted_text(self) -> str:
        """Return what is to be said of a group whose backend has been given up."""
        failure = self.header.failure()
        return f"{failure}. {_FAULTED_TEXT}" if failure else _FAULTED_TEXT

    def give_up(self, waiter: Waiter, text: str) -> None:
        """Let go of a backend that has failed, and wait for the driver's word: a peer has died.

        Nobody waits for this rank any more; without that word the failure is the backend's own, and
        `text`, which the other ranks can read, says what it was.
        """
        self.header.fail(self.rank, text)
        self.process_group.abort()
        deadline = time.monotonic() + _DEATH_NOTICE_S
        waiter.until(self.header.stopped, _no_guard, deadline)

    def close(self) -> None:
        """Give the group up."""
        self.process_group.abort()
        self.header.close()


class RankBase(ABC):
    """What every operation does on its rank: meet the others, and say what goes wrong.

    Whatever is raised here, by a library or by a signal handler of the user's, is an error of that
    execution. Before this rank has come to the operation, it is what the rank brings, and all ranks
    have it. From then on the others may be in the backend already. What comes up while this rank
    waits for them is put off: they have their results, and this rank has the error in place of its
    own, as if a method had raised it after the operation. What breaks the backend off ends the
    group for all, unless the backend knows better (`OperationError`).
    """

    def __init__(
        self,
        context: ActorContext,
        group_id: int,
        rank: int,
        places: Sequence[Place],
        text: str,
    ) -> None:
        self._group: RankGroup = context.resources[f"group {group_id}"]
        self._waiter = context.waiter
        self._rank = rank
        self._places = tuple(places)
        self._text = text
        self._put_off: Error | None = None
        """What was raised while this rank waited for the others."""

    def start(self, values: tuple[Any, ...], execution: int) -> Any:
        """Meet the other ranks; launch if all bring what goes together."""
        turn = self._group.preflight.turn
        try:
            return self._start(values, execution)
        except ENDS:
            raise
        except BaseException as failure:  # noqa: BLE001  signal handlers may raise anything
            return self._broken_off(failure, turn, execution, over=self._is_meeting)

    _is_meeting = False
    """Whether the operation is over when the ranks have met."""

    @abstractmethod
    def _start(self, values: tuple[Any, ...], execution: int) -> Any:
        """Do what `start` does; what is raised is `start`'s to handle."""

    def _come(
        self, record: bytes, error: Error | None, execution: int, beside: bytes = b""
    ) -> list[bytes] | Error | None:
        """Show the other ranks what this one brings, and wait for them.

        See `Preflight.arrive` and `Preflight.meet`.

        Raises:
            ChannelClosedError: The driver has ended the group.
        """
        preflight = self._group.preflight
        turn = preflight.turn
        try:
            preflight.arrive(b"" if error else record, error, beside)
        except BaseException as failure:
            if isinstance(failure, ENDS) or preflight.take_back(turn):
                raise
            self._put_off = self._put_off or self._capture(failure, execution)
            self._group.header.ring_all()  # that may be what was broken off
        return self._meet(execution)

    def _meet(self, execution: int) -> list[bytes] | Error | None:
        while True:
            try:
                return self._group.preflight.meet()
            except ENDS as end:
                if isinstance(end, ChannelClosedError):
                    # A peer may have seen all arrive and be in the backend, waiting for this rank.
                    self._group.process_group.abort()
                raise
            except BaseException as failure:  # noqa: BLE001  signal handlers may raise anything
                self._put_off = self._put_off or self._capture(failure, execution)

    def _broken_off(
        self, failure: BaseException, turn: int, execution: int, *, over: bool
    ) -> Error:
        """Deal with what broke the start of an operation off.

        Args:
            failure: What was raised.
            turn: How many preflights this rank had reached before the operation.
            execution: Of the graph.
            over: Whether the operation is over for the others when the ranks have met.
        """
        error = self._capture(failure, execution)
        preflight = self._group.preflight
        if preflight.take_back(turn):
            met = self._come(b"", error, execution)
            assert isinstance(met, Error), "this rank has brought one"
            error = met.at(execution=execution)
        elif over:
            self._meet(execution)
        else:
            error = self._fault(failure, execution)
        self._put_off = None
        return error

    def _fault(self, failure: BaseException, execution: int) -> Error:
        """The backend failed: give the group up on this rank, so that no peer waits for it.

        A peer's death is the usual cause, and the driver tells about it within milliseconds: then
        the graph breaks with the death as its cause and nothing of this is ever seen.
        """
        group, header = self._group, self._group.header
        who = f"{self._places[self._rank].actor}, rank {self._rank}"
        kind = "" if isinstance(failure, RuntimeError) else f"{type(failure).__name__}: "
        text = f"{self._text} failed in {group.process_group.backend} on {who}: {kind}{failure}"
        group.give_up(self._waiter, text)
        header.guard()
        first = header.failure()  # this rank may have failed because of another one
        told = text if not first or text.startswith(first) else first
        return self._capture(CollectiveError(f"{told}. {_FAULTED_TEXT}"), execution)

    def _of_operation(self, failed: OperationError, execution: int) -> Error:
        """Return how an operation has failed, here or on another rank."""
        failure = failed.failure
        if not isinstance(failure, Error):
            return self._capture(failure, execution)
        assert failure.rank is not None, "the rank that failed is known"
        return replace(failure, place=self._places[failure.rank], execution=execution)

    def _capture(self, error: BaseException, execution: int) -> Error:
        place = self._places[self._rank]
        return Error.capture(error, place, rank=self._rank, execution=execution)


class RankBarrier(RankBase):
    """A barrier: the ranks meet, and that is all."""

    _is_meeting = True

    def _start(self, values: tuple[Any, ...], execution: int) -> Any:
        (value,) = values
        error = value if value.__class__ is Error else None
        met = self._come(self._text.encode(), error, execution)
        if isinstance(met, Error):
            return met.at(execution=execution)
        error, self._put_off = self._put_off, None
        return value if error is None else error

    def wait(self, value: Any) -> tuple[Any]:
        """Return this rank's own value, or the `Error` that a rank has."""
        return (value,)


def _no_guard() -> None:
    """The wait is for the guard's own condition."""
