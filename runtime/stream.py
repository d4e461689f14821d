"""Results that come one by one: what a generator yields, as references."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from compiled_dag.lending import lend_by
from runtime.objects import Client, ObjectRef
from runtime.references import reduce_lent
from runtime.waiting import wait_for_some

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.parcel import Parcel


class StreamEnd(ObjectRef):
    """The driver's record of a stream: its value is the number of items, known at the end."""

    __slots__ = ("_lock", "_waiting", "items", "num_items")

    def __init__(self, what: str, source: Any, number: int | None = None, call: int = 0) -> None:
        super().__init__(what, source, number, call)
        self.items: dict[int, ObjectRef] = {}
        """Those that nobody has taken, by position."""
        self.num_items = 0
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] = []

    def add(self, position: int, parcel: Parcel) -> None:
        """Take an item; one that came before, from an earlier attempt, is passed over."""
        if position == self.num_items:
            item = self._item()
            item.complete(parcel)
            self._tell()

    def _item(self) -> ObjectRef:
        item = ObjectRef(f"{self.what}[{self.num_items}]", self.source)
        item.call = self.call
        with self._lock:
            self.items[self.num_items] = item
            self.num_items += 1
        return item

    def _finish(self) -> None:
        if self.error is not None or (self.parcel is not None and self.parcel.is_error):
            self._item().follow(self)  # the last item raises what ended the stream
        super()._finish()
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    def has(self, position: int) -> bool:
        """Tell whether it is known what comes at `position`: an item, or the end."""
        return position < self.num_items or self.done

    def take(self, position: int) -> ObjectRef | None:
        """Take the item at `position`, which must be known; None at the end."""
        return self.items.pop(position, None)

    def when_known(self, position: int, callback: Callable[[], None]) -> None:
        """Call `callback` once it is known what comes at `position`."""

        def look() -> None:
            if self.has(position):
                callback()
            else:
                self.when_known(position, callback)

        with self._lock:
            known = self.has(position)
            if not known:
                self._waiting.append(look)
        if known:
            callback()
        else:
            self.session.tend()


class Streams(Client, Protocol):
    """The session, as streams need it."""

    def next_item(self, end: ObjectRef, position: int) -> ObjectRef | None:
        """Wait for an item; None at the end."""
        ...

    def announce(self, end: ObjectRef, position: int) -> ObjectRef:
        """Return a reference that is ready once it is known what comes: whether an item does."""
        ...


lend_by(StreamEnd, reduce_lent)


class ObjectRefGenerator(Iterator[ObjectRef], AsyncIterator[ObjectRef]):
    """The results of a generator, as references, in order, each as soon as it was yielded.

    Where the generator raised, the last reference raises that. Iterate with ``for`` or
    ``async for``, in one place.
    """

    def __init__(self, session: Streams, end: ObjectRef) -> None:
        self._session = session
        self._end = end
        self._position = 0
        self._announced: ObjectRef | None = None

    def __next__(self) -> ObjectRef:
        return self._took(self._session.next_item(self._end, self._position), StopIteration)

    async def __anext__(self) -> ObjectRef:
        import asyncio  # noqa: PLC0415  50 ms that few scripts need

        item = await asyncio.to_thread(self._session.next_item, self._end, self._position)
        return self._took(item, StopAsyncIteration)

    def _took(self, item: ObjectRef | None, end: type[Exception]) -> ObjectRef:
        if item is None:
            raise end
        self._position += 1
        self._announced = None
        return item

    def next_ready(self) -> bool:
        """Tell whether the next step will not wait: there is an item, or the end is known."""
        return self._knows(self.announced())

    def is_finished(self) -> bool:
        """Tell whether the generator has ended and its last item was taken."""
        announced = self.announced()
        return self._knows(announced) and not announced.value()

    def _knows(self, announced: ObjectRef) -> bool:
        return announced.done or bool(wait_for_some(self._session, [announced], 1, 0.0))

    def announced(self) -> ObjectRef:
        """Return what is ready as soon as the next step will not wait; for `runtime.wait`."""
        if self._announced is None:
            self._announced = self._session.announce(self._end, self._position)
        return self._announced

    def completed(self) -> ObjectRef:
        """Return a reference that is ready when the generator has ended."""
        return self._end

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be sent to another process: only one place takes its items. Send "
            "the items, list(generator), or have the other process call what yields them"
        )

    def __repr__(self) -> str:
        return f"<ObjectRefGenerator {self._end.what}, {self._position} taken>"
