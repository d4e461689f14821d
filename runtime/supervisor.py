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

_LATE_S: Final = 2e-3
"""How long `Supervisor.change_late` may take."""


class Supervisor:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._handlers: dict[int, Handler] = {}
        self._events: dict[int, int] = {}
        """What of each descriptor is watched."""
        self._late: tuple[int, int] | None = None
        """A descriptor, and what of it is to be watched soon."""
        self._late_due = False
        self._changing = threading.Lock()
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
        self._events[fd] = events
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Watch other events of `fd` from now on, if it is watched at all."""
        with self._changing:
            self._settle(unless=fd)
            self._modify(fd, events)

    def change_late(self, fd: int, events: int) -> None:
        """Watch other events of `fd` soon: within 2 ms, or when another descriptor's change.

        What is changed back before that costs no system call: a thread that gets one result after
        the other takes over the reading, and gives it back, each time.
        """
        with self._changing:
            self._settle(unless=fd)
            self._late = fd, events
            due, self._late_due = self._late_due, True
        if not due:
            self.call_soon(lambda: self.call_later(_LATE_S, self._fall_due))

    def settle(self) -> None:
        """Do now what `change_late` has put off."""
        if self._late is not None:
            with self._changing:
                self._settle()

    def _fall_due(self) -> None:
        with self._changing:  # or it could get lost that nothing is due any more
            self._late_due = False
            self._settle()

    def _settle(self, unless: int = -1) -> None:
        late, self._late = self._late, None
        if late is not None and late[0] != unless:
            self._modify(*late)

    def _modify(self, fd: int, events: int) -> None:
        if self._events.get(fd, events) != events:
            self._events[fd] = events
            self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Watch `fd` no longer; call it before closing the descriptor."""
        with self._changing:
            if self._handlers.pop(fd, None) is None:
                return
            if self._late is not None and self._late[0] == fd:
                self._late = None
            del self._events[fd]
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
