"""One actor as the driver knows it: its process, its queue of calls, its end.

The queue holds calls back only while a reference among their arguments is not ready; then all later
calls of the actor wait behind it, because calls run in the order they were made.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.errors import ActorDiedError
from runtime import obituary
from runtime.arguments import pack_arguments
from runtime.link import Link
from runtime.logs import LogStream
from runtime.messages import Call, Reply, Spawn, Stop, System, SystemReply
from runtime.objects import ObjectRef
from runtime.system_call import SystemCall
from runtime.zygotes import absolute_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compiled_dag.host import ActorId
    from runtime.options import ActorOptions
    from runtime.parcel import Parcel
    from runtime.session import Session

_STATUS_S: Final = 0.05
"""How long the exit status may come after the death; the zygote sends it within a millisecond."""
_MOST_SPAWNS: Final = 3
_CREATION: Final = 0
"""Number of the call that runs the constructor."""

_numbers = itertools.count(1)


class ActorProcess:
    """An actor; lives as long as anybody asks about it, much longer than its process."""

    def __init__(
        self, session: Session, actor_id: ActorId, line: int, class_name: str, options: ActorOptions
    ) -> None:
        self.session = session
        self.actor_id = actor_id
        self.line = line
        self.class_name = class_name
        self.options = options
        self.label = f"{class_name}({actor_id})"
        self.pid = 0
        """0 until the process exists."""
        self.death: ActorDiedError | None = None
        self.gpu_ids: tuple[int, ...] = ()
        self.gone = False
        """Whether the process has ended (or never was)."""
        self.reason = ""
        """Why this session ended it, if it did."""
        self._pidfd = -1
        self._num_spawns = 0
        self._link: Link | None = None
        self._logs: tuple[LogStream, ...] = ()
        self._status: int | None = None
        self._lock = threading.Lock()
        self._ready = False
        """Whether messages may be sent: the process exists."""
        self._created = False
        """Whether the constructor's call has been sent."""
        self._queue: deque[tuple[Call, list[ObjectRef]] | System | Stop] = deque()
        self._pending: dict[int, tuple[ObjectRef, ...] | SystemCall] = {}

    # --- calls: from any thread

    def call(
        self,
        method: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        num_returns: int = 1,
        nested: bool = False,
    ) -> tuple[ObjectRef, ...]:
        """Queue a call; returns one reference per return value.

        Raises:
            TypeError: An argument cannot be sent.
        """
        parcel, needed = pack_arguments(args, kwargs, nested=nested)
        what = f"{self.class_name}.{method}"
        refs = tuple([ObjectRef(what, self) for _ in range(num_returns)])
        number = _CREATION if method == "__init__" else next(_numbers)
        self._enqueue(Call(number, method.encode(), num_returns, (parcel,)), needed, refs)
        return refs

    def _enqueue(self, call: Call, needed: list[ObjectRef], refs: tuple[ObjectRef, ...]) -> None:
        with self._lock:
            death = self.death
            if death is None:
                self._pending[call.number] = refs
                if self._ready and not needed and not self._queue and self._link is not None:
                    self._created = True
                    self._link.send(call)
                    return
                self._queue.append((call, needed))
        if death is not None:
            for ref in refs:
                ref.fail(death)
            return
        for ref in needed:
            ref.when_done(self._advance)
        self._advance()

    def _advance(self) -> None:
        """Send what is queued, up to the first call that must wait for a reference."""
        while True:
            with self._lock:
                if self._link is None or not self._ready or not self._queue:
                    return
                entry = self._queue[0]
                if isinstance(entry, (Stop, System)):
                    self._link.send(entry)
                    self._queue.popleft()
                    _close_all(entry)
                    continue
                call, needed = entry
                if not all(ref.done for ref in needed):
                    return
                self._queue.popleft()
                failed = next((ref for ref in needed if ref.failed), None)
                if failed is None:
                    parcels = [*call.parcels, *(_parcel(ref) for ref in needed)]
                    self._created = True
                    self._link.send(call._replace(parcels=parcels))
                    continue
                refs = self._pending.pop(call.number)
            assert isinstance(refs, tuple)
            self._skip(call, refs, failed)

    def _skip(self, call: Call, refs: tuple[ObjectRef, ...], failed: ObjectRef) -> None:
        """Let a call end as the reference it depends on did, without running it."""
        if call.number == _CREATION:
            self._fail_creation(failed)
        for ref in refs:
            ref.follow(failed)

    def submit(self, message: System, call: SystemCall) -> None:
        """Send a function of this project's own; it waits behind the constructor only."""
        with self._lock:
            death = self.death
            if death is None:
                self._pending[message.number] = call
                if self._created and self._link is not None:
                    self._link.send(message)
                else:
                    fds = [os.dup(fd) for fd in message.fds]
                    self._queue.append(message._replace(fds=fds))
        if death is not None:
            call.fail(death)

    def end_after_calls(self) -> None:
        """Have the actor end once it has served what is queued: nobody holds it any more."""
        with self._lock:
            self.reason = self.reason or obituary.UNUSED
            self._queue.append(Stop())
        self._advance()

    # --- waiting for replies: from any thread

    def attend(self) -> Callable[[], None] | None:
        """Let the calling thread read the replies; returns how to, None if there is no process."""
        link = self._link
        if link is None or self.death is not None:
            return None
        link.attend()
        return link.pump

    def leave(self) -> None:
        """End what `attend` began."""
        if self._link is not None:
            self._link.leave()

    # --- birth

    def start(self, gpu_ids: tuple[int, ...]) -> None:
        """Ask a zygote for the process."""
        self.gpu_ids = gpu_ids
        self._num_spawns += 1
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        out, out_end = os.pipe2(os.O_CLOEXEC)
        err, err_end = os.pipe2(os.O_CLOEXEC)
        session = self.session
        echo = session.log_to_driver
        self._logs = (LogStream(out, echo=echo), LogStream(err, echo=echo))
        self._link = Link(
            ours, session.board, self.line, session.supervisor, self._on_message, self._flush
        )
        try:
            session.zygotes.spawn(
                self._spawn_message((theirs.fileno(), out_end, err_end)),
                needs_torch=session.needs_torch(self.options),
            )
        finally:
            theirs.close()
            os.close(out_end)
            os.close(err_end)

    def _spawn_message(self, fds: tuple[int, ...]) -> Spawn:
        environment, public_ids = self.session.environment(self.options, self.gpu_ids)
        own_threads = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}.isdisjoint(self.options.env_vars)
        return Spawn(
            actor_id=self.actor_id,
            class_name=self.class_name,
            line=self.line,
            environment=environment,
            num_threads=self.options.num_threads if own_threads else None,
            folder=os.getcwd(),  # noqa: PTH109  a string is what is sent
            path=tuple(absolute_path()),
            gpu_ids=public_ids,
            fresh=self.options.is_fresh,
            fds=fds,
        )

    def spawned(self, pid: int, pidfd: int) -> None:
        """Start talking to the process. On the supervising thread, as all below."""
        supervisor = self.session.supervisor
        with self._lock:
            self._pidfd = pidfd
            supervisor.watch(pidfd, self._on_death)
            for log in self._logs:
                log.prefix = f"({self.class_name} pid={pid}) ".encode()
                supervisor.watch(log.fd, lambda _events, log=log: self._on_output(log))  # type: ignore[misc]
            self.pid = pid
            self._ready = True
        if self.death is not None:
            self.kill(self.reason)
        self._advance()
        self.session.ring()

    def spawn_failed(self, reason: str) -> None:
        """End an actor that never lived."""
        self.die(ActorDiedError(f"actor {self.label} could not be started: {reason}"))
        self._bury()

    def spawn_lost(self) -> None:
        """Start again: the zygote died before it answered."""
        if self._num_spawns >= _MOST_SPAWNS or self.death is not None:
            self.spawn_failed(f"the process that starts actors died {self._num_spawns} times")
            return
        with self._lock:
            self._close()
            self._link = None
        self.start(self.gpu_ids)

    # --- events

    def _on_message(self, message: Reply | SystemReply) -> None:
        # Without the lock: dict.pop is atomic, and only one thread gets the entry.
        entry = self._pending.pop(message.number, None)
        if isinstance(message, SystemReply):
            if isinstance(entry, SystemCall):
                entry.finish(failed=message.failed, data=message.data)
            return
        parcels = message.parcels
        if message.number == _CREATION and parcels and parcels[0].is_error:
            failed = ObjectRef("", self)
            failed.complete(parcels[0])
            self._fail_creation(failed)
            return
        assert entry is None or isinstance(entry, tuple)
        failed_call = len(parcels) == 1 and parcels[0].is_error
        for index, ref in enumerate(entry or ()):
            ref.complete(parcels[0 if failed_call else index])

    def _fail_creation(self, failed: ObjectRef) -> None:
        try:
            failed.value()
        except BaseException as error:  # noqa: BLE001  whatever the constructor raised
            self.die(obituary.of_constructor(self.label, error))
        self.session.supervisor.call_soon(lambda: self.kill(""))

    def _flush(self) -> None:
        with self._lock:
            if self._link is not None:
                self._link.flush()

    def _on_output(self, log: LogStream) -> None:
        if not log.read():
            self.session.supervisor.forget(log.fd)

    def _on_death(self, _events: int) -> None:
        """The process has ended: wait a moment for its exit status."""
        self.session.supervisor.forget(self._pidfd)
        if self._status is not None or self.session.zygotes.has_lost(self.actor_id):
            self._end()
        else:
            self.session.supervisor.call_later(_STATUS_S, self._end)

    def exited(self, status: int) -> None:
        """Take note of the exit status."""
        self._status = status
        self._end()

    def _end(self) -> None:
        if self.gone:
            return
        assert self._link is not None
        self._link.drain()  # the replies it sent before it died count
        for log in self._logs:
            self.session.supervisor.forget(log.fd)
            log.finish()
        self.die(
            obituary.of_process(
                self.label, self.pid, self._status, self.reason, self._logs[1].tail()
            )
        )
        self._bury()

    def die(self, death: ActorDiedError) -> None:
        """Fail whatever is pending; the first reason stays."""
        with self._lock:
            if self.death is not None:
                return
            self.death = death
            pending = list(self._pending.values())
            self._pending.clear()
            for queued in self._queue:
                _close_all(queued)
            self._queue.clear()
        for entry in pending:
            if isinstance(entry, SystemCall):
                entry.fail(death)
            else:
                for ref in entry:
                    ref.fail(death)
        self.session.has_died(self, death)

    def _bury(self) -> None:
        """Let go of everything the process had."""
        if self.gone:
            return
        self.gone = True
        with self._lock:
            self._close()
        self.session.buried(self)

    # --- end

    def stop_at_once(self, word: int) -> None:
        """Have the actor end without serving its queue."""
        with self._lock:
            if self._link is not None:
                self._link.stop_at_once(word)

    def kill(self, reason: str) -> None:
        """Kill the process, and what it started."""
        with self._lock:
            self.reason = self.reason or reason
            if self.gone or self._pidfd < 0:
                return
            # The zygote kills the group when it sees the death; without one it is done here, while
            # the process exists and its group's number is certain.
            if self.session.zygotes.has_lost(self.actor_id):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def bury_unborn(self) -> None:
        """Note the end of an actor that never had a process."""
        self.gone = True

    def _close(self) -> None:
        supervisor = self.session.supervisor
        if self._link is not None:
            self._link.close()
        for log in self._logs:
            if log.fd >= 0:
                supervisor.forget(log.fd)
            log.close()
        if self._pidfd >= 0:
            supervisor.forget(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def close_descriptors(self) -> None:
        """Close the descriptors only; in a forked child."""
        if self._link is not None:
            self._link.close_descriptors()
        for log in self._logs:
            log.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _close_all(queued: object) -> None:
    """Close the descriptors of a queued message: duplicates of the submitter's."""
    if isinstance(queued, System):
        for fd in queued.fds:
            os.close(fd)


def _parcel(ref: ObjectRef) -> Parcel:
    assert ref.parcel is not None
    return ref.parcel
