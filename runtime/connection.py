"""What the driver holds open for one process: socket, output, stacks, news of its death."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING

from runtime.link import Link
from runtime.logs import LogStream
from runtime.stacks import StackPipe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from compiled_dag.shm.board import Board
    from runtime.dedup import Deduplicator
    from runtime.parcel import Parcel
    from runtime.supervisor import Supervisor
    from runtime.warm import WarmMemory


class Connection:
    """Descriptors of one process; `close` is idempotent."""

    def __init__(
        self, supervisor: Supervisor, sink: Deduplicator | None, prefix: Callable[[], bytes]
    ) -> None:
        """Open nothing yet; `sink` takes the process's output, if that is shown."""
        self._supervisor = supervisor
        self.link: Link | None = None
        self.pidfd = -1
        self.logs: tuple[LogStream, ...] = ()
        self.stacks: StackPipe | None = None
        self._theirs: list[int] = []
        self._sink = sink
        self._prefix = prefix

    def open(
        self,
        board: Board,
        line: int,
        *,
        receiver: Callable[[Any], None],
        find: Callable[[int], Any],
        lend: Callable[[Sequence[Any]], list[Any]],
        lend_memory: Callable[[Parcel], None],
        memory: WarmMemory,
        flusher: Callable[[], None],
        breaker: Callable[[OSError], None],
    ) -> tuple[Link, tuple[int, ...]]:
        """Make the socket pair and the pipes; see `Link` for the arguments.

        Returns:
            The link, and the ends for the process; `close_theirs` closes them here.

        Raises:
            OSError: The kernel refused.
        """
        ours, control = socket.socketpair()
        self._theirs.append(control.detach())
        link = self.link = Link(
            ours,
            board,
            line,
            self._supervisor,
            receiver=receiver,
            find=find,
            lend=lend,
            lend_memory=lend_memory,
            memory=memory,
            flusher=flusher,
            breaker=breaker,
        )
        for _ in ("standard output", "standard error"):
            read, write = os.pipe2(os.O_CLOEXEC)
            self._theirs.append(write)
            self.logs += (LogStream(read, self._sink, line, self._prefix),)
        self.stacks = StackPipe()
        self._theirs.append(self.stacks.theirs)
        return link, tuple(self._theirs)

    def close_theirs(self) -> None:
        """Close the process's ends: they have been sent."""
        while self._theirs:
            os.close(self._theirs.pop())

    def watch(self, pidfd: int, on_death: Callable[[int], None]) -> None:
        """Watch for the death of the process, and for its output; owns `pidfd`."""
        self.pidfd = pidfd
        self._supervisor.watch(pidfd, on_death)
        for log in self.logs:
            self._supervisor.watch(log.fd, lambda _, log=log: self._on_output(log))  # type: ignore[misc]

    def _on_output(self, log: LogStream) -> None:
        if not log.read():
            self._supervisor.forget(log.fd)

    def finish(self) -> str:
        """Take what the dead process has still sent; returns the tail of its standard error."""
        if self.link is not None:
            self.link.drain()  # the replies it sent before it died count
        for log in self.logs:
            self._supervisor.forget(log.fd)
            log.finish()
        return self.logs[1].tail()

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it is still there."""
        # Closed meanwhile, or dead: it is being buried on the supervising thread.
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Close everything, and watch nothing any more."""
        if self.link is not None:
            self.link.close()
        for log in self.logs:
            self._supervisor.forget(log.fd)
        if self.pidfd >= 0:
            self._supervisor.forget(self.pidfd)
        self._close_own()

    def close_descriptors(self) -> None:
        """Close the descriptors only: in a forked child, or when the supervision has ended."""
        if self.link is not None:
            self.link.close_descriptors()
        self._close_own()

    def _close_own(self) -> None:
        for log in self.logs:
            log.close()
        if self.stacks is not None:
            self.stacks.close()
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)
