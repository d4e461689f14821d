"""The result of one execution, later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from compiled_dag.interrupts import finalizer
from compiled_dag.outcome import Error

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from compiled_dag.driver import CompiledDAG

PENDING: Final = object()


class Raised(NamedTuple):
    """In the place of a value: what every get raises, always the same object."""

    exception: BaseException


class CompiledDAGRef:
    """One output of one execution. Get it as often as you like; it is the same object each time."""

    __slots__ = ("__weakref__", "_dag", "_execution", "_output", "_value")

    __compiled_ref__ = True

    _execution: int

    def __init__(self, dag: CompiledDAG, output: int) -> None:
        """Make the ref of an execution that has no number yet.

        Whoever numbers it sets `_execution`, then `_value` to PENDING. From then on dropping the
        ref drops the result; before, it must not.
        """
        self._dag = dag
        self._output = output
        self._value: Any = None

    def get(self, timeout: float | None = None) -> Any:
        """Return the value.

        Args:
            timeout: Seconds; None for the graph's `get_timeout`, 0 polls, -1 waits for ever.

        Raises:
            TaskError: A node failed; also of the cause's class.
            ChannelTimeoutError: Not ready in time. Nothing is lost: get again.
            GraphActorDiedError: An actor of the graph died.
            ChannelClosedError: The graph was torn down before the result was got.
        """
        if self._value is PENDING:
            self._dag._fetching.one(self, timeout)
        value = self._value
        if value.__class__ is Error:
            self._value = value = Raised(value.exception())
        if value.__class__ is Raised:
            # Anew: each raise would add its frames to the traceback, and keep them alive.
            raise value.exception.with_traceback(None)
        return value

    @classmethod
    def get_many(cls, refs: Sequence[CompiledDAGRef], timeout: float | None = None) -> list[Any]:
        """Return the values of several refs, all under one deadline; otherwise as `get`.

        Raises the first error that becomes known without waiting for slower outputs; those stay
        gettable. Refs of several graphs may be mixed.
        """
        if refs and timeout is None:
            values = refs[0]._dag._fetching.in_turn(refs)
            if values is not None:
                return values
        missing = [ref for ref in refs if ref._value is PENDING]
        if missing and not any(map(is_error, refs)):
            missing[0]._dag._fetching.many(missing, timeout)
        for ref in filter(is_error, refs):
            ref.get()
        return [ref._value for ref in refs]

    def __await__(self) -> Generator[Any, None, Any]:
        """Return the value, in any event loop; raises what `get` does, and never a time-out."""
        if self._value is PENDING:
            yield from self._dag._awaiting.fill(self)
        return self.get()

    def ready(self) -> bool:
        """Tell whether `get` would return, or raise, at once."""
        return self._value is not PENDING or self._dag._fetching.is_ready(self)

    @finalizer
    def __del__(self) -> None:
        try:
            is_pending = self._value is PENDING
        except AttributeError:  # Ctrl-C came before there was a value
            return
        if is_pending:
            self._dag._results.forget(self._execution, self._output)

    def __copy__(self) -> NoReturn:
        msg = f"{self!r} cannot be copied: it is the one handle on its result. Copy the value"
        raise ValueError(msg)

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__copy__()

    def __reduce__(self) -> NoReturn:
        msg = f"{self!r} cannot be pickled or sent: get its value first"
        raise ValueError(msg)

    def __repr__(self) -> str:
        state = "pending" if self._value is PENDING else "ready"
        where = f"graph {self._dag.get_id()} execution {self._execution} output {self._output}"
        return f"<{type(self).__name__} {where} {state}>"


def is_error(ref: CompiledDAGRef) -> bool:
    """Tell whether `get` is known to raise."""
    return ref._value.__class__ is Error or ref._value.__class__ is Raised
