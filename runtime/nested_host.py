"""What graphs need of their processes, in an actor or a task that compiles one.

It is the driver's doing all the same: functions for other actors go through it, and it tells of
deaths. A thread here takes those up, as the supervising thread does in the driver. It sleeps on the
control socket, not on the doorbell, so that executions do not wake it; it lives while graphs do.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import pickle
import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.errors import GraphError
from compiled_dag.host import Activity
from compiled_dag.shm.board import ACTOR_BIT
from runtime import context
from runtime.messages import Died, WatchDeaths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from compiled_dag.errors import ActorDiedError
    from compiled_dag.host import Actor, ActorId, SystemCall, Wait
    from compiled_dag.shm.board import Board
    from compiled_dag.shm.waiter import Waiter
    from runtime.actor_method import BoundActor
    from runtime.nested import NestedSession

    DeathWatcher = Callable[[ActorId, ActorDiedError], None]


_GRACE_S: Final = 1.0
"""For graphs to end when this process does."""
_ANSWER_S: Final = 0.05
"""How much later than the driver has found it an answer may come."""


def _nothing() -> None:
    """Stop what was not begun."""


class NestedHost:
    """Implements `compiled_dag.host.Host` in a process that is not the driver."""

    closed = False
    """The process ends with the session."""

    def __init__(self, session: NestedSession, board: Board, process: int) -> None:
        """Begin without graphs.

        Args:
            session: This process's session.
            board: The session's board.
            process: This process's line on it.
        """
        self.board = board
        self.process = process
        self.calls_run_elsewhere = False
        """Whether the main thread is free while calls run: then this actor may be in its graphs."""
        self._session = session
        self._watchers: dict[int, DeathWatcher] = {}
        self._closers: dict[int, Callable[[float], object]] = {}
        self._numbers = itertools.count(1)
        self._soon: deque[Callable[[], object]] = deque()
        self._deaths: dict[ActorId, ActorDiedError] = {}
        self._starting = threading.Lock()
        self._alive = False
        """Whether the thread runs."""
        self._watching = False
        """Whether the driver tells of deaths."""
        self._wake = -1
        """An eventfd, from the first graph on: closing it could hit somebody who writes to it."""

    @property
    def waiter(self) -> Waiter:
        """The calling thread's waiting policy."""
        return self._session.waiter

    def check_owner(self) -> None:
        """Refuse use in a forked child."""
        self._session.check_owner()

    def totals(self) -> Mapping[str, float]:
        """Return the session's resources by name, free or not."""
        return self._session.resources("totals")

    def has_physical_gpus(self) -> bool:
        """Tell whether the session's GPUs stand for devices; if not they are fake."""
        found: bool = self._session.ask("has_physical_gpus")
        return found

    # --- actors

    def bound_actor(self, handle: Any) -> BoundActor:
        """Return what a graph knows of the actor behind a handle.

        Raises:
            TypeError: `handle` is no handle of an actor.
        """
        from runtime.actor import bound_actor  # noqa: PLC0415  it is above us

        return bound_actor(handle)

    def line(self, actor_id: ActorId, deadline: float) -> int:
        """Return the board line of an actor, waiting until its process exists."""
        found: int = self._session.ask("line", actor_id, deadline=deadline)
        return found

    def submit(
        self, actor_id: ActorId, function: SystemCall, payload: bytes, fds: Sequence[int] = ()
    ) -> _Relayed:
        """Have an actor run `function`, by way of the driver."""
        what = f"{function.__name__} on actor {actor_id}"
        pickled = pickle.dumps(function)
        return _Relayed(
            self._session,
            actor_id,
            what,
            self._session.asking.post("relay", actor_id, pickled, payload, fds=fds),
        )

    def death(self, actor_id: ActorId) -> ActorDiedError | None:
        """Return why an actor is dead, or None while it lives."""
        known = self._deaths.get(actor_id)
        if known is not None:
            return known
        found: ActorDiedError | None = self._session.ask("death", actor_id)
        return found

    def end(self, actor_id: ActorId) -> None:
        """Have an actor end after what it was asked for."""
        self._session.ask("end_after_calls", actor_id)

    def activities(
        self, actor_ids: Sequence[ActorId], deadline: float, *, stacks: bool
    ) -> Mapping[ActorId, Activity]:
        """Return what actors are doing, as far as the driver knows it by then."""
        ask, margin_s = self._session.ask, _ANSWER_S
        try:
            found: Mapping[ActorId, Activity] = ask(
                "activities", tuple(actor_ids), deadline, stacks, deadline=deadline + margin_s
            )
        except TimeoutError as error:
            return dict.fromkeys(actor_ids, Activity(state=str(error)))
        return found

    def watch_waits(self, _source: Callable[[], Iterable[Wait]]) -> Callable[[], None]:
        """Do nothing: the driver looks for circles, and knows the steps of its own graphs only."""
        return _nothing

    def kill(self, actor_id: ActorId) -> None:
        """End an actor's process at once."""
        self._session.kill(actor_id)

    def claim(self, graph_id: int, actors: Sequence[Actor]) -> Callable[[], None]:
        """Note that this process drives a graph; see `compiled_dag.host.Host.claim`."""
        own = [actor.label for actor in actors if actor.actor_id == context.actor_id()]
        if own and not self.calls_run_elsewhere:
            msg = (
                f"actor {own[0]} compiles a graph that it is in itself: it would wait for itself, "
                "because it runs one thing at a time. Compile the graph elsewhere, or make the "
                "actor with max_concurrency over 1"
            )
            raise GraphError(msg)
        self._session.ask("claim", graph_id, [actor.actor_id for actor in actors])
        return lambda: self.tell("drop_claim", graph_id)

    def at_death(
        self, actors: Sequence[ActorId], memory: int, function: SystemCall, payload: bytes
    ) -> Callable[[], None]:
        """Leave word with the driver; see `compiled_dag.host.Host.at_death`."""
        number = next(self._numbers)
        pickled = pickle.dumps(function)
        self._session.ask("bequeath", number, list(actors), pickled, payload, fds=(memory,))
        return lambda: self.tell("take_back", number)

    def tell(self, what: str, *args: Any) -> None:
        """Have the driver do something whose answer nobody needs."""
        with contextlib.suppress(OSError, RuntimeError):  # the session ends, and all this with it
            asking = self._session.asking
            asking.forget_answer(asking.post(what, *args))

    # --- deaths, and what must not run at an arbitrary moment

    def watch(self, callback: DeathWatcher) -> Callable[[], None]:
        """Call `callback` from the thread here on every death; returns how to stop that."""
        number = next(self._numbers)
        with self._starting:
            self._watchers[number] = callback
            if self._wake < 0:
                self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            if not self._alive:
                self._alive = True
                threading.Thread(target=self._run, name="graphs", daemon=True).start()
            if not self._watching:
                self._watching = True
                self._session.send(WatchDeaths())
        return lambda: self._unwatch(number)

    def _unwatch(self, number: int) -> None:
        self._watchers.pop(number, None)
        self._ring()

    def at_shutdown(self, callback: Callable[[float], object]) -> Callable[[], None]:
        """Call `callback` when this process ends in order; returns how to stop that."""
        number = next(self._numbers)
        self._closers[number] = callback

        def stop() -> None:
            self._closers.pop(number, None)

        return stop

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call `callback` on the thread here; safe in finalizers, takes no lock."""
        self._soon.append(callback)
        self._ring()

    def _ring(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def has_died(self, message: Died) -> None:
        """Take note of a death that the driver tells of; whoever reads the socket calls it."""
        error = pickle.loads(message.error)
        self._deaths[message.actor_id] = error
        self._soon.append(lambda: self._report(message.actor_id, error))
        self._ring()

    def _report(self, actor_id: ActorId, error: ActorDiedError) -> None:
        for callback in list(self._watchers.values()):
            callback(actor_id, error)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._session.fileno(), select.POLLIN)
        while True:
            poll.poll()
            with contextlib.suppress(BlockingIOError):  # it was the session that woke it
                os.eventfd_read(self._wake)
            if not self._session.take():
                return  # the driver has gone, and the process goes too
            while self._soon:
                self._soon.popleft()()
            with self._starting:
                if not self._watchers and not self._soon:
                    self._alive = False
                    return

    def close(self) -> None:
        """Take down what is up: this process ends."""
        deadline = time.monotonic() + _GRACE_S
        for callback in list(self._closers.values()):
            callback(deadline)


class _Relayed:
    """The `Pending` of `NestedHost.submit`."""

    def __init__(self, session: NestedSession, actor_id: ActorId, what: str, number: int) -> None:
        self._session = session
        self._actor_id = actor_id
        self._what = what
        self._number = number
        self._answer: bytes | None = None
        self._error: BaseException | None = None

    def result(self, deadline: float | None) -> bytes:
        """Wait for the reply, as `compiled_dag.host.Pending` says."""
        if self._answer is None and self._error is None:
            try:
                self._session.note_number(ACTOR_BIT | self._actor_id)
                try:
                    self._answer = self._session.asking.answer(self._number, deadline)
                finally:
                    self._session.note_number(0)
            except TimeoutError:
                raise TimeoutError(f"{self._what} did not answer in time") from None
            except BaseException as error:
                if not isinstance(error, KeyboardInterrupt):
                    self._error = error
                raise
        if self._error is not None:
            raise copy.copy(self._error)
        assert self._answer is not None
        return self._answer

    def __del__(self) -> None:
        if self._answer is None and self._error is None:
            self._session.asking.forget_answer(self._number)
