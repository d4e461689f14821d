"""What waits for the reply to a call: references, and how often the call may be made again.

And what the table of that says, by the number of the call. Replies are taken out of it at any time,
by another thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from compiled_dag.errors import PendingCallsLimitError
from runtime.system_call import SystemCall

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from compiled_dag.errors import ActorError
    from runtime.messages import Call
    from runtime.objects import ObjectRef
    from runtime.parcel import Parcel

CREATION: Final = 0
"""Number of the call that runs the constructor."""


class Repeatable:
    """A call that may be made again."""

    __slots__ = ("attempts", "call", "exceptions", "needed", "refs")

    def __init__(
        self,
        call: Call,
        needed: Sequence[ObjectRef],
        refs: tuple[ObjectRef, ...],
        attempts: int,
        exceptions: bool | tuple[type[BaseException], ...],
    ) -> None:
        self.call = call
        self.needed = needed
        self.refs = refs
        self.attempts = attempts
        """How many more; negative: as many as it takes."""
        self.exceptions = exceptions
        """Which exceptions of the method are reason enough."""

    def use_attempt(self) -> bool:
        """Count one more attempt; returns False if there is none left."""
        if not self.attempts:
            return False
        self.attempts -= self.attempts > 0
        return True

    def may_follow(self, failed: Parcel) -> bool:
        """Tell whether it is to be made again after what the method raised; counts that."""
        if self.exceptions is False:
            return False
        if self.exceptions is not True:
            cause = failed.load().exception().cause
            if not isinstance(cause, self.exceptions):
                return False
        return self.use_attempt()


Entry: TypeAlias = "tuple[ObjectRef, ...] | Repeatable | SystemCall"


def refs_of(entry: Entry | None) -> tuple[ObjectRef, ...]:
    """Return the references that wait."""
    if entry.__class__ is tuple:
        return entry
    if isinstance(entry, Repeatable):
        return entry.refs
    assert not isinstance(entry, SystemCall)
    return ()


def what_of(entry: Entry | None) -> str:
    """Return what messages call what is waited for; empty if nobody waits."""
    refs = refs_of(entry)
    return refs[0].what if refs else ""


def number_of(pending: Mapping[int, Entry], ref: ObjectRef) -> int | None:
    """Return the number of the call that makes `ref`; None if none does."""
    for number, entry in list(pending.items()):  # replies are taken out at any time
        if not isinstance(entry, SystemCall) and ref in refs_of(entry):
            return number
    return None


def check_room(pending: Mapping[int, Entry], most: int) -> None:
    """Refuse one more call where `most` have no answer.

    Raises:
        PendingCallsLimitError: So many have none.
    """
    count = sum(
        number != CREATION and not isinstance(entry, SystemCall)
        for number, entry in list(pending.items())
    )
    if count >= most:
        raise PendingCallsLimitError(
            f"{count} calls are unanswered, and max_pending_calls={most}. Get results before "
            "calling again, or raise the limit"
        )


def sort_lost(
    pending: Mapping[int, Entry], unsent: Collection[int]
) -> tuple[list[Repeatable], list[int]]:
    """Sort out what was sent to a process that died, all but the constructor.

    Returns:
        The calls to be made again, the last one first, each with one attempt less; and the numbers
        of all that are over.
    """
    again: list[Repeatable] = []
    over: list[int] = []
    for number in sorted(pending.keys() - {CREATION, *unsent}, reverse=True):
        entry = pending[number]
        if isinstance(entry, Repeatable) and entry.use_attempt():
            again.append(entry)
        else:
            over.append(number)
    return again, over


def fail_entry(entry: Entry, error: ActorError, error_of: Callable[[str], ActorError]) -> None:
    """Fail what waits: references with what `error_of` says of their call."""
    if isinstance(entry, SystemCall):
        entry.fail(error)
        return
    for ref in refs_of(entry):
        ref.fail(error_of(ref.what))
