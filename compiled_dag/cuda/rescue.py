"""Setting streams free that wait for a process which has died.

An event of a dead process may never be done. A stream that waits for it goes no further, and with
it no host that waits for that stream, wherever in user code that is. But who has opened an event
may record it too, and a wait is over with the record it is bound to or any later one. So, once the
graph or group has ended, a survivor records the events of its dead peers, on a stream that has
nothing else to do. What is copied then is no result: nobody takes any.

CUDA's documentation does not say that a record of another process ends waits that were enqueued
before; ``python -m gpu_tests.facts`` finds out ("dead event"). Where it does not, all is as it was.

The main thread may be just what is stuck, so a thread of this process looks ten times a second,
while there is anything to be looked after.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from compiled_dag.cuda.driver import Translating
from compiled_dag.errors import DeviceError, MemoryCapError

if TYPE_CHECKING:
    from collections.abc import Callable

    from compiled_dag.cuda.device import Device
    from compiled_dag.cuda.driver import Stream

_LOOK_S: Final = 0.1


class Waiting(Protocol):
    """What has opened events of peers."""

    def release(self, stream: Stream) -> None:
        """Record the events of peers that have died. Any thread's; raises the driver's errors."""
        ...


class Rescue:
    """Of all that waits in one graph or group."""

    def __init__(self, device: Device, has_ended: Callable[[], bool]) -> None:
        """Begin to look after nothing yet.

        Args:
            device: This process's GPU.
            has_ended: Tells whether the graph or group has: nobody is released before.
        """
        self._device = device
        self._has_ended = has_ended
        self._calling = Translating(device.driver, "setting streams free that wait for the dead")
        self._waiting: list[Waiting] = []
        self._stream: Stream | None = None
        self._lock = threading.Lock()

    def add(self, one: Waiting) -> None:
        """Look after `one` too."""
        with self._lock:
            self._waiting.append(one)
        _watch.add(self)

    def look(self) -> None:
        """Set free what waits for the dead, if the graph or group has ended."""
        if not self._has_ended():
            return
        with self._lock:
            try:
                with self._calling:
                    for one in self._waiting:
                        one.release(self._idle())
            except (DeviceError, MemoryCapError) as error:
                self._waiting = []
                logging.getLogger(__name__).warning("what waits for the dead stays so: %s", error)

    def _idle(self) -> Stream:
        if self._stream is None:
            self._stream = self._device.make_stream()
        return self._stream

    def close(self) -> None:
        """Look a last time, and no more. Idempotent."""
        self.look()
        _watch.drop(self)
        with self._lock:
            self._waiting = []


class _Watch:
    """The thread, which there is while there is anything to be looked after."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rescues: list[Rescue] = []
        self._thread: threading.Thread | None = None

    def add(self, rescue: Rescue) -> None:
        """Have the thread look after `rescue`."""
        with self._lock:
            if rescue not in self._rescues:
                self._rescues.append(rescue)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gpu rescue", daemon=True)
                self._thread.start()

    def drop(self, rescue: Rescue) -> None:
        """Have it do so no more."""
        with self._lock:
            if rescue in self._rescues:
                self._rescues.remove(rescue)

    def _run(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            with self._lock:
                found = list(self._rescues)
                if not found:
                    self._thread = None
                    return
            for rescue in found:
                rescue.look()


_watch: Final = _Watch()
