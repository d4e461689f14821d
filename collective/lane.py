"""Operations that follow each other, in the thread that calls or on one of their own; work handles.

Each group has a lane for what all its ranks do together, and one for each way to another rank: what
is in one lane never waits for what is in another. An operation that its caller waits for runs in
the caller's thread if the lane is free, which costs nothing; one that is started with
``async_op=True`` runs on the lane's thread, which the first of them starts.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.errors import CollectiveError, CollectiveTimeoutError
from compiled_dag.operation_future import DAGOperationFuture

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

_END_S: Final = 2.0
"""How long the end of a lane waits for the operation that runs."""


class Work(DAGOperationFuture[None]):
    """An operation that was started with ``async_op=True``.

    Its tensors are the operation's until it has ended: leave them alone, or wait first.
    """

    def __init__(
        self,
        text: str,
        operate: Callable[[], None],
        noting: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Make the handle.

        Args:
            text: What messages call the operation.
            operate: Does it.
            noting: Shows to others, while it is entered, what this thread waits for.
        """
        self._text = text
        self._operate: Callable[[], None] | None = operate
        self._noting = noting
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._told = False

    def is_completed(self) -> bool:
        """Tell whether it has ended, well or not."""
        return self._ended.is_set()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for the end of the operation; returns at once if it has ended.

        Args:
            timeout_s: How long to wait, in seconds; None: as long as it takes, which the group's
                own `timeout_s` bounds.

        Raises:
            CollectiveTimeoutError: It has not ended within `timeout_s`, and goes on.
            Exception: What the operation itself raised.
        """
        if not self._ended.is_set():
            with self._noting():
                ended = self._ended.wait(timeout_s)
            if not ended:
                msg = f"{self._text} has not ended within {timeout_s} s, and goes on"
                raise CollectiveTimeoutError(msg)
        self._told = True
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        """Do it, in this thread, and tell those who wait."""
        operate, self._operate = self._operate, None
        assert operate is not None
        try:
            operate()
        except BaseException as error:  # noqa: BLE001  raised by `wait`
            self._error = error
        ended = self._ended
        # An error's traceback has this frame: neither tensors nor handle are to live on in it.
        del operate, self
        ended.set()

    def _drop(self, error: BaseException) -> None:
        """Have it end without being done: the group was destroyed, as whoever did that knows."""
        self._operate = None
        self._told = True
        self._error = error
        self._ended.set()

    def __repr__(self) -> str:
        if not self._ended.is_set():
            state = "under way"
        else:
            state = "done" if self._error is None else f"failed: {type(self._error).__name__}"
        return f"<{self._text}, {state}>"

    def __del__(self) -> None:
        if self._error is not None and not self._told and sys.stderr is not None:
            error = f"{type(self._error).__name__}: {self._error}"
            print(f"{self._text} failed, and nobody waited for it: {error}", file=sys.stderr)  # noqa: T201


class Lane:
    """Runs operations one after the other. Any thread may use it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.RLock()
        """Taken by itself: a condition's `with` is written in Python, and can be interrupted."""
        self._changed = threading.Condition(self._lock)
        self._queue: deque[Work] = deque()
        self._busy = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def enter(self) -> bool:
        """Take the lane for the calling thread if it is free; then `leave` it."""
        with self._lock:
            if self._busy or self._queue or self._closed:
                return False
            self._busy = True
            return True

    def leave(self) -> None:
        """Let the next one in."""
        with self._lock:
            self._busy = False
            if self._queue or self._closed:
                self._changed.notify_all()

    def add(self, work: Work) -> Work:
        """Have the lane's thread do it after all that was added before; returns it.

        Raises:
            CollectiveError: The lane is closed.
        """
        with self._lock:
            if self._closed:
                raise _closed(self._name)
            self._queue.append(work)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return work

    def _run(self) -> None:
        while True:
            with self._lock:
                while self._busy or not self._queue:
                    if self._closed:
                        return
                    self._changed.wait()
                work = self._queue.popleft()
                self._busy = True
            work._run()
            del work
            self.leave()

    def close(self) -> None:
        """Drop what has not begun, and wait a moment for what has. Idempotent."""
        with self._lock:
            self._closed = True
            dropped, self._queue = self._queue, deque()
            self._changed.notify_all()
        for work in dropped:
            work._drop(_closed(self._name))
        thread = self._thread
        if thread is threading.current_thread():
            return
        deadline = time.monotonic() + _END_S
        with self._lock:
            while self._busy and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))


def from_here(operate: Callable[[], None]) -> Callable[[], None]:
    """Return what does the same in another thread, on the GPUs' streams that are current here.

    So it follows what made its tensors, and what is enqueued after it has ended follows it. A
    thread begins on the default stream of every GPU, on the first of them: what is so here too
    is left alone, since to make a GPU current takes memory on it.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return operate
    cuda = torch.cuda
    here, streams = cuda.current_device(), map(cuda.current_stream, range(cuda.device_count()))
    others = [stream for stream in streams if stream.cuda_stream]

    def operate_there() -> None:
        with contextlib.ExitStack() as entered:
            for stream in others:
                entered.enter_context(cuda.stream(stream))
            entered.enter_context(cuda.device(here))
            operate()

    return operate_there


def _closed(name: str) -> Any:
    return CollectiveError(f"{name} was destroyed before the operation began")
