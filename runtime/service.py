"""What an actor does with the messages of its mailbox."""

from __future__ import annotations

import contextlib
import pickle
from typing import TYPE_CHECKING, Any, Final

import cloudpickle

from compiled_dag.host import ActorId
from compiled_dag.outcome import Error, Place
from runtime.arguments import load_arguments
from runtime.messages import Call, Reply, Skipped, Spawn, System, SystemReply
from runtime.parcel import Parcel
from runtime.task_service import TaskService, parcels_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.loop import Loop
    from compiled_dag.shm.board import Board
    from compiled_dag.shm.waiter import Waiter
    from runtime.mailbox import Mailbox
    from runtime.nested import NestedSession

STOP_AT_ONCE: Final = 1 << 63
"""Mailbox word that ends the actor before the messages it has not served yet."""


class Service:
    """Serves ordinary calls and system functions; the `ActorContext` of the latter."""

    loop: Loop

    def __init__(
        self,
        spawn: Spawn,
        mailbox: Mailbox,
        board: Board,
        waiter: Waiter,
        session: NestedSession,
    ) -> None:
        self.actor_id = ActorId(spawn.actor_id)
        self.label = f"{spawn.class_name}({spawn.actor_id})"
        self.instance: Any = None
        self.board = board
        self.process = spawn.line
        self.waiter = waiter
        self.resources: dict[str, Any] = {}
        self.exit_code = 0
        self._class_name = spawn.class_name
        self._mail = mailbox
        self._session = session
        self._tasks = TaskService(board, spawn.line)
        self._methods: dict[bytes, Callable[..., Any]] = {}
        self._mailbox = board.mailbox_index(spawn.line)

    def serve(self) -> bool:
        """Serve one message; returns False if there was none."""
        messages = self._mail.messages
        if self.board.words[self._mailbox] == STOP_AT_ONCE:
            self.loop.stop()
            return True
        if not messages and not self._mail.receive():
            self._session.report_gone()
            if self._mail.closed:
                self.loop.stop()
            return self._mail.closed
        message = messages.popleft()
        kind = message.__class__
        if kind is Call:
            self._call(message)
        elif kind is System:
            self._run_system(message)
        else:
            self.loop.stop()
        return True

    def close(self) -> None:
        """Close what graphs and groups keep here, then the socket."""
        for resource in reversed(self.resources.values()):
            close = getattr(resource, "close", None)
            if close is not None:
                with contextlib.suppress(Exception):  # the process ends now, whatever it says
                    close()
        self._mail.close()

    # --- ordinary calls

    def _call(self, call: Call) -> None:
        if not call.method[0]:
            self._session.in_task = True
            self._send(self._tasks.run(call))
            self._session.in_task = False
            return
        self._send(Reply(call.number, self._outcome(call)))
        if call.method == b"__init__" and self.instance is None:
            self.exit_code = 1
            self.loop.stop()

    def _outcome(self, call: Call) -> Sequence[Parcel]:
        method = call.method
        try:
            args, kwargs = load_arguments(call.parcels)
            if method == b"__init__":
                cls, *args = args
                self.instance = cls(*args, **kwargs)
                value = None
            else:
                function = self._methods.get(method) or self._find(method)
                value = function(*args, **kwargs)
            return parcels_of(value, call.num_returns)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  whatever user code raises is its outcome
            return (self._error(method, error),)

    def _find(self, method: bytes) -> Callable[..., Any]:
        name = method.decode()
        found: Callable[..., Any]
        if name == "__ray_call__":
            found = self._apply
        elif name == "__ray_ready__":
            found = _nothing
        else:
            found = getattr(self.instance, name)
        self._methods[method] = found
        return found

    def _apply(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(self.instance, *args, **kwargs)

    def _error(self, method: bytes, error: BaseException) -> Parcel:
        place = Place(method=f"{self._class_name}.{method.decode()}", actor=self.label)
        return Parcel.of(Error.capture(error, place))

    # --- system functions

    def _run_system(self, message: System) -> None:
        try:
            function = pickle.loads(message.function)
            data = bytes(function(self, message.payload, message.fds))
            failed = False
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  comes out of `Pending.result`
            data, failed = _pickled(error), True
        self._send(SystemReply(message.number, failed, data))

    def _send(self, reply: Reply | SystemReply | Skipped) -> None:
        try:
            self._mail.send(reply)
        except OSError:  # the driver has closed the session
            self.loop.stop()


def _pickled(error: BaseException) -> bytes:
    try:
        data: bytes = cloudpickle.dumps(error, protocol=5)
        pickle.loads(data)
    except Exception:  # noqa: BLE001  whatever its pickling raises: it travels as text
        data = pickle.dumps(Error.capture(error).exception(), 5)
    return data


def _nothing() -> None:
    """Answer a call that only asks whether the constructor has ended."""
