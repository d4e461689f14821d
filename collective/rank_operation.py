"""One rank's part in a collective of a graph: preflight, launch, finish."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from collective.messages import messages_of
from collective.process_group import OperationError
from collective.rank import ENDS, RankBase
from collective.record import Brought, mismatch_text, why_not_shown
from collective.refusals import why_not
from collective.rounds import Carrier
from compiled_dag.errors import CollectiveError, CollectiveMismatchError
from compiled_dag.outcome import Error

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from collective.kinds import Shape
    from collective.messages import Message
    from collective.ops import Operation
    from collective.process_group import Work
    from collective.rounds import Part, Round
    from compiled_dag.host import ActorContext
    from compiled_dag.outcome import Place


@dataclass(slots=True)
class Running:
    """An operation under way."""

    parts: Sequence[Part]
    works: Sequence[Work]
    """What is left to be finished."""
    tensors: Sequence[torch.Tensor]
    """The inputs."""
    device: Any
    execution: int


class _Plan(NamedTuple):
    """What follows from the shapes that are shown, as long as they stay the same."""

    messages: tuple[Message, ...]
    dtype: Any
    device: Any
    records: list[bytes]
    """From which it follows, where they are others'."""


class RankOperation(RankBase):
    """What the program's CollectiveStart and CollectiveWait call."""

    def __init__(
        self,
        context: ActorContext,
        group_id: int,
        rank: int,
        places: Sequence[Place],
        operation: Operation,
    ) -> None:
        super().__init__(context, group_id, rank, places, str(operation))
        self._operation = operation
        self._carrier = Carrier(self._group.process_group, operation, rank, len(self._places))
        self._brings = not operation.only_gets(rank)
        self._gets = operation.kind.gets(rank, operation.root)
        alone = operation.kind.root == "src_rank" and not operation.inplace
        self._alone = operation.root if alone else None
        """The only rank that brings something, if it is one."""
        self._late = operation.uneven and self._alone is None
        """Whether only the others' shapes say how much memory it takes."""
        self._num_results = operation.num_buckets if self._gets else 1
        self._later = f"{self._text}, next message".encode()
        """The record of all ranks for rounds after the first."""
        self._looks: Any = None
        self._record = self._beside = b""
        self._own: _Plan | None = None
        """If all ranks bring what this one does."""
        self._learned: _Plan | None = None
        """From what others have shown."""

    def _start(self, values: tuple[Any, ...], execution: int) -> Any:
        plan: _Plan | None = None
        rounds: list[Round] = []
        tensors: list[torch.Tensor] = []
        error = next((value for value in values if value.__class__ is Error), None)
        if error is None and self._brings:
            own = self._plan_own(values, execution)
            if isinstance(own, Error):
                error = own
            else:
                plan, tensors = own, [value.detach() for value in values]
                if not self._late:
                    rounds = self._carrier.rounds(own.messages)
                    error = self._prepare(rounds[0], tensors, own, execution)
        met = self._meet_with(self._record, error, self._beside, execution)
        if isinstance(met, Error):
            return met
        if self._alone is None and met is not None and not self._late:
            return self._mismatch(met, execution)
        if not rounds:
            learned = self._plan_together(met, plan, execution)
            if isinstance(learned, Error):
                return learned
            plan, rounds = learned, self._carrier.rounds(learned.messages)
        assert plan is not None, "a rank that brings something has one of its own"
        return self._launch(plan, rounds, tensors, execution)

    def wait(self, running: Running | Error) -> Sequence[Any]:
        """Finish the operation.

        Returns:
            For each bucket the result or an `Error`; one None if this rank gets nothing.
        """
        results = self._results(running)
        error, self._put_off = self._put_off, None
        return results if error is None else (error,) * len(results)

    def _results(self, running: Running | Error) -> Sequence[Any]:
        if isinstance(running, Error):
            return (running,) * self._num_results
        error = self._finish(running.works, running.execution)
        if error is not None:
            return (error,) * self._num_results
        if not self._gets:
            return (None,)
        try:
            return self._carrier.results(running.parts, running.tensors, running.device)
        except ENDS:
            raise
        except BaseException as failure:  # noqa: BLE001  signal handlers may raise anything
            return (self._capture(failure, running.execution),) * self._num_results

    # --- meeting

    def _refusal(self, met: list[bytes] | Error | None, execution: int) -> Error | None:
        """Return why an operation is not launched after a meeting in which all brought something.

        None if only the root brought something, and only it was to.
        """
        if isinstance(met, Error):
            return met.at(execution=execution)
        if met is not None and self._alone is None:
            return self._mismatch(met, execution)
        if self._group.is_faulted:
            return self._capture(CollectiveError(self._group.faulted_text()), execution)
        return None

    def _meet_with(
        self, record: bytes, error: Error | None, beside: bytes, execution: int
    ) -> list[bytes] | Error | None:
        """Show what this rank brings and wait for the others; see `Preflight.meet`."""
        met = self._come(record, error, execution, beside)
        return met.at(execution=execution) if isinstance(met, Error) else met

    def _plan_own(self, values: tuple[Any, ...], execution: int) -> _Plan | Error:
        """Return what follows from this rank's tensors, or why they cannot take part."""
        looks = self._looks_of(values)
        if looks is None or looks != self._looks:  # in most graphs only once: it takes 20 us
            size = len(self._places)
            why = why_not(self._operation, self._group.process_group, size, values)
            if why is not None:
                return self._capture(why, execution)
            brought = Brought.of(self._text, values)
            self._record, self._beside = brought.packed()
            if self._late or self._alone is not None:
                text = why_not_shown(self._beside)
                if text is not None:
                    return self._capture(ValueError(f"{self._text}: {text}"), execution)
            self._own = self._plan([brought.shapes] * size, values[0].dtype, values[0].device, [])
            self._looks = looks
        assert self._own is not None, "set with the looks"
        return self._own

    def _looks_of(self, values: tuple[Any, ...]) -> Any:
        """Return what decides whether tensors can take part; None if they cannot."""
        try:
            looks = [(v.__class__, v.dtype, v.shape, v.device, v.layout) for v in values]
            if self._operation.inplace:
                return looks, [(v.stride(), v.is_inference()) for v in values]
        except (AttributeError, RuntimeError):
            return None  # no tensors, or nested ones, which have no shape
        return looks

    def _plan_together(
        self, met: list[bytes] | None, own: _Plan | None, execution: int
    ) -> _Plan | Error:
        """Return what follows from what others have shown."""
        if met is None:
            assert own is not None, "all ranks brought nothing"
            return own
        records = met if self._alone is None else [met[self._alone]]
        if self._learned is None or records != self._learned.records:
            beside = self._group.preflight.beside
            ranks = range(len(met)) if self._alone is None else [self._alone]
            brought = [Brought.unpacked(met[rank], partial(beside, rank)) for rank in ranks]
            if len({one.without_rows() for one in brought}) > 1:
                return self._mismatch(met, execution)
            shapes = [one.shapes for one in brought]
            if self._alone is not None:
                shapes *= len(met)
            dtype, device = brought[0].in_torch()
            device = device if own is None else own.device
            self._learned = self._plan(shapes, dtype, device, records)
        return self._learned

    def _plan(
        self, shapes: Sequence[Sequence[Shape]], dtype: Any, device: Any, records: list[bytes]
    ) -> _Plan:
        messages = messages_of(
            self._operation.kind,
            shapes,
            rank=self._rank,
            root=self._operation.root,
            element_bytes=dtype.itemsize,
            bucket_bytes=self._operation.bucket_bytes,
        )
        return _Plan(messages, dtype, device, records)

    # --- sending

    def _prepare(
        self, one: Round, tensors: Sequence[torch.Tensor], plan: _Plan, execution: int
    ) -> Error | None:
        """Make a round ready; returns what speaks against it: an error of this execution."""
        try:
            self._carrier.prepare(one, tensors, plan.dtype, plan.device)
        except Exception as failure:  # noqa: BLE001  no memory, or what a library does not do
            return self._capture(failure, execution)
        return None

    def _launch(
        self,
        plan: _Plan,
        rounds: Sequence[Round],
        tensors: Sequence[torch.Tensor],
        execution: int,
    ) -> Running | Error:
        """Do the rounds. The ranks have met for the first, and meet for every other."""
        works: list[Work] = []
        failed: Error | None = None  # how a round did, on this rank alone
        for number, one in enumerate(rounds):
            if number or self._late:
                error = failed or self._prepare(one, tensors, plan, execution)
                met = self._meet_again(error, execution)
                if met is not None:
                    return self._finish(works, execution) or met
            if not (number or self._brings):
                self._carrier.prepare(one, tensors, plan.dtype, plan.device)
            work = self._run(one, execution)
            if isinstance(work, Error):
                return work
            if isinstance(work, OperationError):
                failed = self._of_operation(work, execution)
                if work.everywhere:
                    break
            elif work is not None:
                works.append(work)
        if failed is not None:
            return self._finish(works, execution) or failed
        parts = tuple({id(one.part): one.part for one in rounds}.values())
        return Running(parts, works, tensors, plan.device, execution)

    def _meet_again(self, error: Error | None, execution: int) -> Error | None:
        """Meet the others before a later round."""
        met = self._meet_with(self._later, error, b"", execution)
        assert met is None or isinstance(met, Error), "all ranks show the same for later rounds"
        return met

    def _run(self, one: Round, execution: int) -> Work | OperationError | Error | None:
        """Start a round; returns what finishes it, how it failed, or how the group did."""
        if self._group.is_faulted:
            return self._capture(CollectiveError(self._group.faulted_text()), execution)
        try:
            return self._carrier.run(one)
        except OperationError as failed:
            return failed
        except RuntimeError as failure:
            return self._fault(failure, execution)

    def _finish(self, works: Sequence[Work], execution: int) -> Error | None:
        """Wait for what has been started; returns how that failed, if it did."""
        try:
            for work in works:
                work.wait()
        except ENDS:
            raise
        except BaseException as failure:  # noqa: BLE001  signal handlers may raise anything
            return self._fault(failure, execution)
        return None

    def _mismatch(self, records: list[bytes], execution: int) -> Error:
        """Say which ranks disagree."""
        names = [
            (place.actor, f"{place.node}{place.source and f' ({place.source})'}")
            for place in self._places
        ]
        beside = [self._group.preflight.beside(rank) for rank in range(len(records))]
        text = mismatch_text(
            self._text, records, names, ("actor", "node"), beside, uneven=self._operation.uneven
        )
        return self._capture(CollectiveMismatchError(text), execution)
