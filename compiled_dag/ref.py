"""The result of one execution, later."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from compiled_dag.outcome import Error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.driver import CompiledDAG
    from compiled_dag.errors import TaskError

PENDING: Final = object()


class _Raised(NamedTuple):
    """In the place of a value: what every get raises, always the same object."""

    exception: TaskError


class CompiledDAGRef:
    """One output of one execution. Get it as often as you like; it is the same object each time."""

    __slots__ = ("__weakref__", "_dag", "_execution", "_output", "_value")

    __compiled_ref__ = True

    def __init__(self, dag: CompiledDAG, execution: int, output: int) -> None:
        self._dag = dag
        self._execution = execution
        self._output = output
        self._value: Any = PENDING

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
            self._value = value = _Raised(value.exception())
        if value.__class__ is _Raised:
            # Anew: each raise would add its frames to the traceback, and keep them alive.
            raise value.exception.with_traceback(None)
        return value

    @classmethod
    def get_many(cls, refs: Sequence[CompiledDAGRef], timeout: float | None = None) -> list[Any]:
        """Return the values of several refs, all under one deadline; otherwise as `get`.

        Raises the first error of a graph that becomes known without waiting for its slower
        outputs; those stay gettable.
        """
        by_graph: dict[int, list[CompiledDAGRef]] = {}
        for ref in refs:
            if ref._value is PENDING:
                by_graph.setdefault(id(ref._dag), []).append(ref)
        for group in by_graph.values():
            group[0]._dag._fetching.timeout_s(timeout)
        deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        for group in by_graph.values():
            left = timeout if deadline is None else max(0.0, deadline - time.monotonic())
            group[0]._dag._fetching.many(group, left)
            for ref in group:
                if ref._value.__class__ is Error:
                    ref.get()
        return [ref.get() for ref in refs]

    def ready(self) -> bool:
        """Tell whether `get` would return, or raise, at once."""
        return self._value is not PENDING or self._dag._fetching.is_ready(self)

    def __del__(self) -> None:
        if self._value is PENDING:
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
        return f"<CompiledDAGRef {where} {state}>"
