"""The references that an actor's or a worker's process holds; their home is the driver.

The driver keeps what a process holds, and counts how often each reference was sent there: once the
last copy here is gone, that is reported together with how often it had arrived.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from runtime.objects import Lifeline, ObjectRef
from runtime.references import next_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runtime.nested import NestedSession


class _Arrivals(weakref.ref[Any]):
    """How often a living reference has arrived; its end is reported with that.

    Each reference has its own count, and a weak reference is dead before its callback runs: one
    that arrives while the last copy goes begins a count of its own.
    """

    __slots__ = ("count", "lent", "number")

    def __init__(self, reference: Any, gone: Callable[[Any], None]) -> None:
        super().__init__(reference, gone)  # type: ignore[call-arg]
        self.number: int = reference.number
        self.count = 0
        self.lent = False
        """Whether others were let find it."""

    def __new__(cls, reference: Any, gone: Callable[[Any], None]) -> _Arrivals:
        return super().__new__(cls, reference, gone)


class Held:
    """The table of them, by number, which is negative for lifelines. Any thread may use it."""

    def __init__(self, session: NestedSession) -> None:
        """Begin with none; `session` is their source."""
        self._session = session
        self._live: dict[int, _Arrivals] = {}
        self._finding = threading.Lock()
        self.gone: deque[tuple[int, int]] = deque()
        """Number and count of those that are gone and not reported."""
        self._wanted: set[int] = set()
        """Those whose outcome was asked for."""
        self.on_gone: Callable[[], object] | None = None
        """Sees to it that `take_gone` is called soon. Takes no lock."""

    def find(self, number: int) -> Any:
        """Return the reference with this number, which has just arrived once more."""
        with self._finding:
            arrivals = self._live.get(number)
            ref = None if arrivals is None else arrivals()
            if ref is None:
                if number < 0:
                    ref = Lifeline(-number, self._session, _nothing)
                else:
                    ref = ObjectRef("an object", self._session, number)
                arrivals = self._live[number] = _Arrivals(ref, self._has_gone)
            assert arrivals is not None
            arrivals.count += 1
            return ref

    def new(self, what: str) -> ObjectRef:
        """Make a reference for a result that is about to be asked for."""
        ref = ObjectRef(what, self._session, next_reference())
        arrivals = self._live[ref.number] = _Arrivals(ref, self._has_gone)
        arrivals.count = 1
        return ref

    def living(self, number: int) -> Any:
        """Return the reference with this number if there is one; it has not arrived."""
        arrivals = self._live.get(number)
        return None if arrivals is None else arrivals()

    def lend(self, number: int, tell: Callable[[], object]) -> None:
        """Call `tell` unless others were let find this reference before."""
        arrivals = self._live[number]
        if not arrivals.lent:
            tell()
            arrivals.lent = True

    def want(self, refs: Sequence[ObjectRef]) -> list[int]:
        """Return the numbers of those whose outcome is to be asked for now."""
        numbers = [ref.number for ref in refs if not ref.done and ref.number not in self._wanted]
        self._wanted.update(numbers)
        return numbers

    def _has_gone(self, arrivals: _Arrivals) -> None:
        """Note that the last copy of a reference here is gone. Takes no lock."""
        number = arrivals.number
        if self._live.get(number) is arrivals:
            del self._live[number]
            self._wanted.discard(number)
        self.gone.append((number, arrivals.count))
        if self.on_gone is not None:
            self.on_gone()

    def take_gone(self) -> list[tuple[int, int]]:
        """Return number and count of those that are gone since it was last called."""
        counts = []
        while self.gone:
            counts.append(self.gone.popleft())
        return counts


def _nothing(_number: int) -> None:
    """Do what a lifeline does here when it goes: its arrivals are reported."""
