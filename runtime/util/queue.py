"""A first-in, first-out queue in an actor: any number of producers and consumers anywhere.

A call that has to wait does so in the actor, as a coroutine: nobody polls.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compiled_dag.keywords import strict_keywords
from runtime.api import get, kill, remote, wait

if TYPE_CHECKING:
    from runtime.actor import ActorHandle


class Empty(queue.Empty):
    """The queue holds too few items."""


class Full(queue.Full):
    """The queue has no room."""


class Queue:
    """A queue in an actor of its own. May be passed to tasks and actors, which then share it."""

    @strict_keywords
    def __init__(self, maxsize: int = 0, actor_options: Mapping[str, Any] | None = None) -> None:
        """Start the queue's actor.

        Args:
            maxsize: Most items that it holds; 0 for any number.
            actor_options: Options of the actor, as for `.options()`.
        """
        self.maxsize = maxsize
        self.actor: Any = remote(_QueueActor).options(**(actor_options or {})).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """Return the number of items."""
        number: int = get(self._actor().qsize.remote())
        return number

    def qsize(self) -> int:
        """Return the number of items."""
        return self.size()

    def empty(self) -> bool:
        """Tell whether it holds nothing."""
        return self.size() == 0

    def full(self) -> bool:
        """Tell whether it has no room."""
        return 0 < self.maxsize <= self.size()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item, waiting for room.

        Args:
            item: Anything that can be pickled.
            block: Wait for room.
            timeout: Seconds to wait; None for ever.

        Raises:
            Full: There is no room, or was none in time.
            ValueError: `timeout` is negative.
        """
        call = self._put(item, block=block, timeout=timeout)
        try:
            get(call)
        except Full as error:
            raise _plain(error) from None

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item, as `put`, without blocking the event loop."""
        call = self._put(item, block=block, timeout=timeout)
        try:
            await call
        except Full as error:
            raise _plain(error) from None

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first item, waiting for one.

        Args:
            block: Wait for an item.
            timeout: Seconds to wait; None for ever.

        Raises:
            Empty: There is none, or came none in time.
            ValueError: `timeout` is negative.
        """
        call = self._get(block=block, timeout=timeout)
        try:
            return get(call)
        except Empty as error:
            raise _plain(error) from None

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first item, as `get`, without blocking the event loop."""
        call = self._get(block=block, timeout=timeout)
        try:
            return await call
        except Empty as error:
            raise _plain(error) from None

    def _put(self, item: Any, *, block: bool, timeout: float | None) -> Any:
        if not block:
            return self._actor().put_batch.remote([item])
        return self._actor().put.remote(item, _checked(timeout))

    def _get(self, *, block: bool, timeout: float | None) -> Any:
        if not block:
            return self._actor().get.remote(0)
        return self._actor().get.remote(_checked(timeout))

    def put_nowait(self, item: Any) -> None:
        """Add an item; raises `Full` if there is no room."""
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """Take the first item; raises `Empty` if there is none."""
        return self.get(block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add items in their order, all of them or none.

        Raises:
            Full: There is no room for all.
            TypeError: `items` cannot be iterated over.
        """
        if not isinstance(items, Iterable):
            raise TypeError(f"put_nowait_batch takes items, not {type(items).__name__}")
        try:
            get(self._actor().put_batch.remote(list(items)))
        except Full as error:
            raise _plain(error) from None

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take the first `num_items` items, all of them or none.

        Raises:
            Empty: There are fewer.
            TypeError: `num_items` is no integer.
            ValueError: `num_items` is negative.
        """
        if not isinstance(num_items, int):
            raise TypeError(f"num_items must be an integer, not {type(num_items).__name__}")
        if num_items < 0:
            raise ValueError(f"num_items={num_items} is negative")
        try:
            items: list[Any] = get(self._actor().get_batch.remote(num_items))
        except Empty as error:
            raise _plain(error) from None
        return items

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the queue's actor. Idempotent; whoever waits for the queue gets `ActorDiedError`.

        Args:
            force: Do not wait until what was asked of the queue before has been done.
            grace_period_s: Seconds to wait for that.
        """
        if self.actor is None:
            return
        if not force:
            wait([self.actor.qsize.remote()], timeout=grace_period_s)
        kill(self.actor)
        self.actor = None

    def _actor(self) -> ActorHandle:
        if self.actor is None:
            raise RuntimeError("this queue has been shut down (Queue.shutdown)")
        actor: ActorHandle = self.actor
        return actor


def _checked(timeout: float | None) -> float | None:
    if timeout is not None and timeout < 0:
        raise ValueError(f"timeout={timeout!r} is negative")
    return timeout


def _plain(error: Empty | Full) -> Empty | Full:
    """Return the error without what it says of the actor, which users did not call."""
    kind = Empty if isinstance(error, Empty) else Full
    return kind(*getattr(error, "cause", error).args)


class _QueueActor:
    """All methods are coroutines, so that they run on the loop of the one `asyncio.Queue`."""

    def __init__(self, maxsize: int) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    async def qsize(self) -> int:
        return self._queue.qsize()

    async def put(self, item: Any, timeout: float | None) -> None:
        if not self._queue.full():  # wait_for(..., 0) does not even look before Python 3.12
            self._queue.put_nowait(item)
            return
        try:
            await asyncio.wait_for(self._queue.put(item), timeout)
        except asyncio.TimeoutError:
            raise Full(f"no room within {timeout:g} s in {self._about()}") from None

    async def get(self, timeout: float | None) -> Any:
        if not self._queue.empty():
            return self._queue.get_nowait()
        try:
            return await asyncio.wait_for(self._queue.get(), timeout)
        except asyncio.TimeoutError:
            raise Empty(f"no item within {timeout:g} s in {self._about()}") from None

    async def put_batch(self, items: Sequence[Any]) -> None:
        if 0 < self._queue.maxsize < self._queue.qsize() + len(items):
            raise Full(f"no room for {len(items)} more in {self._about()}")
        for item in items:
            self._queue.put_nowait(item)

    async def get_batch(self, num_items: int) -> list[Any]:
        if num_items > self._queue.qsize():
            raise Empty(f"{num_items} items are not in {self._about()}")
        return [self._queue.get_nowait() for _ in range(num_items)]

    def _about(self) -> str:
        size, most = self._queue.qsize(), self._queue.maxsize
        return f"a queue of {size} items" + (f" of at most {most}" if most > 0 else "")
