"""One rank's part in an operation of one tensor, as most are: `rank_operation` in half the time.

Nothing is decided here. The first execution goes the long way, which looks at the tensor; as long
as the next ones look the same, what follows from it is done in a row. Whatever is unusual goes the
long way again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from collective.process_group import OperationError
from collective.rank import ENDS
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
        group = self._group
        preflight, shortcut, value = group.preflight, self._shortcut, values[0]
        turn, laid = preflight.turn, False
        try:
            if shortcut is None or not shortcut.lay(value):
                return self._start(values, execution)
            laid = True
            met = preflight.agree(self._record)
            if met is None and not group.is_faulted:
                return (shortcut.take(value),)
            return self._refusal(met, execution)
        except ENDS:
            if laid:  # as in `_meet`
                group.process_group.abort()
            raise
        except BaseException as failure:  # noqa: BLE001  signal handlers may raise anything
            return self._broken_off(failure, turn, execution, over=laid)

    def _start(self, values: tuple[Any, ...], execution: int) -> Any:
        (value,) = values
        try:
            looks = (value.__class__, value.dtype, value.shape, value.device, value.layout)
        except (AttributeError, RuntimeError):
            return super()._start(values, execution)
        if looks != self._known:
            return self._begin(values, looks, execution)
        group = self._group
        process_group = group.process_group
        if value.requires_grad:
            value = value.detach()
        send = receive = None
        if self._needs_memory:
            receive = process_group.empty(self._shape, value.dtype, value.device)
        if self._in_place:
            receive.copy_(value)  # type: ignore[union-attr]  # then memory is needed
        else:
            send = process_group.stage(self._name, value, self._op, self._root)
        met = self._come(self._record, None, execution)
        refusal = None
        if met is not None or group.is_faulted:
            refusal = self._refusal(met, execution)
        if refusal is not None:
            return refusal
        try:
            work = process_group.run(self._name, send, receive, op=self._op, root=self._root)
        except OperationError as failed:
            return self._of_operation(failed, execution)
        except RuntimeError as failure:
            return self._fault(failure, execution)
        return receive, work, value.device, execution

    def _begin(self, values: tuple[Any, ...], looks: Any, execution: int) -> Running | Error:
        """Go the long way, and see whether the short one will do from now on."""
        self._known = self._shortcut = None
        running: Running | Error = super()._start(values, execution)
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
            return running
        result, work, device, execution = running
        error = None if work is None else self._finish((work,), execution)
        if error is None and self._gets:
            result, error = self._result(result, device, execution)
        error, self._put_off = error or self._put_off, None
        return (result if error is None else error,)

    def _result(
        self, result: torch.Tensor, device: Any, execution: int
    ) -> tuple[torch.Tensor, Error | None]:
        """Return what this rank gets, or how that failed here."""
        try:
            if self._divisor is not None:
                result /= self._divisor
            return (result if result.device == device else result.to(device)), None
        except ENDS:
            raise
        except BaseException as failure:  # noqa: BLE001  signal handlers may raise anything
            return result, self._capture(failure, execution)
