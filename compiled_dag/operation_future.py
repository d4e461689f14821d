"""Values that operations are about to make, for the code of actors: `wait` and use them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from compiled_dag.accelerator import AcceleratorContext

_Value = TypeVar("_Value")


class DAGOperationFuture(ABC, Generic[_Value]):
    """The outcome of an operation that may still be under way."""

    @abstractmethod
    def wait(self) -> _Value:
        """Wait as far as the use of the outcome needs it; returns that."""


class ResolvedFuture(DAGOperationFuture[_Value]):
    """An outcome that is there."""

    def __init__(self, result: _Value) -> None:
        self._result = result

    def wait(self) -> _Value:
        """Return it."""
        return self._result


class GPUFuture(DAGOperationFuture[_Value]):
    """What a stream is about to make; waiting for it makes the current stream wait, not the host.

    A method that works on a stream of its own returns its tensor by ``GPUFuture(tensor,
    stream=mine).wait()``: graphs send what the *current* stream has made.
    """

    def __init__(self, buf: _Value, fut_id: int = 0, stream: Any = None) -> None:  # noqa: ARG002
        """Note how far a stream has come.

        Args:
            buf: The value. What is in host memory is there already.
            fut_id: Ignored: each future keeps its own event.
            stream: A stream of torch, or of the registered accelerator; None: the current one.
        """
        self._context = AcceleratorContext.get()
        self._buf = buf
        self._event = self._context.create_event()
        if self._event is not None:
            self._event.record(self._context.current_stream() if stream is None else stream)

    def wait(self) -> _Value:
        """Have the current stream wait for the value; returns that, at once."""
        event, self._event = self._event, None
        if event is not None:
            self._context.current_stream().wait_event(event)
        return self._buf
