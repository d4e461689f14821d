"""One rank's part in an operation of one tensor, as most are: `rank_operation` in half the time.

Nothing is decided here. The first execution goes the long way, which looks at the tensor; as long
as the next ones look the same, what follows from it is done in a row. Whatever is unusual goes the
long way again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from collective.rank_operation import RankOperation, Running
from compiled_dag.outcome import Error

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from collective.ops import Operation
    from collective.process_group import Shortcut
    from compiled_dag.host import ActorContext
    from compiled_dag.outcome import Place


class PlainOperation(RankOperation):
    """What the program's CollectiveStart and CollectiveWait call."""

    def __init__(
        self,
        context: ActorContext,
        group_id: int,
        rank: int,
        places: Sequence[Place],
        operation: Operation,
    ) -> None:
        super().__init__(context, group_id, rank, places, operation)
        kind, group = operation.kind, self._group.process_group
        self._name = kind.name
        self._op = None if operation.op is None else operation.op.value
        self._root = operation.root
        self._divisor = len(places) if self._op == "AVG" else None
        self._in_place = kind.in_place and group.in_place
        self._needs_memory = self._gets or self._in_place
        self._shortcut: Shortcut | None = None
        """The backend's own, for what looks like the last ones."""
        self._known: Any = None
        """What the tensor looked like whose result has this shape."""
        self._shape: tuple[int, ...] = ()

    @staticmethod
    def fits(operation: Operation, rank: int) -> bool:
        """Tell whether a rank's part is of this kind."""
        return not (
            operation.only_gets(rank)
            or operation.num_buckets > 1
            or operation.inplace
            or operation.uneven
        )

    def start(self, values: tuple[Any, ...], execution: int) -> Any:
        """Meet the other ranks; launch if all bring what goes together."""
        (value,) = values
        if self._shortcut is not None and self._shortcut.lay(value):
            return self._start_short(self._shortcut, value, execution)
        try:
            looks = (value.__class__, value.dtype, value.shape, value.device, value.layout)
        except (AttributeError, RuntimeError):
            return super().start(values, execution)
        if looks != self._known:
            return self._begin(values, looks, execution)
        group = self._group
        process_group = group.process_group
        if value.requires_grad:
            value = value.detach()
        send = receive = None
        try:
            if self._needs_memory:
                receive = process_group.empty(self._shape, value.dtype, value.device)
            if self._in_place:
                receive.copy_(value)  # type: ignore[union-attr]  # then memory is needed
            else:
                send = process_group.stage(self._name, value, self._op, self._root)
        except RuntimeError:  # no memory
            return super().start(values, execution)
        refusal = self._meet_plainly(execution)
        if refusal is not None:
            return refusal
        try:
            work = process_group.run(self._name, send, receive, op=self._op, root=self._root)
        except RuntimeError as failure:
            return self._fault(failure, execution)
        return receive, work, value.device, execution

    def _start_short(
        self, shortcut: Shortcut, value: torch.Tensor, execution: int
    ) -> tuple[torch.Tensor | None] | Error:
        """Do it all: the tensor has been laid already."""
        refusal = self._meet_plainly(execution)
        return (shortcut.take(value),) if refusal is None else refusal

    def _meet_plainly(self, execution: int) -> Error | None:
        """Meet the other ranks; returns why the operation is not launched."""
        group = self._group
        group.preflight.arrive(self._record, None)
        met = self._meet()
        if met is None and not group.is_faulted:
            return None
        return self._refusal(met, execution)

    def _begin(self, values: tuple[Any, ...], looks: Any, execution: int) -> Running | Error:
        """Go the long way, and see whether the short one will do from now on."""
        self._known = self._shortcut = None
        running = super().start(values, execution)
        if not isinstance(running, Error) and self._own is not None:
            (message,) = self._own.messages
            if message.width:
                self._known, self._shape = looks, message.shapes[0]
                self._shortcut = self._carrier.shortcut(self._own.messages, values[0])
        return running

    def wait(self, running: Any) -> Sequence[Any]:
        """Finish the operation; see `RankOperation.wait`."""
        if running.__class__ is not tuple:
            return super().wait(running)
        if len(running) == 1:
            return tuple(running)
        result, work, device, execution = running
        if work is not None:
            try:
                work.wait()
            except RuntimeError as failure:
                return (self._fault(failure, execution),)
        if not self._gets:
            return (None,)
        if self._divisor is not None:
            result /= self._divisor
        return (result if result.device == device else result.to(device),)
