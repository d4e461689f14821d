"""A program inside an actor: every step bound to a closure once, then ``for run in steps``.

No decision that compile could have made is left in the closures; what is left to decide at run
time is whether an input is an `Error` (then the method is skipped and the error passed on).
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from compiled_dag.channel import layout as at
from compiled_dag.channel.graph_segment import GraphSegment
from compiled_dag.channel.reader import Reader
from compiled_dag.channel.writer import Writer
from compiled_dag.errors import ChannelClosedError
from compiled_dag.host import ActorContext
from compiled_dag.ir import OperationId
from compiled_dag.outcome import Error, Place
from compiled_dag.package import Package
from compiled_dag.program import (
    CollectiveStart,
    CollectiveWait,
    Compute,
    Read,
    Release,
    Step,
    Write,
)
from compiled_dag.tree import Arguments, Const, Tree, Val, fill

Slots: TypeAlias = list[Any]
Run: TypeAlias = Callable[[Slots], None]

_SHORT_ERROR = 1000


class GraphResident:
    """One graph's program in this process."""

    def __init__(self, context: ActorContext, package: Package, fd: int) -> None:
        self.key = package.graph_id
        self._context = context
        self._package = package
        self._graph = GraphSegment(fd, context.board, package.processes, package.channels)
        line = self._graph.layout.participant(package.participant) // 8
        self._execution_word = line + at.EXECUTION
        self._step_word = line + at.STEP
        self._since_word = line + at.SINCE_NS
        self._words = self._graph.words
        self._alive = True
        self.execution = 0
        self._slots: Slots = [None] * package.num_slots
        self._operations = {
            number: part.op.bind_rank(context, part.group_id, part.rank, part.places)
            for number, part in package.parts.items()
        }
        self._tokens: dict[OperationId, Any] = {}
        self._readers: list[Reader] = []
        self._steps = [self._bind(number, step) for number, step in enumerate(package.steps, 1)]
        first = self._readers[0]  # every program begins with a read (see passes.channels)
        self._first = first
        self._first_word = first.sequence_word

    def ready(self) -> bool:
        """Tell whether the next execution's first input is there."""
        return self._words[self._first_word] != self._first.sequence and self._alive

    def run(self) -> None:
        """Run one execution."""
        slots, words = self._slots, self._words
        words[self._execution_word] = self.execution
        try:
            for run in self._steps:
                run(slots)
        except ChannelClosedError:
            # The graph was torn down or broke while this actor waited in it.
            self._alive = False
            slots[:] = [None] * len(slots)
            self._tokens.clear()
        self.execution += 1
        words[self._step_word] = at.IDLE_STEP

    def close(self) -> None:
        """Let go of the graph's memory; what user code still holds stays valid."""
        self._alive = False
        self._slots = [None] * len(self._slots)
        self._steps = []
        self._operations = {}
        self._graph.close()

    def _note(self, number: int) -> None:
        """Report which step this actor is in, for hang reports and death messages."""
        self._words[self._step_word] = number
        self._words[self._since_word] = time.monotonic_ns()

    def _bind(self, number: int, step: Step) -> Run:
        match step:
            case Read(channel, slot):
                return self._bind_read(number, channel, slot)
            case Write(channel, slot):
                return self._bind_write(channel, slot)
            case Compute():
                return self._bind_compute(number, step)
            case CollectiveStart(operation, slot):
                return self._bind_start(number, operation, slot)
            case CollectiveWait(operation, slot):
                return self._bind_wait(operation, slot)
            case Release(slots):
                return _bind_release(slots)

    def _bind_read(self, number: int, channel: int, slot: int) -> Run:
        package = self._package
        reader = Reader(self._graph, package.channels[channel], package.participant)
        self._readers.append(reader)
        words, word, wait = self._words, reader.sequence_word, self._context.waiter.word
        guard, read, note = self._graph.guard, reader.read, self._note

        def run(slots: Slots) -> None:
            sequence = reader.sequence
            if words[word] == sequence:
                note(number)
                wait(words, word, sequence, guard)
            slots[slot] = read()

        return run

    def _bind_write(self, channel: int, slot: int) -> Run:
        package = self._package
        writer = Writer(
            self._graph,
            package.channels[channel],
            slot_bytes=package.slot_bytes,
            cap_bytes=package.cap_bytes,
        )
        write = writer.write

        def run(slots: Slots) -> None:
            try:
                write(slots[slot])
            except Exception as error:  # noqa: BLE001  pickling runs user code
                self._write_failure(writer, error)

        return run

    def _write_failure(self, writer: Writer, cause: Exception) -> None:
        """Send what went wrong in place of a value that could not be sent."""
        place = Place(method=writer.spec.label, actor=self._context.label)
        error = Error.capture(cause, place, execution=self.execution)
        try:
            writer.write(error)
        except Exception:  # noqa: BLE001  no memory even for the error's traceback
            writer.write(error.shortened(_SHORT_ERROR))

    def _bind_compute(self, number: int, step: Compute) -> Run:
        method = getattr(self._context.instance, step.method)
        place = self._package.places[step.node]
        gather = _bind_arguments(step.arguments, self._package.constants)
        results = step.results
        words, step_word, since_word = self._words, self._step_word, self._since_word
        clock = time.monotonic_ns

        def failed(error: BaseException) -> Error:
            return Error.capture(error, place, execution=self.execution)

        if gather is None and not step.unpack:
            source, target = _only_slot(step.arguments), results[0]

            def run_one(slots: Slots) -> None:
                value = slots[source]
                if value.__class__ is Error:
                    slots[target] = value
                    return
                words[step_word] = number
                words[since_word] = clock()
                try:
                    slots[target] = method(value)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001  user code may raise anything
                    slots[target] = failed(error)

            return run_one

        gather = gather or _gather_general(step.arguments, self._package.constants)
        used = step.arguments.values()

        def run(slots: Slots) -> None:
            for slot in used:
                if slots[slot].__class__ is Error:
                    for target in results:
                        slots[target] = slots[slot]
                    return
            words[step_word] = number
            words[since_word] = clock()
            try:
                args, kwargs = gather(slots)
                value = method(*args, **kwargs)
                values = _unpacked(value, len(results)) if step.unpack else (value,)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001  user code may raise anything
                values = (failed(error),) * len(results)
            for target, item in zip(results, values, strict=True):
                slots[target] = item

        return run

    def _bind_start(self, number: int, operation: OperationId, slot: int) -> Run:
        start, tokens, note = self._operations[operation].start, self._tokens, self._note

        def run(slots: Slots) -> None:
            note(number)
            tokens[operation] = start(slots[slot], self.execution)

        return run

    def _bind_wait(self, operation: OperationId, slot: int) -> Run:
        wait, tokens = self._operations[operation].wait, self._tokens

        def run(slots: Slots) -> None:
            slots[slot] = wait(tokens.pop(operation))

        return run


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


Gather: TypeAlias = Callable[[Slots], tuple[Sequence[Any], dict[str, Any]]]


def _only_slot(arguments: Arguments) -> int:
    (leaf,) = arguments.args
    assert isinstance(leaf, Val)  # noqa: S101  the caller looked
    return leaf.id


def _bind_arguments(arguments: Arguments, constants: dict[int, Any]) -> Gather | None:
    """Return how to collect the arguments, or None if they are exactly one value."""
    if len(arguments.args) == 1 and not arguments.kwargs and isinstance(arguments.args[0], Val):
        return None
    if arguments.kwargs or not all(isinstance(tree, Val) for tree in arguments.args):
        return _gather_general(arguments, constants)
    numbers = arguments.values()
    if len(numbers) != len(arguments.args):
        return _gather_general(arguments, constants)
    none: dict[str, Any] = {}

    def gather(slots: Slots) -> tuple[Sequence[Any], dict[str, Any]]:
        return [slots[number] for number in numbers], none

    return gather


def _gather_general(arguments: Arguments, constants: dict[int, Any]) -> Gather:
    positional = [_getter(tree, constants) for tree in arguments.args]
    named = [(name, _getter(tree, constants)) for name, tree in arguments.kwargs]

    def gather(slots: Slots) -> tuple[Sequence[Any], dict[str, Any]]:
        return [get(slots) for get in positional], {name: get(slots) for name, get in named}

    return gather


def _getter(tree: Tree, constants: dict[int, Any]) -> Callable[[Slots], Any]:
    match tree:
        case Val(number):
            return lambda slots: slots[number]
        case Const(number):
            constant = constants[number]
            return lambda _: constant
        case _:
            return lambda slots: fill(tree, slots.__getitem__, constants.__getitem__)


def _unpacked(value: Any, count: int) -> Sequence[Any]:
    if not isinstance(value, (tuple, list)):
        msg = f"num_returns={count}, but the method returned one {type(value).__name__}"
        raise ValueError(msg)  # noqa: TRY004  E5: a wrong count and a wrong type are one error
    if len(value) != count:
        msg = f"num_returns={count}, but the method returned {len(value)} values"
        raise ValueError(msg)
    return value


# --- what the driver has an actor run -------------------------------------------------------------


def load_graph(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:
    """Make a program resident in this process (a `SystemCall`)."""
    package: Package = pickle.loads(payload)
    resident = GraphResident(context, package, fds[0])
    context.resources[f"graph {package.graph_id}"] = resident
    context.loop.add(resident)
    return b""


def unload_graph(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """End a resident program (a `SystemCall`); fine if it is not there."""
    graph_id = int(payload)
    context.loop.remove(graph_id)
    resident = context.resources.pop(f"graph {graph_id}", None)
    if resident is not None:
        resident.close()
    return b""
