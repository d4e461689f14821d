"""What waits for the reply to a call: references, and how often the call may be made again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.system_call import SystemCall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.messages import Call
    from runtime.objects import ObjectRef
    from runtime.parcel import Parcel


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


def refs_of(
    entry: tuple[ObjectRef, ...] | Repeatable | SystemCall | None,
) -> tuple[ObjectRef, ...]:
    """Return the references that wait."""
    if entry.__class__ is tuple:
        return entry
    if isinstance(entry, Repeatable):
        return entry.refs
    assert not isinstance(entry, SystemCall)
    return ()
