"""The thread that watches for those who cannot wait: event loops, and inputs in a queue.

One per session. It sleeps on the process's doorbell like any thread that waits, never yields, and
calls whoever is due. It starts when somebody watches and ends when nobody has for a while.

No watch is missed: `watch` looks itself once after it has entered it. What comes later finds the
thread asleep on the doorbell, which it armed before it looked through the watches, or not yet
asleep, and then it looks through them before it is.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple

from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from compiled_dag.host import Host

_LINGER_S: Final = 1.0
"""How long the thread stays when nobody watches: starting one takes 100 us."""


class _Watch(NamedTuple):
    ready: Callable[[], bool]
    fire: Callable[[], object]


_watchers: weakref.WeakValueDictionary[int, Watcher] = weakref.WeakValueDictionary()
_watchers_lock = threading.Lock()


class Watcher:
    """Calls back when something is ready. Held by the graphs of its session."""

    @classmethod
    def of(cls, host: Host) -> Watcher:
        """Return the one watcher of a session."""
        with _watchers_lock:
            found = _watchers.get(id(host))  # it keeps the host, so the id is not another's
            if found is None:
                found = _watchers[id(host)] = cls(host)
            return found

    def __init__(self, host: Host) -> None:
        self._host = host
        self._watches: dict[Hashable, _Watch] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._hurries = False

    def watch(self, key: Hashable, ready: Callable[[], bool], fire: Callable[[], object]) -> None:
        """Call `fire` once, on the watching thread, when `ready()` is true.

        Args:
            key: Replaces an earlier watch of the same key.
            ready: Looks at shared memory, or at what changes with a ring of the own doorbell.
            fire: Must not wait for anything that takes long.
        """
        with self._lock:
            self._watches[key] = _Watch(ready, fire)
            if self._thread is None:
                self._start()
        if ready():
            self._host.board.ring(self._host.process)

    def forget(self, key: Hashable) -> None:
        """Watch no longer; without effect if it has fired."""
        with self._lock:
            self._watches.pop(key, None)

    def _start(self) -> None:
        unregister = self._host.at_shutdown(self._hurry)
        thread = threading.Thread(
            target=self._run, args=(unregister,), name="compiled-dag-watch", daemon=True
        )
        thread.start()
        self._thread = thread

    def _run(self, unregister: Callable[[], None]) -> None:
        while self._wait(unregister):
            self._fire_due()

    def _wait(self, unregister: Callable[[], None]) -> bool:
        """Sleep until a watch is due; False if nobody watches any more."""
        deadline = time.monotonic() + _LINGER_S
        self._host.waiter.until(self._look, _never, deadline, Site(calm=True))
        with self._lock:
            if not self._watches:
                unregister()  # first: without a thread this has nothing to do with the session
                self._thread = None
                return False
        return True

    def _look(self) -> bool:
        watches = list(self._watches.values())
        return any(one.ready() for one in watches) or (self._hurries and not watches)

    def _fire_due(self) -> None:
        with self._lock:
            due = [key for key, one in self._watches.items() if one.ready()]
            watches = [self._watches.pop(key) for key in due]
        for one in watches:
            try:
                one.fire()
            except Exception:  # noqa: BLE001  reported; the others are somebody else's
                traceback.print_exc(file=sys.stderr)

    def _hurry(self, deadline: float) -> None:
        """Stay no longer than somebody watches: the session ends, and with it all graphs do."""
        self._hurries = True
        self._host.board.ring(self._host.process)
        thread = self._thread
        if thread is not None and all(one.ready() for one in list(self._watches.values())):
            thread.join(max(0.0, deadline - time.monotonic()))


def _never() -> None:
    """Guard a wait that nothing ends."""
