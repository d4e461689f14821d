"""`CompiledDAG`: execute, get, tear down.

`execute` writes the inputs and returns; `get` reads results off the output channels in the calling
thread. Both are flat: with a chain of one actor they are most of what a round trip costs. Any
thread may call either; a lock each keeps executions gapless and results in order.

An execution is in flight from `execute` until all its results were read off the channels. That is
also what makes a descriptor slot free again, so the window of `max_inflight` executions is all the
flow control the channels need.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

from compiled_dag.capture import Captured, capture
from compiled_dag.channel import codec
from compiled_dag.channel import layout as at
from compiled_dag.channel.reader import Reader
from compiled_dag.channel.writer import Writer
from compiled_dag.compiler import compile_graph
from compiled_dag.constants import check_constants
from compiled_dag.deployment import Deployment
from compiled_dag.entries import Inputs, Output
from compiled_dag.errors import CapacityExceededError, ChannelTimeoutError
from compiled_dag.options import CompileOptions, is_seconds, teardown_timeout_s
from compiled_dag.outcome import Error
from compiled_dag.program import Program, Read, Write
from compiled_dag.ref import CompiledDAGRef
from compiled_dag.results import Results
from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from compiled_dag.node import DAGNode


class CompiledDAG:
    """A graph that is up: one program per actor, waiting for inputs.

    A context manager: leaving it tears the graph down. Only the process that compiled it may use
    it; any thread of that process may.
    """

    def __init__(self, captured: Captured, program: Program, options: CompileOptions) -> None:
        self._program = program
        self._options = options
        self._inputs = Inputs(program)
        self._deployment = deployment = Deployment(self, captured, program, options)
        self._host = captured.host
        graph = deployment.segment
        driver = program.steps[0]
        self._writers = [
            (Writer(graph, program.channels[step.channel], slot_bytes=options.buffer_size_bytes,
                    cap_bytes=options.max_memory_bytes), step.slot)
            for step in driver if isinstance(step, Write)
        ]  # fmt: skip
        reads = [step for step in driver if isinstance(step, Read)]
        readers = [Reader(graph, program.channels[step.channel], 0) for step in reads]
        reader_of = {step.slot: number for number, step in enumerate(reads)}
        self._outputs = [Output(tree, reader_of, captured.constants) for tree in program.outputs]
        self._results = Results(
            graph,
            readers,
            [output.reader for output in self._outputs],
            options.max_buffered_results,
        )
        self._any_site = Site(calm=deployment.needs_calm)
        for reader in readers:
            reader.site.calm = deployment.needs_calm
        self._single = program.single_output
        self._has_own_outputs = any(output.reader is None for output in self._outputs)
        self._numbers = range(len(self._outputs))
        self._owner = os.getpid()
        self._words = graph.words
        self._limit = options.max_inflight
        self._next = 0
        self._sending = False
        """Whether an `execute` is, or was when it was interrupted, between first and last input."""
        self._low = 0
        """Executions known to be fetched: a lower bound, made exact when the window looks full."""
        self._submit_lock = threading.RLock()

    # --- submitting -------------------------------------------------------------------------------

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Start one execution.

        Returns:
            A `CompiledDAGRef`; a list of them where the output is a `MultiOutputNode`.

        Raises:
            ValueError: Wrong number of arguments, or a keyword is missing.
            TypeError: An argument cannot be pickled; nothing was started.
            CapacityExceededError: Too many executions are unfetched.
            ChannelClosedError: The graph was torn down.
        """
        values = self._inputs.slots(args, kwargs)
        own = self._own_outputs(values) if self._has_own_outputs else ()
        with self._submit_lock:
            if self._owner != os.getpid():
                self._host.check_owner()
            if self._sending:
                self._recover()
            if self._next - self._low >= self._limit:
                self._make_room()
            execution = self._next
            if self._words[at.STATE_WORD] == at.OPEN:
                self._sending = True
                self._send(values)
            elif self._deployment.fault is None:
                raise self._deployment.end_cause()
            # else: broken. The refs raise the cause, so that scripts which guard only get work.
            self._next = execution + 1
            self._sending = False
        if self._single:
            return CompiledDAGRef(self, execution, 0)
        refs = [CompiledDAGRef(self, execution, number) for number in self._numbers]
        for number, value in own:
            refs[number]._value = value
        return refs

    def _send(self, values: list[Any]) -> None:
        """Write all inputs, then show them: if one cannot be sent, none is."""
        writers = self._writers
        try:
            for writer, slot in writers:
                writer.stage(values[slot])
        except BaseException:
            for writer, _ in writers:
                writer.abandon()
            self._sending = False
            raise
        for writer, _ in writers:
            writer.publish()

    def _recover(self) -> None:
        """Settle an `execute` that an interrupt (Ctrl-C) broke off while it sent its inputs.

        If one input was shown, all were staged: show the rest. The execution runs, and since its
        caller never saw a ref, its results are passed over when they arrive.
        """
        published = max(writer.published() for writer, _ in self._writers)
        if published > self._next:
            for writer, _ in self._writers:
                if writer.published() < published:
                    writer.publish()
            self._results.forget_execution(self._next)
            self._next = published
        self._sending = False

    def _own_outputs(self, values: list[Any]) -> list[tuple[int, Any]]:
        """Return the outputs that no actor makes: constants, and copies of inputs as they are."""

        def copy(slot: int) -> Any:
            kind, head, buffers, _ = codec.encode(values[slot])
            return codec.decode(kind, head, [bytearray(buffer) for buffer in buffers])

        return [
            (number, output.local(copy))
            for number, output in enumerate(self._outputs)
            if output.reader is None
        ]

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
            if self._next - low < self._limit:
                return
            if not blocking or not self._wait_any(awaited, deadline):
                raise CapacityExceededError(self._full(low))

    def _full(self, oldest: int) -> str:
        waiting = self._next - oldest
        return (
            f"{waiting} executions of graph {self.get_id()} are unfetched, from execution "
            f"{oldest} on, and _max_inflight_executions={self._limit}. Get results "
            "before executing more (one whose refs were dropped counts until it has finished), "
            'raise the limit, or use _capacity_policy="block"'
        )

    # --- getting ----------------------------------------------------------------------------------

    def _fetch_one(self, ref: CompiledDAGRef, timeout: float | None) -> None:
        """Fill in `ref`. The usual case is flat: the next message of a channel of its own."""
        reader = self._results.own[ref._output]
        execution, words = ref._execution, self._words
        if (
            reader is None
            or reader.sequence != execution
            or timeout is not None
            or words[at.STATE_WORD] != at.OPEN
            or self._owner != os.getpid()
        ):
            self._fetch((ref,), timeout)
            return
        word, lock = reader.sequence_word, self._results.lock
        if words[word] == execution and not self._host.waiter.word(
            words,
            word,
            execution,
            self._deployment.guard,
            self._default_deadline(),
            reader.site,
        ):
            raise self._late((ref,), None, self._options.get_timeout_s)
        if lock.acquire(blocking=False):
            try:
                if reader.sequence == execution:
                    ref._value = reader.peek()
                    reader.advance()
                    return
            finally:
                lock.release()
        self._fetch((ref,), timeout)

    def _default_deadline(self) -> float | None:
        timeout_s = self._options.get_timeout_s
        return None if timeout_s < 0 else time.monotonic() + timeout_s

    def _fetch(self, refs: Sequence[CompiledDAGRef], timeout: float | None) -> None:
        """Fill in `refs`, all under one deadline; stop at the first that is an error.

        With ``timeout=None`` the default limits lack of progress instead: it starts anew whenever
        one more ref is ready.
        """
        timeout_s = self._timeout_s(timeout)
        deadline = None if timeout_s < 0 else time.monotonic() + timeout_s
        if self._owner != os.getpid():
            self._host.check_owner()
        results, missing = self._results, list(refs)
        while True:
            if not results.lock_by(deadline):
                raise self._late(missing, timeout, timeout_s)
            try:
                before = len(missing)
                missing = [ref for ref in missing if not results.fill(ref)]
                awaited = results.awaited(missing)
            finally:
                results.lock.release()
            if not missing or any(ref._value.__class__ is Error for ref in refs):
                return
            if timeout is None and deadline is not None and len(missing) < before:
                deadline = time.monotonic() + timeout_s
            self._deployment.guard()
            if not self._wait_any(awaited, deadline):
                raise self._late(missing, timeout, timeout_s)

    def _timeout_s(self, timeout: float | None) -> float:
        if timeout is None:
            return self._options.get_timeout_s
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            msg = f"timeout={timeout!r} is not a number of seconds"
            raise TypeError(msg)
        if not is_seconds(timeout):
            msg = f"timeout={timeout!r}: give seconds, 0 to poll, or -1 to wait for ever"
            raise ValueError(msg)
        return timeout

    def _wait_any(self, awaited: Sequence[tuple[Reader, int]], deadline: float | None) -> bool:
        """Wait until one of these channels shows another sequence than the one given."""
        waiter, guard = self._host.waiter, self._deployment.guard
        if len(awaited) == 1:
            ((reader, seen),) = awaited
            return waiter.word(
                reader.words, reader.sequence_word, seen, guard, deadline, reader.site
            )
        places = [(reader.words, reader.sequence_word, seen) for reader, seen in awaited]
        return waiter.until(
            lambda: any(words[word] != seen for words, word, seen in places),
            guard,
            deadline,
            self._any_site,
        )

    def _late(
        self, missing: Sequence[CompiledDAGRef], timeout: float | None, timeout_s: float
    ) -> ChannelTimeoutError:
        which = ", ".join(f"{ref._execution}" for ref in missing[:10])
        option = "_get_timeout (COMPILED_DAG_GET_TIMEOUT)" if timeout is None else "timeout"
        report = self._deployment.report()
        error = ChannelTimeoutError(
            f"execution {which} of graph {self.get_id()} was not ready within {option}="
            f"{timeout_s} s. Nothing is lost: get again.\n{report}"
        )
        error.report = report
        return error

    def _is_ready(self, ref: CompiledDAGRef) -> bool:
        """Tell whether getting `ref` would not wait."""
        return self._words[at.STATE_WORD] != at.OPEN or self._results.is_published(ref)

    # --- the end, and looking in ------------------------------------------------------------------

    def teardown(self, kill_actors: bool = False) -> None:
        """End the graph; its actors stay usable unless `kill_actors`. Idempotent, any thread.

        Waits up to `DAGContext.teardown_timeout` seconds for actors that are in user code.
        """
        deployment = self._deployment
        if deployment.owner != os.getpid():
            return
        busy = deployment.close(teardown_timeout_s())
        if busy:
            warnings.warn(
                f"graph {self.get_id()} was torn down, but {'; '.join(busy)}",
                RuntimeWarning,
                stacklevel=2,
            )
        if kill_actors:
            for actor in deployment.actors:
                self._host.kill(actor.actor_id)

    @property
    def is_teardown(self) -> bool:
        """Whether the graph was torn down."""
        return self._deployment.closed_at is not None

    @property
    def program(self) -> Program:
        """The compiled program; `str` of it is the table of steps by participant."""
        return self._program

    @property
    def options(self) -> CompileOptions:
        """The options the graph was compiled with."""
        return self._options

    @property
    def actors(self) -> tuple[Any, ...]:
        """Handles of the graph's actors."""
        return self._deployment.actors

    def get_id(self) -> str:
        """Return the graph's number, in hex."""
        return f"{self._deployment.graph_id:x}"

    def memory(self) -> dict[str, int]:
        """Return the payload bytes each channel has reserved, by channel label."""
        reserved = self._deployment.segment.reserved_bytes()
        return {spec.label: reserved[spec.index] for spec in self._program.channels}

    def __enter__(self) -> CompiledDAG:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.teardown()

    def __repr__(self) -> str:
        state = "torn down" if self.is_teardown else "up"
        labels = ", ".join(actor.label for actor in self._deployment.actors)
        return f"<CompiledDAG {self.get_id()} over {labels}: {state}>"


def compile_dag(output: DAGNode, options: CompileOptions) -> CompiledDAG:
    """Capture, compile and bring up the graph that ends in `output`."""
    captured = capture(output)
    captured.host.check_owner()
    check_constants(captured)  # first: a node that hides in one looks like a leaf to the compiler
    return CompiledDAG(captured, compile_graph(captured.graph, options), options)
