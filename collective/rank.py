"""One rank's part in a collective of a graph: preflight, launch, finish."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from collective.header import FAULTED, GroupHeader, Preflight
from compiled_dag.channel import tensor as tensors
from compiled_dag.errors import ChannelClosedError, CollectiveError, CollectiveMismatchError
from compiled_dag.outcome import Error, Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from collective.torch_group import TorchGroup, Work
    from compiled_dag.host import ActorContext
    from compiled_dag.shm.waiter import Waiter

_MAX_DIMS: Final = 16
_RECORD: Final = struct.Struct(f"<24s16s8sI{_MAX_DIMS}q")
"""Operation, dtype, device kind, dimensions, shape."""
_DEATH_NOTICE_S: Final = 2.0
"""How long a rank whose backend failed waits to hear that a peer died."""


@dataclass(slots=True)
class RankGroup:
    """This process's end of a group."""

    header: GroupHeader
    preflight: Preflight
    torch_group: TorchGroup
    rank: int
    waiter: Waiter

    def __post_init__(self) -> None:
        self.waiter.calm += self.torch_group.needs_calm

    def close(self) -> None:
        """Give the group up."""
        self.waiter.calm -= self.torch_group.needs_calm
        self.torch_group.abort()
        self.header.close()


@dataclass(slots=True)
class _Running:
    """An operation under way."""

    tensor: torch.Tensor
    work: Work
    device: Any
    execution: int


class RankOperation:
    """What the program's CollectiveStart and CollectiveWait call."""

    def __init__(
        self,
        context: ActorContext,
        group_id: int,
        rank: int,
        places: Sequence[Place],
        text: str,
        op: str,
    ) -> None:
        self._group: RankGroup = context.resources[f"group {group_id}"]
        self._waiter = context.waiter
        self._rank = rank
        self._places = tuple(places)
        self._text = text
        self._op = op
        self._looks: tuple[Any, ...] = ()
        self._record = b""

    def start(self, value: Any, execution: int) -> _Running | Error:
        """Meet the other ranks; launch if all bring the same."""
        group, buffer = self._group, value
        if value.__class__ is not Error:
            buffer = self._buffer_for(value, execution)
        try:
            if buffer.__class__ is Error:
                group.preflight.arrive(b"", buffer)
            else:
                group.preflight.arrive(self._record, None)
                buffer.copy_(value.detach())  # while the others come
            met = group.preflight.meet()
        except ChannelClosedError:
            # A peer may have seen all arrive and be in the backend, waiting for this rank.
            group.torch_group.abort()
            raise
        except RuntimeError as failure:  # of the copy
            return self._fault(failure, execution)
        if met is not None:
            if isinstance(met, Error):
                return met.at(execution=execution)
            return self._mismatch(met, execution)
        if group.header.state == FAULTED:
            return self._capture(CollectiveError(_FAULTED_TEXT), execution)
        try:
            work = group.torch_group.allreduce(buffer, self._op)
        except RuntimeError as failure:
            return self._fault(failure, execution)
        return _Running(buffer, work, value.device, execution)

    def wait(self, running: _Running | Error) -> Any:
        """Finish the operation; returns the reduced tensor or an `Error`."""
        if isinstance(running, Error):
            return running
        try:
            running.work.wait()
        except RuntimeError as failure:
            return self._fault(failure, running.execution)
        tensor = running.tensor
        if self._op == "AVG":
            tensor /= self._group.header.world_size
        return tensor if tensor.device == running.device else tensor.to(running.device)

    def _buffer_for(self, value: Any, execution: int) -> Any:
        """Return memory for the operation on `value`, or the `Error` to take part with."""
        if not (tensors.is_tensor(type(value)) or tensors.is_parameter(type(value))):
            kind = type(value)
            text = f"{self._text} takes a torch.Tensor, not {kind.__module__}.{kind.__qualname__}"
            return self._capture(ValueError(text), execution)
        looks = (value.dtype, value.shape, value.device, value.layout)
        if looks != self._looks:  # in most graphs only the first time, which saves 20 us a step
            why = self._why_not(value)
            if why is not None:
                return self._capture(TypeError(f"{self._text}: {why}"), execution)
            self._looks, self._record = looks, self._describe(value)
        try:
            return self._group.torch_group.empty_like(value)
        except RuntimeError as failure:  # no memory: an error of this execution on all ranks
            return self._capture(failure, execution)

    def _why_not(self, value: torch.Tensor) -> str | None:
        """Return why `value` cannot be reduced."""
        if not tensors.is_plain(value):
            return f"the layout {value.layout} is not supported"
        if value.dim() > _MAX_DIMS:
            return f"{value.dim()} dimensions are more than {_MAX_DIMS}"
        return self._group.torch_group.why_not(value, self._op)

    def _describe(self, tensor: torch.Tensor) -> bytes:
        shape = tuple(tensor.shape)
        return _RECORD.pack(
            self._text.encode(),
            str(tensor.dtype)[6:].encode(),
            tensor.device.type.encode(),
            len(shape),
            *shape,
            *(0,) * (_MAX_DIMS - len(shape)),
        )

    def _mismatch(self, records: list[bytes], execution: int) -> Error:
        """Say which ranks disagree, as a table with the odd ones marked."""
        common = max(records, key=records.count)
        rows = [("rank", "actor", "node", "operation", "dtype", "shape", "device")]
        for rank, (place, record) in enumerate(zip(self._places, records, strict=True)):
            source = place.source and f" ({place.source})"
            odd = "  <-- differs" if record != common else ""
            rows.append((str(rank), place.actor, f"{place.node}{source}", *_unpack(record, odd)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        cells = [[c.ljust(width) for c, width in zip(row, widths, strict=True)] for row in rows]
        table = "\n".join(f"  {'  '.join(row)}".rstrip() for row in cells)
        text = f"the ranks of {self._text} bring different tensors:\n{table}"
        return self._capture(CollectiveMismatchError(text), execution)

    def _fault(self, failure: RuntimeError, execution: int) -> Error:
        """The backend failed: give the group up on this rank, so that no peer waits for it.

        A peer's death is the usual cause, and the driver tells about it within milliseconds: then
        the graph breaks with the death as its cause and nothing of this is ever seen.
        """
        group = self._group
        group.header.end(FAULTED)
        group.torch_group.abort()
        deadline = time.monotonic() + _DEATH_NOTICE_S
        self._waiter.until(group.header.stopped, _no_guard, deadline)
        group.header.guard()
        text = f"{self._text} failed in {group.torch_group.backend}: {failure}. {_FAULTED_TEXT}"
        return self._capture(CollectiveError(text), execution)

    def _capture(self, error: Exception, execution: int) -> Error:
        place = self._places[self._rank]
        return Error.capture(error, place, rank=self._rank, execution=execution)


_FAULTED_TEXT: Final = "The group cannot be used any more: compile the graph again"


def _unpack(record: bytes, odd: str) -> tuple[str, str, str, str]:
    text, dtype, device, num_dims, *shape = _RECORD.unpack_from(record, 1)
    names = [part.rstrip(b"\0").decode() for part in (text, dtype, device)]
    return names[0], names[1], str(tuple(shape[:num_dims])), names[2] + odd


def _no_guard() -> None:
    """The wait is for the guard's own condition."""
