"""The driver's one supervising thread: replies, deaths, logs and timers, all from one epoll.

Everything that must not run at an arbitrary moment (a finalizer inside a lock, say) is handed to it
by `call_soon`, which only appends to a deque and may be called from anywhere.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

Handler: TypeAlias = Callable[[int], None]
"""Called with the epoll events."""

READABLE: Final = select.EPOLLIN
WRITABLE: Final = select.EPOLLOUT


class Supervisor:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._handlers: dict[int, Handler] = {}
        self._soon: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._tie = itertools.count()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="compiled-dag", daemon=True)
        self.watch(self._wake, self._woken)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    # --- from any thread

    def call_soon(self, function: Callable[[], object]) -> None:
        """Run `function` on the supervising thread. Safe in finalizers."""
        self._soon.append(function)
        if not self._stopping:
            os.eventfd_write(self._wake, 1)

    def watch(self, fd: int, handler: Handler, events: int = READABLE) -> None:
        """Call `handler` whenever `fd` has one of `events` (errors and hang-ups always count)."""
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Watch other events of `fd` from now on."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Watch `fd` no longer; call it before closing the descriptor."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    @property
    def is_current_thread(self) -> bool:
        """Tell whether the caller is the supervising thread."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """End the thread and close what it waits on. Idempotent."""
        if self._stopping:
            return
        self._stopping = True  # first: the thread looks at it when it wakes
        os.eventfd_write(self._wake, 1)
        if self._thread.is_alive() and not self.is_current_thread:
            self._thread.join()
        self.close()

    def close(self) -> None:
        """Close the descriptors; in a forked child, where there is no thread."""
        self._stopping = True
        self._handlers.clear()
        if not self._epoll.closed:
            self._epoll.close()
            os.close(self._wake)

    # --- from the supervising thread

    def call_later(self, delay_s: float, function: Callable[[], None]) -> None:
        """Run `function` after `delay_s` seconds."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._tie), function))

    def _run(self) -> None:
        while not self._stopping:
            batch = [
                (fd, ev, self._handlers.get(fd)) for fd, ev in self._epoll.poll(self._timeout())
            ]
            for fd, events, handler in batch:
                # A handler may close a descriptor whose event is in this batch, and its number
                # may be another's by now: the event is not for that one.
                if handler is not None and self._handlers.get(fd) is handler:
                    self._guarded(lambda handler=handler, events=events: handler(events))  # type: ignore[misc]
            self._run_due()
        self._run_due()

    def _timeout(self) -> float | None:
        if not self._timers:
            return None
        return max(self._timers[0][0] - time.monotonic(), 0.0)

    def _run_due(self) -> None:
        while self._soon:
            self._guarded(self._soon.popleft())
        while self._timers and self._timers[0][0] <= time.monotonic():
            self._guarded(heapq.heappop(self._timers)[2])

    def _guarded(self, function: Callable[[], object]) -> None:
        """Run `function`; a failure in one handler must not end the supervision of all actors."""
        try:
            function()
        except Exception:  # noqa: BLE001  reported, then life goes on
            traceback.print_exc(file=sys.stderr)

    def _woken(self, _events: int) -> None:
        os.eventfd_read(self._wake)
