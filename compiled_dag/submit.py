"""Starting executions: number them, send their inputs, keep to the window.

An execution is in flight from here until all its results were read off the channels. That is also
what makes a descriptor slot free again, so the window of `max_inflight` executions is all the flow
control the channels need.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from compiled_dag.channel import layout as at
from compiled_dag.channel.hinted import open_writer
from compiled_dag.errors import CapacityExceededError
from compiled_dag.program import Program, Write

if TYPE_CHECKING:
    from compiled_dag.deployment import Deployment
    from compiled_dag.fetch import Fetching
    from compiled_dag.options import CompileOptions


class Submission:
    """The driver's writing side of one graph. Any thread may submit; numbers have no gaps."""

    def __init__(
        self, deployment: Deployment, program: Program, options: CompileOptions, fetching: Fetching
    ) -> None:
        graph = deployment.segment
        self.writers = [
            (open_writer(graph, program.channels[step.channel],
                         slot_bytes=options.buffer_size_bytes,
                         cap_bytes=options.max_memory_bytes), step.slot)
            for step in program.steps[0] if isinstance(step, Write)
        ]  # fmt: skip
        self.next = 0
        """Number of the next execution."""
        self._deployment = deployment
        self._options = options
        self._fetching = fetching
        self._results = fetching.results
        self._owner = deployment.owner
        self._words = graph.words
        self._limit = options.max_inflight
        self._sending = False
        """Whether a `submit` is, or was when it was interrupted, between first and last input."""
        self._low = 0
        """Executions known to be fetched: a lower bound, made exact when the window looks full."""
        self._member = deployment.member
        self._lock = self._member.lock
        self._member.next_execution = lambda: self.next

    def submit(self, values: list[Any]) -> int:
        """Start an execution with the driver's slots filled; returns its number.

        Raises:
            TypeError: An input cannot be pickled; nothing was started.
            CapacityExceededError: Too many executions are unfetched.
            ChannelClosedError: The graph was torn down.
        """
        with self._lock:
            if self._owner != os.getpid():
                self._deployment.host.check_owner()
            if self._sending:
                self._recover()
            if self.next - self._low >= self._limit:
                self._make_room()
            execution = self.next
            if self._words[at.STATE_WORD] == at.OPEN:
                self._sending = True
                self._send(values)
            elif self._deployment.fault is None:
                raise self._deployment.end_cause()
            # else: broken. The refs raise the cause, so that scripts which guard only get work.
            self.next = execution + 1
            self._sending = False
        return execution

    def _send(self, values: list[Any]) -> None:
        """Write all inputs, then show them: if one cannot be sent, none is."""
        writers = self.writers
        try:
            if self._member.places:
                self._member.require_room()
            for writer, slot in writers:
                writer.stage(values[slot])
        except BaseException:
            for writer, _ in writers:
                writer.abandon()
            self._sending = False
            raise
        if self._member.places:
            self._member.issue(self.next, self._publish, self._is_published)
        else:
            self._publish()

    def _publish(self) -> None:
        for writer, _ in self.writers:
            writer.publish()

    def _is_published(self, execution: int) -> bool:
        return max(writer.published() for writer, _ in self.writers) > execution

    def _recover(self) -> None:
        """Settle a `submit` that an interrupt (Ctrl-C) broke off while it sent its inputs.

        If one input was shown, all were staged: show the rest. The execution runs, and since its
        caller never saw a ref, its results are passed over when they arrive.
        """
        published = max(writer.published() for writer, _ in self.writers)
        if published > self.next:
            for writer, _ in self.writers:
                if writer.published() < published:
                    writer.publish()
            self._results.forget_execution(self.next)
            self.next = published
        self._sending = False

    def _make_room(self) -> None:
        """Find that an execution was fetched meanwhile, wait for that, or refuse."""
        results, options = self._results, self._options
        blocking = options.capacity_policy == "block"
        timeout_s = options.submit_timeout_s if blocking else 0.0
        deadline = None if timeout_s < 0 else time.monotonic() + timeout_s
        while self._words[at.STATE_WORD] == at.OPEN:
            if not results.lock_by(deadline):
                raise CapacityExceededError(self._full(self._low))
            try:
                low = self._low = results.fetched(move=blocking)
                awaited = results.awaited_after(low)
            finally:
                results.lock.release()
            if self.next - low < self._limit:
                return
            if not blocking or not self._fetching.wait_any(awaited, deadline):
                raise CapacityExceededError(self._full(low))

    def _full(self, oldest: int) -> str:
        waiting = self.next - oldest
        return (
            f"{waiting} executions of graph {self._deployment.name} are unfetched, from execution "
            f"{oldest} on, and _max_inflight_executions={self._limit}. Get results "
            "before executing more (one whose refs were dropped counts until it has finished), "
            'raise the limit, or use _capacity_policy="block"'
        )
