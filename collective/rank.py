"""One rank's end of a group, and what all its operations do: meet the others, say what fails."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from collective.header import FAULTED, GroupHeader, Preflight
from compiled_dag.errors import ChannelClosedError, CollectiveError
from compiled_dag.outcome import Error, Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collective.process_group import ProcessGroup
    from compiled_dag.host import ActorContext
    from compiled_dag.shm.waiter import Waiter

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

    def __post_init__(self) -> None:
        self.waiter.calm += self.process_group.needs_calm

    @property
    def is_faulted(self) -> bool:
        """Whether a rank has given its backend up."""
        return self.header.state == FAULTED

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
        self.waiter.calm -= self.process_group.needs_calm
        self.process_group.abort()
        self.header.close()


class RankPart:
    """What every operation does on its rank: meet the others, and say what goes wrong."""

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

    def _meet(self) -> list[bytes] | Error | None:
        """Wait for the other ranks; see `Preflight.meet`.

        Raises:
            ChannelClosedError: The driver has ended the group.
        """
        try:
            return self._group.preflight.meet()
        except ChannelClosedError:
            # A peer may have seen all arrive and be in the backend, waiting for this rank.
            self._group.process_group.abort()
            raise

    def _fault(self, failure: RuntimeError, execution: int) -> Error:
        """The backend failed: give the group up on this rank, so that no peer waits for it.

        A peer's death is the usual cause, and the driver tells about it within milliseconds: then
        the graph breaks with the death as its cause and nothing of this is ever seen.
        """
        group = self._group
        text = f"{self._text} failed in {group.process_group.backend}: {failure}"
        group.give_up(self._waiter, text)
        group.header.guard()
        return self._capture(CollectiveError(f"{text}. {_FAULTED_TEXT}"), execution)

    def _capture(self, error: Exception, execution: int) -> Error:
        place = self._places[self._rank]
        return Error.capture(error, place, rank=self._rank, execution=execution)


class RankBarrier(RankPart):
    """A barrier: the ranks meet, and that is all."""

    def start(self, values: tuple[Any], execution: int) -> tuple[Any]:
        """Meet the other ranks."""
        (value,) = values
        error = value if value.__class__ is Error else None
        self._group.preflight.arrive(b"" if error else self._text.encode(), error)
        met = self._meet()
        return (met.at(execution=execution),) if isinstance(met, Error) else values

    def wait(self, values: tuple[Any]) -> tuple[Any]:
        """Return this rank's own value, or the `Error` that a rank has."""
        return values


def _no_guard() -> None:
    """The wait is for the guard's own condition."""
