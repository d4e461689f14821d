"""One rank's part in a collective of a graph: preflight, launch, finish."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from collective.header import FAULTED, GroupHeader, Preflight
from collective.record import MAX_DIMS, describe, mismatch_text, tensor_of
from compiled_dag.channel import tensor as tensors
from compiled_dag.errors import ChannelClosedError, CollectiveError, CollectiveMismatchError
from compiled_dag.outcome import Error, Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from collective.kinds import Kind
    from collective.process_group import ProcessGroup, Work
    from compiled_dag.host import ActorContext
    from compiled_dag.shm.waiter import Waiter

_DEATH_NOTICE_S: Final = 2.0
"""How long a rank whose backend failed waits to hear that a peer died."""


@dataclass(slots=True)
class RankGroup:
    """This process's end of a group."""

    header: GroupHeader
    preflight: Preflight
    process_group: ProcessGroup
    rank: int
    waiter: Waiter

    def __post_init__(self) -> None:
        self.waiter.calm += self.process_group.needs_calm

    def give_up(self, waiter: Waiter) -> None:
        """Let go of a backend that has failed, and wait for the driver's word: a peer has died.

        Nobody waits for this rank any more; without that word the failure is the backend's own.
        """
        self.header.end(FAULTED)
        self.process_group.abort()
        deadline = time.monotonic() + _DEATH_NOTICE_S
        waiter.until(self.header.stopped, _no_guard, deadline)

    def close(self) -> None:
        """Give the group up."""
        self.waiter.calm -= self.process_group.needs_calm
        self.process_group.abort()
        self.header.close()


@dataclass(slots=True)
class _Running:
    """An operation under way."""

    result: torch.Tensor | None
    """None on ranks that get nothing."""
    work: Work | None
    """None where nothing is left to do."""
    device: Any
    execution: int


class _RankPart:
    """What every operation does on its rank: meet the others, and say what goes wrong."""

    def __init__(
        self,
        context: ActorContext,
        group_id: int,
        rank: int,
        places: Sequence[Place],
        text: str,
    ) -> None:
        self._group: RankGroup = context.resources[f"group {group_id}"]
        self._waiter = context.waiter
        self._rank = rank
        self._places = tuple(places)
        self._text = text

    def _meet(self) -> list[bytes] | Error | None:
        """Wait for the other ranks; see `Preflight.meet`.

        Raises:
            ChannelClosedError: The driver has ended the group.
        """
        try:
            return self._group.preflight.meet()
        except ChannelClosedError:
            # A peer may have seen all arrive and be in the backend, waiting for this rank.
            self._group.process_group.abort()
            raise

    def _fault(self, failure: RuntimeError, execution: int) -> Error:
        """The backend failed: give the group up on this rank, so that no peer waits for it.

        A peer's death is the usual cause, and the driver tells about it within milliseconds: then
        the graph breaks with the death as its cause and nothing of this is ever seen.
        """
        group = self._group
        group.give_up(self._waiter)
        group.header.guard()
        text = f"{self._text} failed in {group.process_group.backend}: {failure}. {_FAULTED_TEXT}"
        return self._capture(CollectiveError(text), execution)

    def _capture(self, error: Exception, execution: int) -> Error:
        place = self._places[self._rank]
        return Error.capture(error, place, rank=self._rank, execution=execution)


class RankBarrier(_RankPart):
    """A barrier: the ranks meet, and that is all."""

    def start(self, value: Any, execution: int) -> Any:
        """Meet the other ranks."""
        error = value if value.__class__ is Error else None
        self._group.preflight.arrive(b"" if error else self._text.encode(), error)
        met = self._meet()
        return met.at(execution=execution) if isinstance(met, Error) else value

    def wait(self, value: Any) -> Any:
        """Return this rank's own value, or the `Error` that a rank has."""
        return value


class RankOperation(_RankPart):
    """What the program's CollectiveStart and CollectiveWait call."""

    def __init__(
        self,
        context: ActorContext,
        group_id: int,
        rank: int,
        places: Sequence[Place],
        text: str,
        *,
        kind: Kind,
        op: str | None,
        root: int,
    ) -> None:
        super().__init__(context, group_id, rank, places, text)
        self._kind = kind
        self._op = op
        self._root = root
        self._world_size = len(self._places)
        self._brings = kind.brings(rank, root)
        self._gets = kind.gets(rank, root)
        self._in_place = kind.in_place and self._group.process_group.in_place
        self._looks: tuple[Any, ...] = ()
        self._record = b""

    def start(self, value: Any, execution: int) -> _Running | Error:
        """Meet the other ranks; launch if all bring the same."""
        group, preflight = self._group, self._group.preflight
        if value.__class__ is Error:
            preflight.arrive(b"", value)
            return self._not_launched(self._meet(), execution)
        if not self._brings:
            preflight.arrive(b"", None)
            return self._receive(self._meet(), execution)
        memory = self._memory_for(value, execution)
        if memory.__class__ is Error:
            preflight.arrive(b"", memory)
            return self._not_launched(self._meet(), execution)
        try:
            send = self._stage(value, memory)
        except RuntimeError as failure:  # no memory
            preflight.arrive(b"", self._capture(failure, execution))
            return self._not_launched(self._meet(), execution)
        preflight.arrive(self._record, None)
        met = self._meet()
        if met is not None and (isinstance(met, Error) or self._kind.root != "src_rank"):
            return self._not_launched(met, execution)
        if group.header.state == FAULTED:
            return self._capture(CollectiveError(_FAULTED_TEXT), execution)
        return self._launch(send, memory, value.device, execution)

    def wait(self, running: _Running | Error) -> Any:
        """Finish the operation; returns the result, None if this rank gets none, or an `Error`."""
        if isinstance(running, Error):
            return running
        try:
            if running.work is not None:
                running.work.wait()
        except RuntimeError as failure:
            return self._fault(failure, running.execution)
        result = running.result
        if result is None:
            return None
        if self._op == "AVG":
            result /= self._world_size
        return result if result.device == running.device else result.to(running.device)

    def _memory_for(self, value: Any, execution: int) -> Any:
        """Return memory for the result of `value`, or the `Error` to take part with.

        A rank that gets nothing and may not work in its input has None.
        """
        if not (tensors.is_tensor(type(value)) or tensors.is_parameter(type(value))):
            kind = type(value)
            text = f"{self._text} takes a torch.Tensor, not {kind.__module__}.{kind.__qualname__}"
            return self._capture(ValueError(text), execution)
        looks = (value.dtype, value.shape, value.device, value.layout)
        if looks != self._looks:  # in most graphs only the first time, which saves 20 us a step
            why = self._why_not(value)
            if why is not None:
                return self._capture(why, execution)
            self._looks, self._record = looks, describe(self._text, value)
            self._shape = self._kind.shape_of_result(tuple(value.shape), self._world_size)
        if not (self._gets or self._in_place):
            return None
        try:
            return self._group.process_group.empty(self._shape, value.dtype, value.device)
        except RuntimeError as failure:  # no memory: an error of this execution on all ranks
            return self._capture(failure, execution)

    def _stage(self, value: torch.Tensor, memory: torch.Tensor | None) -> torch.Tensor:
        """Return what the backend sends: a copy where it works in place."""
        value = value.detach()
        if memory is not None and self._in_place:
            return memory.copy_(value)
        return self._group.process_group.stage(self._kind.name, value, self._op, self._root)

    def _receive(self, met: list[bytes] | Error | None, execution: int) -> _Running | Error:
        """Go on as a rank that only gets, and learns from the root's record what."""
        if not isinstance(met, list) or met[self._root][1:].strip(b"\0") == b"":
            return self._not_launched(met, execution)
        dtype, device, shape = tensor_of(met[self._root])
        try:
            shape = self._kind.shape_of_result(shape, self._world_size)
            memory = self._group.process_group.empty(shape, dtype, device)
        except RuntimeError as failure:
            return self._fault(failure, execution)
        return self._launch(None, memory, device, execution)

    def _launch(
        self, send: torch.Tensor | None, memory: torch.Tensor | None, device: Any, execution: int
    ) -> _Running | Error:
        work = None
        largest = memory if send is None else send
        if largest is not None and largest.numel():
            try:
                work = self._group.process_group.run(
                    self._kind.name, send, memory, op=self._op, root=self._root
                )
            except RuntimeError as failure:
                return self._fault(failure, execution)
        return _Running(memory if self._gets else None, work, device, execution)

    def _not_launched(self, met: list[bytes] | Error | None, execution: int) -> Error:
        """Return what came of a meeting in which not all brought the same."""
        assert met is not None, "all ranks brought an error, or nothing, and none was shown"
        if isinstance(met, Error):
            return met.at(execution=execution)
        return self._mismatch(met, execution)

    def _why_not(self, value: torch.Tensor) -> Exception | None:
        """Return what speaks against this tensor."""
        why: str | None = None
        if not tensors.is_plain(value):
            why = f"the layout {value.layout} is not supported"
        elif value.dim() > MAX_DIMS:
            why = f"{value.dim()} dimensions are more than {MAX_DIMS}"
        elif self._op is not None:
            why = self._group.process_group.why_not(value, self._op)
        if why is not None:
            return TypeError(f"{self._text}: {why}")
        why = self._kind.why_not(tuple(value.shape), self._world_size)
        return None if why is None else CollectiveMismatchError(f"{self._text}: {why}")

    def _mismatch(self, records: list[bytes], execution: int) -> Error:
        """Say which ranks disagree."""
        names = [
            (place.actor, f"{place.node}{place.source and f' ({place.source})'}")
            for place in self._places
        ]
        text = mismatch_text(self._text, records, names, ("actor", "node"))
        return self._capture(CollectiveMismatchError(text), execution)


_FAULTED_TEXT: Final = "The group cannot be used any more: compile the graph again"


def _no_guard() -> None:
    """The wait is for the guard's own condition."""
