"""The result of one execution, awaited."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from compiled_dag.ref import CompiledDAGRef

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Callable
    from contextvars import Context

    from compiled_dag.driver import CompiledDAG


class CompiledDAGFuture(CompiledDAGRef):
    """What `execute_async` gives: ``await`` it for the value, as often as you like, in any loop.

    It is a `CompiledDAGRef` in all else. Cancelling who awaits it leaves the execution and the
    result as they are. It has what `asyncio.wait` asks of a future; that is for the running loop.
    """

    __slots__ = ("_callbacks",)

    def __init__(self, dag: CompiledDAG, output: int) -> None:
        super().__init__(dag, output)
        self._callbacks: list[tuple[Callable[[CompiledDAGFuture], object], Task[None]]] = []

    def done(self) -> bool:
        """Tell whether awaiting it would return, or raise, at once."""
        return self.ready()

    def cancelled(self) -> bool:
        """Tell that it is not cancelled: an execution never is."""
        return False

    def result(self) -> Any:
        """Return the value, which must be there.

        Raises:
            asyncio.InvalidStateError: It is not there yet.
        """
        if not self.ready():
            from asyncio import InvalidStateError  # noqa: PLC0415  `import compiled_dag` loads none

            raise InvalidStateError(f"{self!r} is not done: await it")
        return self.get()

    def exception(self) -> BaseException | None:
        """Return what awaiting it raises, None if that is a value; it must be there, as above."""
        if not self.ready():
            self.result()
        try:
            self.get()
        except BaseException as error:  # noqa: BLE001  whatever the result is
            return error
        return None

    def add_done_callback(
        self,
        callback: Callable[[CompiledDAGFuture], object],
        *,
        context: Context | None = None,
    ) -> None:
        """Have the running loop call `callback` with this future once it is done."""
        from asyncio import get_running_loop  # noqa: PLC0415  the same

        task = get_running_loop().create_task(self._settled())
        self._callbacks.append((callback, task))

        def ended(task: Task[None]) -> None:
            self._callbacks = [entry for entry in self._callbacks if entry[1] is not task]
            if not task.cancelled():
                callback(self)

        task.add_done_callback(ended, context=context)

    def remove_done_callback(self, callback: Callable[[CompiledDAGFuture], object]) -> int:
        """Call `callback` no more; returns how often it had been added."""
        removed = [task for known, task in self._callbacks if known == callback]
        self._callbacks = [entry for entry in self._callbacks if entry[1] not in removed]
        for task in removed:
            task.cancel()
        return len(removed)

    async def _settled(self) -> None:
        """Wait until it is done; raises nothing of what it is."""
        with contextlib.suppress(Exception):  # whoever awaits it, or asks, gets that
            await self
