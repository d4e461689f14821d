"""A program inside an actor: every step bound to a closure once, then ``for run in steps``.

No decision that compile could have made is left in the closures; what is left to decide at run
time is whether an input is an `Error` (then the method is skipped and the error passed on).
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from compiled_dag import profiled
from compiled_dag.carriers import Carriers
from compiled_dag.channel import layout as at
from compiled_dag.channel.graph_segment import GraphSegment
from compiled_dag.compute import Report, Run, Slots, bind_compute
from compiled_dag.ends import open_reader, open_writer
from compiled_dag.errors import ChannelClosedError, DeviceError
from compiled_dag.lifetimes import ends_of_views
from compiled_dag.outcome import Error, Place
from compiled_dag.program import (
    CollectiveStart,
    CollectiveWait,
    Compute,
    Read,
    Release,
    Step,
    Write,
    uses,
)
from compiled_dag.shm.waiter import Site, Source
from compiled_dag.trace.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from compiled_dag.channel.reader import Reader
    from compiled_dag.channel.writer import Writer
    from compiled_dag.host import ActorContext
    from compiled_dag.ir import OperationId
    from compiled_dag.package import Package

_SHORT_ERROR = 1000


class GraphResident:
    """One graph's program in this process."""

    def __init__(self, context: ActorContext, package: Package, fd: int) -> None:
        self.number = package.graph_id
        self._context = context
        self._package = package
        self._graph = GraphSegment(
            fd, context.board, package.processes, package.channels, package.participants
        )
        line = self._graph.layout.participant(package.participant) // 8
        self._execution_word = line + at.EXECUTION
        self._step_word = line + at.STEP
        self._since_word = line + at.SINCE_NS
        self._words = self._graph.words
        self._words[line + at.PID] = os.getpid()
        self.execution = 0
        self._slots: Slots = [None] * package.num_slots
        self._operations = {
            number: part.op.bind_rank(context, part.group_id, part.rank, part.places)
            for number, part in package.parts.items()
        }
        self._tokens: dict[OperationId, Any] = {}
        self._readers: list[Reader] = []
        self._carriers = Carriers(context, package, self._graph)
        self._arriving: dict[int, Callable[[], None]] = {}
        """By slot, what has to be done before the first use of what is received there."""
        self._lenders: dict[int, Reader] = {}
        """By channel, whose values are views that are taken back."""
        self._ends_of_views = ends_of_views(package.steps, package.channels)
        self._recorder = Recorder(self._graph, package.participant)
        try:
            steps = [
                self._with_views(number, self._after_arrivals(step, self._bind(number, step)))
                for number, step in enumerate(package.steps, 1)
            ]
        except BaseException:
            self._carriers.close()
            raise
        self._steps = profiled.start(context, package, steps)
        self._recorder.bind(package.steps, self._steps, self._readers)
        first, words = self._readers[0], self._words  # every program begins with a read
        self.first = first
        """What an execution begins with."""
        word = first.sequence_word
        self.ready: Callable[[], bool] = lambda: words[word] != first.sequence

    def sources(self) -> tuple[Source, ...]:
        """Return the word that changes when the next execution can start."""
        return ((self._words, self.first.sequence_word, self.first.sequence),)

    @property
    def ended(self) -> bool:
        """Whether the graph was torn down, or broke."""
        return self._words[at.STATE_WORD] != at.OPEN

    def run(self) -> bool:
        """Run one execution; returns False if the graph ended meanwhile."""
        slots, words, execution = self._slots, self._words, self.execution
        words[self._execution_word] = execution
        steps = self._steps
        if not execution & words[at.TRACE_MASK_WORD]:
            steps = self._recorder.open(execution)
        flow = self._carriers.flow
        try:
            if flow is not None:
                flow.begin(execution)
            for run in steps:
                run(slots)
            if flow is not None:
                flow.end(execution)
        except ChannelClosedError:
            # The graph was torn down or broke while this actor waited in it.
            slots[:] = [None] * len(slots)
            self._tokens.clear()
            self._recorder.close()
            words[self._step_word] = at.IDLE_STEP
            return False
        if steps is not self._steps:
            self._recorder.close()
        self.execution = execution + 1
        words[self._step_word] = at.IDLE_STEP
        return True

    def leave(self) -> bool:
        """Take note that the graph has ended; nothing is left to be run."""
        return True

    def close(self) -> None:
        """Let go of the graph's memory; what user code still holds stays valid."""
        self._slots = [None] * len(self._slots)
        self._steps = []
        self._recorder.drop()
        self._readers = []
        self._operations = {}
        self._carriers.close()
        self._graph.close()
        profiled.stop(self._context, self._package)

    def _note(self, number: int) -> None:
        """Report which step this actor is in, for hang reports and death messages."""
        self._words[self._step_word] = number
        self._words[self._since_word] = time.monotonic_ns()

    def _bind(self, number: int, step: Step) -> Run:
        match step:
            case Read():
                return self._bind_read(number, step)
            case Write():
                return self._bind_write(number, step)
            case Compute():
                return self._bind_compute(number, step)
            case CollectiveStart(operation, slots):
                return self._bind_start(number, operation, slots)
            case CollectiveWait(operation, slots):
                return self._bind_wait(number, operation, slots)
            case Release(slots):
                return _bind_release(slots)

    def _bind_read(self, number: int, step: Read) -> Run:
        channel, slot, package = step.channel, step.slot, self._package
        label = self._context.label
        spec = package.channels[channel]
        means = self._carriers.means(spec)
        reader = open_reader(self._graph, spec, package.participant, label, means)
        self._carriers.keep(reader)
        if self._carriers.receives_aside and spec.transport.is_for_gpu(package.participant):
            self._arriving |= dict.fromkeys(step.slots, reader.arrive)
        if spec.transport.views:
            self._lenders[channel] = reader
        reader.site = Site(slice_s=package.wait_slice_s)
        self._readers.append(reader)
        words, word, wait = self._words, reader.sequence_word, self._context.waiter.word
        guard, note, site = self._graph.guard, self._note, reader.site
        peek, advance = reader.peek, reader.advance

        def run(slots: Slots) -> None:
            sequence = reader.sequence
            if words[word] == sequence:
                note(number)
                wait(words, word, sequence, guard, None, site)
            slots[slot] = peek()
            advance()

        taking = _taken_apart(run, step) if step.beside else run
        return taking if means is None else self._noted(number, taking)

    def _after_arrivals(self, step: Step, run: Run) -> Run:
        """Return a step that waits for what it is the first to use, where that is on its way."""
        found = [self._arriving.pop(slot) for slot in uses(step) if slot in self._arriving]
        arriving = list(dict.fromkeys(found))
        if not arriving:
            return run

        def run_after(slots: Slots) -> None:
            for arrive in arriving:
                arrive()
            run(slots)

        return run_after

    def _with_views(self, number: int, run: Run) -> Run:
        """Return a step that takes views back which nobody may use after it."""
        ending = [self._lenders[channel] for channel in self._ends_of_views.get(number, ())]
        if not ending:
            return run

        def run_then(slots: Slots) -> None:
            run(slots)
            for reader in ending:
                reader.take_back()

        return run_then

    def _noted(self, number: int, step: Run) -> Run:
        """Return a step that others may hold up, with a note that it has begun."""
        note = self._note

        def run(slots: Slots) -> None:
            note(number)
            step(slots)

        return run

    def _bind_write(self, number: int, step: Write) -> Run:
        channel, slot, package = step.channel, step.slot, self._package
        means = self._carriers.means(package.channels[channel])
        maker = self._maker(slot)
        writer = open_writer(
            self._graph,
            package.channels[channel],
            None if maker is None else package.places[maker.node],
            means=means,
            slot_bytes=package.slot_bytes,
            cap_bytes=package.cap_bytes,
        )
        self._carriers.keep(writer)
        write, beside = writer.write, step.beside

        def run(slots: Slots) -> None:
            try:
                write(_joined(slots, step) if beside else slots[slot])
            except ChannelClosedError:
                raise  # while it waited for its readers
            except Exception as error:  # noqa: BLE001  pickling runs user code
                self._write_failure(writer, slot, error)

        return run if means is None else self._noted(number, run)

    def _write_failure(self, writer: Writer, slot: int, cause: Exception) -> None:
        """Send what went wrong in place of a value that could not be sent."""
        if isinstance(cause, DeviceError) and cause.is_lost:
            raise cause
        step = self._maker(slot)
        unknown = Place(method=writer.spec.label, actor=self._context.label)
        place = unknown if step is None else self._package.places[step.node]
        function = None if step is None else self._function_of(step)
        error = Error.capture(cause, place, execution=self.execution, function=function)
        try:
            writer.write(error)
        except Exception:  # noqa: BLE001  no memory even for the error's traceback
            writer.write(error.shortened(_SHORT_ERROR))

    def _maker(self, slot: int) -> Compute | None:
        """Return the call that fills `slot`."""
        for step in self._package.steps:
            if isinstance(step, Compute) and slot in step.results:
                return step
        return None

    def _function_of(self, step: Compute) -> Callable[..., Any]:
        """Return what a call calls."""
        function = self._package.functions.get(step.node)
        return getattr(self._context.instance, step.method) if function is None else function

    def _bind_compute(self, number: int, step: Compute) -> Run:
        place = self._package.places[step.node]

        def failed(error: BaseException) -> Error:
            self._recorder.failed(number)
            return Error.capture(error, place, execution=self.execution, function=method)

        method = self._function_of(step)
        calls = self._carriers.recorded(step, method, str(place)) if step.cuda_graph else method
        report = Report(self._words, self._step_word, self._since_word, number)
        return bind_compute(step, calls, self._package.constants, report, failed)

    def _bind_start(self, number: int, operation: OperationId, sources: tuple[int, ...]) -> Run:
        start, tokens, note = self._operations[operation].start, self._tokens, self._note

        if len(sources) == 1:
            (source,) = sources

            def run_one(slots: Slots) -> None:
                note(number)
                tokens[operation] = start((slots[source],), self.execution)

            return run_one

        def run(slots: Slots) -> None:
            note(number)
            values = tuple([slots[source] for source in sources])
            tokens[operation] = start(values, self.execution)

        return run

    def _bind_wait(self, number: int, operation: OperationId, results: tuple[int, ...]) -> Run:
        wait, tokens, note = self._operations[operation].wait, self._tokens, self._note

        if len(results) == 1:
            (result,) = results

            def run_one(slots: Slots) -> None:
                note(number)
                (slots[result],) = wait(tokens.pop(operation))

            return run_one

        def run(slots: Slots) -> None:
            note(number)
            for slot, value in zip(results, wait(tokens.pop(operation)), strict=True):
                slots[slot] = value

        return run


def _joined(slots: Slots, step: Write) -> Any:
    """Return what is sent of several values: these, or the error that all of them are."""
    value = slots[step.slot]
    return value if value.__class__ is Error else tuple([slots[slot] for slot in step.slots])


def _taken_apart(run: Run, step: Read) -> Run:
    """Return a step that puts several values, which `run` reads as one, where each belongs."""
    first, places = step.slot, step.slots

    def run_apart(slots: Slots) -> None:
        run(slots)
        found = slots[first]
        values = (found,) * len(places) if found.__class__ is Error else found
        for slot, value in zip(places, values, strict=True):
            slots[slot] = value

    return run_apart


def _bind_release(dead: tuple[int, ...]) -> Run:
    if len(dead) == 1:
        (only,) = dead

        def run_one(slots: Slots) -> None:
            slots[only] = None

        return run_one

    def run(slots: Slots) -> None:
        for slot in dead:
            slots[slot] = None

    return run
