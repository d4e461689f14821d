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
import weakref
from typing import TYPE_CHECKING, Any

from compiled_dag.capture import Captured, capture
from compiled_dag.channel import codec
from compiled_dag.channel import layout as at
from compiled_dag.channel.reader import Reader
from compiled_dag.channel.writer import Writer
from compiled_dag.compiler import compile_graph
from compiled_dag.deployment import Deployment, check_constants
from compiled_dag.entries import Inputs, Output
from compiled_dag.errors import CapacityExceededError, ChannelError, ChannelTimeoutError
from compiled_dag.options import CompileOptions, DAGContext, is_seconds
from compiled_dag.outcome import Error
from compiled_dag.program import Program, Read, Write
from compiled_dag.ref import PENDING, CompiledDAGRef
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
        self._deployment = deployment = Deployment(captured, program, options)
        self._host = captured.host
        graph = deployment.segment
        driver = program.steps[0]
        self._writers = [
            (Writer(graph, program.channels[step.channel], slot_bytes=options.buffer_size_bytes,
                    cap_bytes=options.max_memory_bytes), step.slot)
            for step in driver if isinstance(step, Write)
        ]  # fmt: skip
        reads = [step for step in driver if isinstance(step, Read)]
        self._readers = [Reader(graph, program.channels[step.channel], 0) for step in reads]
        reader_of = {step.slot: number for number, step in enumerate(reads)}
        self._outputs = [Output(tree, reader_of, captured.constants) for tree in program.outputs]
        self._own_readers = [
            None
            if output.reader is None or self._shared(output.reader)
            else self._readers[output.reader]
            for output in self._outputs
        ]
        """Per output, the reader that serves it alone, if there is one."""
        self._any_site = Site(calm=deployment.needs_calm)
        for reader in self._readers:
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
        self._results: list[dict[int, Any]] = [{} for _ in self._readers]
        self._dropped: list[set[int]] = [set() for _ in self._readers]
        self._submit_lock = threading.RLock()
        self._read_lock = threading.RLock()
        self._close_when_collected = weakref.finalize(self, deployment.abandon)

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
            for dropped in self._dropped:
                dropped.add(self._next)
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
        if self._deployment.fault is not None:
            return
        options = self._options
        blocking = options.capacity_policy == "block"
        timeout_s = options.submit_timeout_s if blocking else 0.0
        deadline = None if timeout_s < 0 else time.monotonic() + timeout_s
        with self._read_lock:
            while True:
                self._skip_dropped()
                self._low = min(reader.sequence for reader in self._readers)
                if self._next - self._low < self._limit:
                    return
                oldest = self._low
                behind = [n for n, r in enumerate(self._readers) if r.sequence == oldest]
                if not blocking:
                    raise CapacityExceededError(self._full(oldest))
                for number in behind:
                    if not self._wait(number, deadline):
                        raise CapacityExceededError(self._full(oldest))
                    self._take(number)

    def _full(self, oldest: int) -> str:
        waiting = self._next - oldest
        return (
            f"{waiting} executions of graph {self.get_id()} are unfetched, from execution "
            f"{oldest} on, and _max_inflight_executions={self._limit}. Get results (or drop "
            'their refs) before executing more, raise the limit, or use _capacity_policy="block"'
        )

    # --- getting ----------------------------------------------------------------------------------

    def _fetch_one(self, ref: CompiledDAGRef, timeout: float | None) -> None:
        """Fill in `ref`. The usual case is flat: the next message of a channel of its own."""
        reader = self._own_readers[ref._output]
        execution = ref._execution
        if (
            reader is None
            or reader.sequence != execution
            or timeout is not None
            or self._owner != os.getpid()
            or not self._read_lock.acquire(blocking=False)
        ):
            self._fetch((ref,), timeout)
            return
        try:
            words, word = self._words, reader.sequence_word
            if reader.sequence == execution and (
                words[word] != execution
                or self._host.waiter.word(
                    words,
                    word,
                    execution,
                    self._deployment.guard,
                    self._default_deadline(),
                    reader.site,
                )
            ):
                ref._value = reader.peek()
                reader.advance()
                return
        finally:
            self._read_lock.release()
        raise self._late((ref,), None, self._options.get_timeout_s)

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
        self._host.check_owner()
        if not self._lock_reading(deadline):
            raise self._late(refs, timeout, timeout_s)
        try:
            missing = [ref for ref in refs if not self._fill(ref)]
            while missing and not any(ref._value.__class__ is Error for ref in refs):
                if not self._wait_any(missing, deadline):
                    raise self._late(missing, timeout, timeout_s)
                before = len(missing)
                missing = [ref for ref in missing if not self._fill(ref)]
                if timeout is None and deadline is not None and len(missing) < before:
                    deadline = time.monotonic() + timeout_s
        finally:
            self._read_lock.release()

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

    def _lock_reading(self, deadline: float | None) -> bool:
        """Become the thread that reads. Waits in slices, so that Ctrl-C gets through."""
        while not self._read_lock.acquire(timeout=0.05):
            if deadline is not None and time.monotonic() >= deadline:
                return False
        return True

    def _fill(self, ref: CompiledDAGRef) -> bool:
        """Fill `ref` in if its result is there."""
        if ref._value is not PENDING:
            return True
        output = self._outputs[ref._output]
        number, execution = output.reader, ref._execution
        assert number is not None, "an output of the driver's own is filled in by execute"
        reader, results = self._readers[number], self._results[number]
        while reader.sequence <= execution and reader.ready():
            self._take(number)
        if execution in results:
            ref._value = self._settle(number, execution)
            return True
        if reader.sequence > execution:
            msg = f"the result of execution {execution} was lost: its get was interrupted"
            raise ChannelError(msg)
        return False

    def _take(self, number: int) -> None:
        """Read the next message of output channel `number`, which is there, into the results."""
        reader, results = self._readers[number], self._results[number]
        execution = reader.sequence
        dropped = self._dropped[number]
        if len(dropped) and execution in dropped:
            dropped.discard(execution)
            reader.skip()
            return
        if len(results) > self._options.max_buffered_results:
            msg = (
                f"{len(results)} results of graph {self.get_id()} are kept for refs that were not "
                f"got, from execution {min(results)} on, and "
                f"_max_buffered_results={self._options.max_buffered_results}. "
                "Get or drop older refs, or raise the limit"
            )
            raise CapacityExceededError(msg)
        if execution not in results:  # it is there if an interrupt came between these two lines
            results[execution] = reader.peek()
        reader.advance()

    def _settle(self, number: int, execution: int) -> Any:
        """Return a result; forget it if no other output of the graph is the same value."""
        results = self._results[number]
        if self._shared(number):
            return results[execution]
        return results.pop(execution)

    def _shared(self, number: int) -> bool:
        return sum(output.reader == number for output in self._outputs) > 1

    def _wait(self, number: int, deadline: float | None) -> bool:
        reader = self._readers[number]
        word, sequence = reader.sequence_word, reader.sequence
        waiter, guard = self._host.waiter, self._deployment.guard
        return waiter.word(reader.words, word, sequence, guard, deadline, reader.site)

    def _wait_any(self, refs: Sequence[CompiledDAGRef], deadline: float | None) -> bool:
        """Wait until one of `refs` has news."""
        numbers = {self._outputs[ref._output].reader for ref in refs}
        readers = [self._readers[number] for number in numbers if number is not None]
        if len(readers) == 1:
            reader = readers[0]
            return self._host.waiter.word(
                reader.words,
                reader.sequence_word,
                reader.sequence,
                self._deployment.guard,
                deadline,
                reader.site,
            )
        return self._host.waiter.until(
            lambda: any(reader.ready() for reader in readers),
            self._deployment.guard,
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
        output = self._outputs[ref._output]
        if output.reader is None or self._deployment.fault is not None:
            return True
        if self._deployment.closed_at is not None:
            return True
        reader = self._readers[output.reader]
        published = reader.words[reader.sequence_word]
        return published > ref._execution

    def _forget(self, execution: int, output: int) -> None:
        """Drop the result of a ref that is gone; called by the garbage collector, never waits."""
        number = self._outputs[output].reader
        if number is None or self._shared(number):
            return
        if self._results[number].pop(execution, None) is None:
            self._dropped[number].add(execution)

    def _skip_dropped(self) -> None:
        """Pass over finished results that nobody can ask for any more."""
        for number, reader in enumerate(self._readers):
            dropped = self._dropped[number]
            while reader.sequence in dropped and reader.ready():
                dropped.discard(reader.sequence)
                reader.skip()

    # --- the end, and looking in ------------------------------------------------------------------

    def teardown(self, kill_actors: bool = False) -> None:
        """End the graph; its actors stay usable unless `kill_actors`. Idempotent, any thread.

        Waits up to `DAGContext.teardown_timeout` seconds for actors that are in user code.
        """
        deployment = self._deployment
        if deployment.owner != os.getpid():
            return
        busy = deployment.close(DAGContext.get_current().teardown_timeout)
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
