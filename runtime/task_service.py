"""Running tasks in a worker process."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

from compiled_dag.errors import TaskCancelledError
from compiled_dag.outcome import Error, Place
from compiled_dag.shm.board import CLAIMED, REVOKED
from compiled_dag.shm.futex import fence
from runtime.arguments import load_arguments
from runtime.checks import STREAM
from runtime.messages import Call, Item, Reply, Skipped
from runtime.parcel import Parcel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.shm.board import Board
    from runtime.interruption import Interruption
    from runtime.spare import Spare

_CODE = 10
"""End of the function's number in a message; before: 0, whether the code comes along."""
_HEAD = 18
"""End of the task's own number; then comes its name."""


class TaskService:
    """The functions this process knows, and how it runs them."""

    def __init__(
        self, board: Board, line: int, interruption: Interruption, send: Callable[[Item], None]
    ) -> None:
        self._send = send
        self._interruption = interruption
        self._words = board.words
        self._claimed = board.word_index(line, CLAIMED)
        self._revoked = board.word_index(line, REVOKED)
        self._functions: dict[bytes, Callable[..., Any]] = {}

    def run(self, call: Call, *, cancelled: bool) -> Reply | Skipped:
        """Run a task, unless it is cancelled, or the driver has taken it back (`runtime.pool`)."""
        words = self._words
        words[self._claimed] = call.number
        fence()
        method = call.method
        parcels, code = call.parcels, None
        if method[1]:
            *parcels, code = parcels
        taken_back = call.number >= words[self._revoked]
        if (taken_back or cancelled) and code is not None:
            self._define(method[2:_CODE], code)
        if taken_back:
            return Skipped(number=call.number)
        if cancelled:
            error = TaskCancelledError("the task was cancelled before it ran")
            return Reply(call.number, (self._error(method, error),))
        return Reply(call.number, self._outcome(call, code, parcels))

    def _outcome(
        self, call: Call, code: Parcel | None, parcels: Sequence[Parcel]
    ) -> Sequence[Parcel]:
        method = call.method
        number = method[2:_CODE]
        try:
            if code is not None:
                self._define(number, code)
            args, kwargs = load_arguments(parcels)
            self._interruption.begin()
            value = self._functions[number](*args, **kwargs)
            if call.num_returns == STREAM:
                value = send_items(call.number, value, self._send)
            self._interruption.running = False
            return parcels_of(value, call.num_returns, call.spare)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  whatever user code raises is its outcome
            self._interruption.running = False
            return (self._error(method, error),)
        finally:
            del parcels

    def _error(self, method: bytes, error: BaseException) -> Parcel:
        place = Place(method=method[_HEAD:].decode(), actor="")
        function = self._functions.get(method[2:_CODE])
        return Parcel.of(Error.capture(error, place, function=function))

    def _define(self, number: bytes, code: Parcel) -> None:
        try:
            function = code.load()
        except Exception as error:  # noqa: BLE001  what unpickling raises, every call raises
            function = _raiser(error)
        self._functions[number] = function
        sys.stdout.flush()


def send_items(number: int, items: Any, send: Callable[[Item], None]) -> int:
    """Send what a generator yields, item by item; returns how many."""
    position = 0
    for item in items:
        send(Item(number, position.to_bytes(8, "little"), (Parcel.of(item),)))
        position += 1
    return position


def _raiser(error: Exception) -> Callable[..., Any]:
    def fail(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise error

    return fail


def parcels_of(value: Any, num_returns: int, spare: Spare | None = None) -> Sequence[Parcel]:
    """Encode what a method or task returned.

    Args:
        value: What it returned.
        num_returns: How many values that is to be.
        spare: Memory for one of them.

    Raises:
        ValueError: It is not as many values as were asked for.
        TypeError: It cannot be pickled.
    """
    if num_returns in (1, STREAM):
        return (Parcel.of(value, spare),)
    if num_returns == 0:
        return ()
    try:
        values = list(value)
    except TypeError:
        values = None
    if values is None or len(values) != num_returns:
        found = type(value).__name__ if values is None else f"{len(values)} values"
        raise ValueError(
            f"num_returns={num_returns} asks for {num_returns} values, the method returned {found}"
        )
    return [Parcel.of(item) for item in values]
