"""Setting streams free that wait for a process which has died.

An event of a dead process may never be done. A stream that waits for it goes no further, and with
it no host that waits for that stream, wherever in user code that is. But who has opened an event
may record it too, and a wait is over with the record it is bound to or any later one. So, once the
graph or group has ended, a survivor records the events of its dead peers, on a stream that has
nothing else to do. What is copied then is no result: nobody takes any.

CUDA's documentation does not say that a record of another process ends waits that were enqueued
before; ``python -m gpu_tests.facts`` finds out ("dead event"). Where it does not, all is as it was.

The main thread may be just what is stuck, so a thread of this process does it, one for each graph
or group. As long as that is open the thread sleeps, on its state (`shm.state`); from then on it
looks ten times a second, until all is closed: peers may die in the middle of the end.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final, Protocol

from compiled_dag.cuda.driver import Translating
from compiled_dag.errors import DeviceError, MemoryCapError
from compiled_dag.shm.state import OPEN, STATE_WORD, sleep_while, wake

if TYPE_CHECKING:
    from compiled_dag.cuda.device import Device
    from compiled_dag.cuda.driver import Stream

_LOOK_S: Final = 0.1
_SOON_S: Final = 0.001


class Waiting(Protocol):
    """What has opened events of peers."""

    def release(self, stream: Stream) -> None:
        """Record the events of peers that have died. Any thread's; raises the driver's errors."""
        ...


class Rescue:
    """Of all that waits in one graph or group."""

    def __init__(self, device: Device, words: memoryview[int]) -> None:
        """Begin to look after nothing yet.

        Args:
            device: This process's GPU.
            words: Of the graph's or group's memory, whose state says whether it has ended: nobody
                is released before.
        """
        self._device = device
        self._words = words
        self._calling = Translating(device.driver, "setting streams free that wait for the dead")
        self._waiting: list[Waiting] = []
        self._stream: Stream | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, one: Waiting) -> None:
        """Look after `one` too."""
        with self._lock:
            self._waiting.append(one)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gpu rescue", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closed.is_set():
            if self._words[STATE_WORD] == OPEN:
                sleep_while(self._words, OPEN)
            else:
                self._look()
                self._closed.wait(_LOOK_S)

    def _look(self) -> None:
        """Set free what waits for the dead, if the graph or group has ended."""
        if self._words[STATE_WORD] == OPEN:
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
        self._look()
        self._closed.set()
        with self._lock:
            self._waiting = []
        thread = self._thread
        while thread is not None and thread.is_alive():
            wake(self._words)  # again: it may have been on its way to sleep
            thread.join(_SOON_S)
