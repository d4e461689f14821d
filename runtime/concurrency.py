"""Actors that run several calls at once: on threads, or as coroutines of one event loop.

Plain actors have none of this: their calls run one at a time on the main thread, which also runs
the steps of graphs. The main loop stays on the main thread here too; it only hands the calls over.
Each *concurrency group* has its own limit; calls of no group share the default one.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Protocol

from runtime.signatures import is_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

DEFAULT_GROUP: Final = ""
ASYNC_CONCURRENCY: Final = 1000
"""Coroutines at once unless `max_concurrency` says otherwise."""


class Run(Protocol):
    """Runs one call, or says that it was cancelled before it ran."""

    def __call__(self, *, cancelled: bool = False) -> Awaitable[None] | None:
        """Run it; returns what is to be awaited, if anything."""
        ...


class Executor(Protocol):
    """Runs calls somewhere else than on the main thread."""

    def submit(self, group: str, number: int, run: Run) -> None:
        """Run call `number` when the group has room; if `run` returns an awaitable, await that."""
        ...

    def cancel(self, number: int) -> None:
        """Cancel a coroutine; what runs on a thread is interrupted by others."""
        ...

    def run(self, make: Callable[[], Any]) -> Any:
        """Run the constructor where coroutines will run, or here; returns what it returns."""
        ...

    def close(self) -> None:
        """Stop taking calls. Does not wait."""
        ...


def executor_for(cls: type, max_concurrency: int | None, groups: Mapping[str, int]) -> Executor:
    """Return what runs the calls of an actor of class `cls`."""
    if is_async(cls):
        limit = ASYNC_CONCURRENCY if max_concurrency is None else max_concurrency
        return _EventLoop({DEFAULT_GROUP: limit, **groups})
    return _Threads({DEFAULT_GROUP: max_concurrency or 1, **groups})


class _Threads:
    """A pool of threads for each group."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._pools = {
            group: ThreadPoolExecutor(limit, thread_name_prefix=f"calls {group}".strip())
            for group, limit in limits.items()
        }

    def submit(self, group: str, _number: int, run: Run) -> None:
        """Run `run` on a thread of the group."""
        _of(self._pools, group).submit(run)

    def cancel(self, number: int) -> None:
        """Nothing to do."""

    def run(self, make: Callable[[], Any]) -> Any:
        """Run `make` here."""
        return make()

    def close(self) -> None:
        """Stop taking calls."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)


class _EventLoop:
    """One event loop on a thread of its own; a semaphore for each group."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._loop = asyncio.new_event_loop()
        self._limits = {group: asyncio.Semaphore(limit) for group, limit in limits.items()}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        """By call; the loop itself holds them weakly."""
        threading.Thread(target=self._run, name="event loop", daemon=True).start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def submit(self, group: str, number: int, run: Run) -> None:
        """Run `run` on the loop."""
        self._loop.call_soon_threadsafe(self._start, _of(self._limits, group), number, run)

    def cancel(self, number: int) -> None:
        """Cancel the call's task, which raises where it awaits."""
        self._loop.call_soon_threadsafe(self._cancel, number)

    def _cancel(self, number: int) -> None:
        if number in self._tasks:
            self._tasks[number].cancel()

    def run(self, make: Callable[[], Any]) -> Any:
        """Run `make` on the loop and wait for it."""

        async def made() -> tuple[Any, BaseException | None]:
            try:
                return make(), None
            except BaseException as error:  # noqa: BLE001  SystemExit would end the loop
                return None, error

        value, error = asyncio.run_coroutine_threadsafe(made(), self._loop).result()
        if error is not None:
            raise error
        return value

    def _start(self, limit: asyncio.Semaphore, number: int, run: Run) -> None:
        task = self._tasks[number] = self._loop.create_task(_limited(limit, run))
        task.add_done_callback(lambda task: self._ended(task, number, run))

    def _ended(self, task: asyncio.Task[None], number: int, run: Run) -> None:
        self._tasks.pop(number, None)
        if task.cancelled():  # before its first step
            run(cancelled=True)

    def close(self) -> None:
        """Stop the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)


async def _limited(limit: asyncio.Semaphore, run: Run) -> None:
    try:
        await limit.acquire()
    except asyncio.CancelledError:
        run(cancelled=True)
        return
    try:
        awaited = run()
        if awaited is not None:
            await awaited
    finally:
        limit.release()


def _of(groups: Mapping[str, Any], group: str) -> Any:
    """Return the group's own.

    Raises:
        ValueError: There is no such group.
    """
    if group not in groups:
        known = ", ".join(map(repr, sorted(groups.keys() - {DEFAULT_GROUP}))) or "none"
        raise ValueError(f"no concurrency group {group!r} in this actor; there are: {known}")
    return groups[group]
