"""What an actor does with the messages of its mailbox."""

from __future__ import annotations

import contextlib
import pickle
import signal
import sys
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle

from compiled_dag.errors import TaskCancelledError
from compiled_dag.host import ActorId
from compiled_dag.outcome import Error, Place
from compiled_dag.shm.board import CANCELS, CLAIMED, CLAIMED_AT, CONCURRENT
from compiled_dag.shm.futex import fence
from runtime import ids, spans
from runtime.arguments import load_arguments
from runtime.checks import STREAM
from runtime.messages import Call, Item, Reply, Skipped, Spawn, System, SystemReply
from runtime.parcel import Parcel
from runtime.reception import Reception
from runtime.signatures import is_async
from runtime.task_service import TaskService, parcels_of, send_items

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compiled_dag.loop import Loop
    from compiled_dag.shm.board import Board
    from compiled_dag.shm.waiter import Waiter
    from runtime.concurrency import Executor
    from runtime.interruption import Interruption
    from runtime.mailbox import Mailbox
    from runtime.nested import NestedSession
    from runtime.process_facts import ProcessFacts


class _Limits(NamedTuple):
    most: int | None
    groups: Mapping[str, int]


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
        interruption: Interruption,
    ) -> None:
        self.actor_id = ActorId(spawn.actor_id)
        self.label = f"{spawn.class_name}({spawn.actor_id})"
        self.instance: Any = None
        self.board = board
        self.process = spawn.line
        self.waiter = waiter
        self.resources = session.kept
        self.exit_code = 0
        self._class_name = spawn.class_name
        self._mail = mailbox
        self._session = session
        self._interruption = interruption
        self._tasks = TaskService(board, spawn.line, interruption, mailbox.send)
        self._claimed = board.word_index(spawn.line, CLAIMED)
        self._claimed_at = board.word_index(spawn.line, CLAIMED_AT)
        self._cancels = board.word_index(spawn.line, CANCELS)
        self._seen_cancels = 0
        self._cancelled: set[int] = set()
        mailbox.receive_cancel = self._cancel
        self._limits = _Limits(spawn.max_concurrency, spawn.concurrency_groups)
        self._executor: Executor | None = None
        """What runs calls instead of the main thread, if several may run at once."""
        self._reception = Reception(mailbox, self._call)
        """What takes calls out of the mailbox for it."""
        self._handed_over: set[int] = set()
        """Calls that it has not answered."""
        self._ending = False
        """Whether the actor is to end once these are answered."""
        self._methods: dict[bytes, Callable[..., Any]] = {}

    def identity(self) -> tuple[str, str]:
        """Return the actor's name (empty if it has none) and its id, as users see them."""
        known: ProcessFacts = self._session.ask("process_facts", self.actor_id)
        return known.name or "", ids.actor(self.actor_id)

    def serve(self) -> bool:
        """Serve one message; returns False if there was none."""
        mail = self._mail
        messages = mail.messages
        if mail.stopped:
            self.loop.stop()
            return True
        if not messages and not self._take() and not messages:
            return mail.closed  # the second look: another thread may have received
        if not messages:
            return True  # part of a message: look again
        self._look_for_cancels()
        if self._executor is not None and self._reception.hand_over_first():
            return True
        message = messages.popleft()  # no other thread takes what is no call
        kind = message.__class__
        if kind is Call:
            self._call(message)
        elif kind is System:
            self._run_system(message)
        else:
            self._ending = True
            self._stop_if_done()
        return True

    def _take(self) -> bool:
        """Receive; returns False if nothing was there."""
        if not self._mail.all_read and self._mail.receive():
            return True
        self._session.report_gone()
        if self._mail.closed:
            self.loop.stop()
        return False

    def _look_for_cancels(self) -> None:
        """Learn which of the waiting calls are not to run. Any thread may use it."""
        count = self.board.words[self._cancels]
        if count != self._seen_cancels:
            while self._mail.receive():
                pass
            self._seen_cancels = count  # last: another thread that looks now has to wait for them

    def _stop_if_done(self) -> None:
        """End the actor if it is to end and no call is left. Any thread may use it."""
        if self._ending and not self._handed_over:
            self.loop.stop()
            self.board.ring(self.process)

    def close(self) -> None:
        """Close what graphs and groups keep here, then the socket."""
        with contextlib.suppress(Exception):  # the process ends now, whatever it says
            self._session.host.close()
        for resource in reversed(self.resources.values()):
            close = getattr(resource, "close", None)
            if close is not None:
                with contextlib.suppress(Exception):  # the process ends now, whatever it says
                    close()
        if self._executor is not None:
            self._executor.close()
        if not self._mail.stopped:
            with contextlib.suppress(OSError):  # the driver has closed the session
                spans.send_last(self._mail, self.actor_id)
        self._mail.close()

    # --- ordinary calls

    def _call(self, call: Call) -> None:
        if not call.method[0]:
            self._run_task(call)
            return
        if self._cancelled and call.number in self._cancelled:
            self._skip(call, call.method)
            return
        if self._executor is not None:
            self._hand_over(call, self._executor)
            return
        self.board.words[self._claimed_at] = spans.begin(call.number, call.method)
        parcels = self._outcome(call)
        spans.end()
        self._send(Reply(call.number, parcels))
        self._cancelled.discard(call.number)
        del parcels
        if call.method == b"__init__" and self.instance is None:
            self.exit_code = 1
            self.loop.stop()

    def _run_task(self, call: Call) -> None:
        self.board.words[self._claimed_at] = spans.begin(call.number, call.method)
        cancelled = call.number in self._cancelled
        self._cancelled.discard(call.number)
        self._session.in_task = True
        reply = self._tasks.run(call, cancelled=cancelled)
        spans.end(ran=reply.__class__ is Reply)
        self._send(reply)
        self._session.in_task = False

    def _skip(self, call: Call, method: bytes) -> None:
        error = TaskCancelledError("the call was cancelled before it ran")
        self._answer(call, (self._error(method, error),))

    def _answer(self, call: Call, parcels: Sequence[Parcel]) -> None:
        spans.end()
        self._send(Reply(call.number, parcels))
        self._cancelled.discard(call.number)
        self._handed_over.discard(call.number)
        self._stop_if_done()

    def _hand_over(self, call: Call, executor: Executor) -> None:
        name, _, group = call.method.partition(b"\0")
        self._handed_over.add(call.number)
        try:
            executor.submit(group.decode(), call.number, partial(self._elsewhere, call, name))
        except ValueError as error:  # no such group
            self._answer(call, (self._error(name, error),))

    def _outcome(self, call: Call) -> Sequence[Parcel]:
        method, interruption = call.method, self._interruption
        self.board.words[self._claimed] = call.number
        fence()  # whoever cancels it from now on sends the signal, or has said so before
        self._look_for_cancels()
        try:
            if call.number in self._cancelled:
                raise TaskCancelledError("the call was cancelled before it ran")  # noqa: TRY301
            args, kwargs = load_arguments(call.parcels)
            interruption.begin()
            if method == b"__init__":
                self._create(args, kwargs)
                value = None
            else:
                function = self._methods.get(method) or self._find(method)
                value = function(*args, **kwargs)
                if call.num_returns == STREAM:
                    value = send_items(call.number, value, self._mail.send)
            interruption.running = False
            return parcels_of(value, call.num_returns, call.spare)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  whatever user code raises is its outcome
            interruption.running = False
            return (self._error(method, error),)

    def _cancel(self, number: int) -> None:
        """Note that a call is not to run, or end it if it runs elsewhere."""
        self._cancelled.add(number)  # first: what begins now looks there
        if self._executor is not None:
            self._interruption.cancel(number)
            self._executor.cancel(number)

    def _create(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Make the instance, and what runs its calls if the main thread does not."""
        cls, *rest = args
        limits = self._limits
        if limits.groups or limits.most not in (None, 1) or is_async(cls):
            # Here, because it takes 50 ms that most actors need not spend.
            from runtime.concurrency import executor_for  # noqa: PLC0415

            self._executor = executor_for(cls, limits.most, limits.groups)
            self._session.host.calls_run_elsewhere = True
            self.board.words[self.board.word_index(self.process, CONCURRENT)] = 1
            self.instance = self._executor.run(lambda: cls(*rest, **kwargs))
        else:
            self.instance = cls(*rest, **kwargs)

    def _elsewhere(
        self, call: Call, method: bytes, *, cancelled: bool = False
    ) -> Awaitable[None] | None:
        """Run a call that the executor has begun; returns what is to be awaited, if anything."""
        if cancelled:
            self._skip(call, method)
            return None
        number = call.number
        self._look_for_cancels()  # before this thread may be interrupted: it may read messages

        def work() -> Any:
            if number in self._cancelled:
                raise TaskCancelledError("the call was cancelled before it ran")
            function = self._methods.get(method) or self._find(method)
            value = function(*args, **kwargs)
            if call.num_returns == STREAM and not hasattr(value, "__aiter__"):
                value = send_items(number, value, self._mail.send)
            return value

        spans.begin(call.number, method)
        try:
            args, kwargs = load_arguments(call.parcels)
            value = self._interruption.run_elsewhere(number, work)
            if isinstance(value, Awaitable) or hasattr(value, "__aiter__"):
                return self._await(call, method, value)
            parcels = parcels_of(value, call.num_returns, call.spare)
        except BaseException as error:  # noqa: BLE001  whatever user code raises is its outcome
            self._fail(call, method, error)
        else:
            self._answer(call, parcels)
        return None

    async def _send_async(self, number: int, items: Any) -> int:
        """Send what an asynchronous generator yields; returns how many."""
        position = 0
        async for item in items:
            self._mail.send(Item(number, position.to_bytes(8, "little"), (Parcel.of(item),)))
            position += 1
        return position

    async def _await(self, call: Call, method: bytes, value: Any) -> None:
        try:
            if call.num_returns == STREAM:
                value = await self._send_async(call.number, value)
            else:
                value = await value
            parcels = parcels_of(value, call.num_returns, call.spare)
        except asyncio_cancelled():
            self._fail(call, method, TaskCancelledError("the call was cancelled while it ran"))
        except BaseException as error:  # noqa: BLE001  whatever user code raises is its outcome
            self._fail(call, method, error)
        else:
            self._answer(call, parcels)

    def _fail(self, call: Call, method: bytes, error: BaseException) -> None:
        """Answer a call that raised; what ends an actor ends it from any thread, unanswered."""
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            self.exit_code = exit_code(error)
            self.loop.stop()
            self.board.ring(self.process)
            return
        self._answer(call, (self._error(method, error),))

    def _find(self, method: bytes) -> Callable[..., Any]:
        name, _, group = method.decode().partition("\0")
        if group:
            raise ValueError(f"no concurrency group {group!r} in this actor: it has none")
        found: Callable[..., Any]
        if name == "__ray_call__":
            found = self._apply
        elif name == "__ray_ready__":
            found = _yes
        else:
            found = getattr(self.instance, name)
        self._methods[method] = found
        return found

    def _apply(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(self.instance, *args, **kwargs)

    def _error(self, method: bytes, error: BaseException) -> Parcel:
        name = method.partition(b"\0")[0].decode()  # without the group
        place = Place(method=f"{self._class_name}.{name}", actor=self.label)
        return Parcel.of(Error.capture(error, place, function=self._methods.get(method)))

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
        if self._executor is not None and self.loop.has_programs:
            self._reception.attend()

    def _send(self, reply: Reply | SystemReply | Skipped) -> None:
        try:
            # What the call was lent goes back before its caller goes on, and without a message of
            # its own. References in the reply are not gone: it holds them.
            session = self._session
            self._mail.send(reply, session.gone() if session.held.gone else None)
        except OSError:  # the driver has closed the session
            self.loop.stop()


def _pickled(error: BaseException) -> bytes:
    try:
        data: bytes = cloudpickle.dumps(error, protocol=5)
        pickle.loads(data)
    except Exception:  # noqa: BLE001  whatever its pickling raises: it travels as text
        data = pickle.dumps(Error.capture(error).exception(), 5)
    return data


def _yes() -> bool:
    """Answer a call that only asks whether the constructor has ended."""
    return True


def exit_code(error: SystemExit | KeyboardInterrupt) -> int:
    """Return the exit code of an actor whose user code raised what ends it."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT  # as by the signal (terminal interrupts are ignored)
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)  # noqa: T201  what sys.exit(text) is for
    return 1


def asyncio_cancelled() -> type[BaseException]:
    """Return asyncio's exception; it is loaded, since a coroutine runs."""
    cancelled: type[BaseException] = sys.modules["asyncio"].CancelledError
    return cancelled
