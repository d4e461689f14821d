"""Actors on threads of this process: the whole compiled path without starting a process.

`ThreadHost` implements `compiled_dag.host` with the real board, channels, loop and programs; only
processes and sockets are missing. Graph semantics are tested here first, in milliseconds.
"""

from __future__ import annotations

import inspect
import itertools
import os
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

from compiled_dag.class_node import bind_method
from compiled_dag.errors import ActorDiedError
from compiled_dag.host import Activity, ActorId, SystemCall, Wait
from compiled_dag.loop import Loop
from compiled_dag.shm.board import Board, Doorbell
from compiled_dag.shm.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

PATIENCE_S = 60
"""Bounds waits for actors that end at once unless something hangs."""


class FakePending:
    __opaque_to_graphs__ = True

    def __init__(self) -> None:
        self._done = threading.Event()
        self._value: bytes = b""
        self._error: BaseException | None = None

    def set(self, value: bytes = b"", error: BaseException | None = None) -> None:
        self._value, self._error = value, error
        self._done.set()

    def result(self, deadline: float | None = None) -> Any:
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not self._done.wait(timeout):
            raise TimeoutError("no reply")
        if self._error is not None:
            raise self._error
        return self._value


class FakeActor:
    """An actor on a thread; also its own context, and its own handle."""

    __opaque_to_graphs__ = True

    def __init__(
        self, host: ThreadHost, number: int, instance: Any, label: str, *, gets: bool = False
    ) -> None:
        self.gets = gets
        """Whether its methods get the references inside their arguments, as users' code would."""
        self.host = host
        self.actor_id = ActorId(number)
        self.label = label
        self.num_gpus = 0.0
        self.physical_gpus: tuple[str, ...] = ()
        self.instance = instance
        self.board = host.board
        self.process = number
        self.waiter = Waiter(Doorbell(host.board, number))
        self.resources: dict[str, Any] = {}
        self.inbox: deque[Callable[[], None]] = deque()
        self.sent = 0
        self.error: ActorDiedError | None = None
        self.call = ""
        """The ordinary call that runs."""
        self.loop = Loop(host.board, number, self.waiter, self._serve)
        self.thread = threading.Thread(target=self.loop.run, name=label, daemon=True)
        self.thread.start()

    def __reduce__(self) -> Any:
        return _fake_actor, (id(self.host), self.actor_id)

    def identity(self) -> tuple[str, str]:
        return "", str(self.actor_id)

    def post(self, work: Callable[[], None]) -> None:
        self.inbox.append(work)
        self.sent += 1
        self.board.post(self.process, self.sent)

    def _serve(self) -> bool:
        if not self.inbox:
            return False
        self.inbox.popleft()()
        return True

    def __getattr__(self, name: str) -> FakeMethod:
        if name.startswith("_"):
            raise AttributeError(name)
        getattr(type(self.instance), name)
        return FakeMethod(self, name)


def _fake_actor(host: int, number: int) -> FakeActor:
    return ThreadHost.live[host].actors[number]


class FakeMethod:
    def __init__(self, actor: FakeActor, name: str, num_returns: int = 1) -> None:
        self.actor = self.handle = actor
        self.name = name
        self.num_returns = num_returns
        self.cuda_graph = False
        self.declared: dict[str, Any] = {}
        self.class_name = type(actor.instance).__name__
        self.function = getattr(type(actor.instance), name)
        self.signature = inspect.signature(getattr(actor.instance, name))

    def options(self, num_returns: int) -> FakeMethod:
        return FakeMethod(self.actor, self.name, num_returns)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        return bound_by_caller(bind_method(self, args, kwargs))

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        pending = FakePending()
        parts = [FakePending() for _ in range(self.num_returns)] if self.num_returns > 1 else []

        def work() -> None:
            self.actor.call = f"{self.class_name}.{self.name}"
            try:
                given = [self._arrived(item) for item in args]  # first: the first error counts
                named = {key: self._arrived(item) for key, item in kwargs.items()}
                result = getattr(self.actor.instance, self.name)(*given, **named)
            except BaseException as error:
                for one in (pending, *parts):
                    one.set(error=error)
            else:
                pending.set(result)
                for number, part in enumerate(parts):
                    part.set(result[number])
            finally:
                self.actor.call = ""

        self.actor.post(work)
        return parts or pending

    def _arrived(self, item: Any) -> Any:
        if isinstance(item, FakePending):
            return item.result()
        return _gotten(item) if self.actor.gets else item


def _gotten(item: Any) -> Any:
    if isinstance(item, FakePending):
        return item.result()
    if type(item) in (list, tuple):
        return type(item)(map(_gotten, item))
    if type(item) is dict:
        return {key: _gotten(part) for key, part in item.items()}
    return item


def bound_by_caller(nodes: Any) -> Any:
    """Say that the caller's caller bound `nodes`; otherwise messages would name this file."""
    frame = sys._getframe(2)
    for node in nodes if isinstance(nodes, tuple) else (nodes,):
        for part in (node, getattr(node, "_call", node)):
            part._source = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
    return nodes


class ThreadHost:
    """A session of actors on threads."""

    closed = False

    live: ClassVar[WeakValueDictionary[int, ThreadHost]] = WeakValueDictionary()

    def __init__(self) -> None:
        self.live[id(self)] = self
        segment = Board.create()
        self.board = Board(segment.fd)
        segment.close()
        self.process = 0
        self._doorbell = Doorbell(self.board, 0)
        self._local = threading.local()
        self._numbers = itertools.count(1)
        self._watchers: dict[int, Callable[[ActorId, ActorDiedError], None]] = {}
        self._enders: dict[int, Callable[[float], object]] = {}
        self._keys = itertools.count()
        self.claims: set[int] = set()
        """Graphs that are claimed."""
        self.wait_sources: dict[int, Callable[[], Iterable[Wait]]] = {}
        self.stacks_taken: list[ActorId] = []
        self.actors: dict[int, FakeActor] = {}
        self.ended: list[int] = []

    def totals(self) -> dict[str, float]:
        return {"CPU": 4.0}

    def has_physical_gpus(self) -> bool:
        return False

    def actor(self, instance: Any, *, gets: bool = False) -> FakeActor:
        number = next(self._numbers)
        made = FakeActor(self, number, instance, f"{type(instance).__name__}({number})", gets=gets)
        self.actors[number] = made
        return made

    @property
    def waiter(self) -> Waiter:
        if not hasattr(self._local, "waiter"):
            self._local.waiter = Waiter(self._doorbell)
        return self._local.waiter

    def bound_actor(self, handle: Any) -> FakeActor:
        if not isinstance(handle, FakeActor):
            raise TypeError(f"{handle!r} is no handle of an actor")
        return handle

    def line(self, actor_id: ActorId, deadline: float) -> int:
        if self.actors[actor_id].error is not None:
            raise self.actors[actor_id].error
        return self.actors[actor_id].process

    def submit(
        self, actor_id: ActorId, function: SystemCall, payload: bytes, fds: Sequence[int] = ()
    ) -> FakePending:
        pending, actor = FakePending(), self.actors[actor_id]
        copies = [os.dup(fd) for fd in fds]

        def work() -> None:
            try:
                pending.set(function(actor, payload, copies))
            except BaseException as error:
                pending.set(error=error)

        actor.post(work)
        return pending

    def watch(self, callback: Callable[[ActorId, ActorDiedError], None]) -> Callable[[], None]:
        self._watchers[key := next(self._keys)] = callback
        return lambda: self._forget(self._watchers, key)

    def at_shutdown(self, callback: Callable[[float], object]) -> Callable[[], None]:
        self._enders[key := next(self._keys)] = callback
        return lambda: self._forget(self._enders, key)

    @staticmethod
    def _forget(callbacks: dict[int, Any], key: int) -> None:
        callbacks.pop(key, None)

    def call_soon(self, callback: Callable[[], object]) -> None:
        threading.Thread(target=callback, name="supervisor").start()

    def death(self, actor_id: ActorId) -> ActorDiedError | None:
        return self.actors[actor_id].error

    def end(self, actor_id: ActorId) -> None:
        """Stop an actor after what it was asked for, and report it dead."""
        self.ended.append(actor_id)
        actor = self.actors[actor_id]

        def stop() -> None:
            actor.loop.stop()
            self.report_death(actor_id)

        actor.post(stop)

    def activities(
        self, actor_ids: Sequence[ActorId], deadline: float, *, stacks: bool
    ) -> dict[ActorId, Activity]:
        frames = sys._current_frames()
        return {
            actor_id: Activity(
                stack=self._stack(frames, actor_id) if stacks else (),
                call=self.actors[actor_id].call,
            )
            for actor_id in actor_ids
        }

    def _stack(self, frames: Mapping[int, Any], actor_id: ActorId) -> tuple[str, ...]:
        self.stacks_taken.append(actor_id)
        summary = traceback.extract_stack(frames[self.actors[actor_id].thread.ident])
        return tuple(f'File "{f.filename}", line {f.lineno}, in {f.name}' for f in summary)

    def watch_waits(self, source: Callable[[], Iterable[Wait]]) -> Callable[[], None]:
        self.wait_sources[key := next(self._keys)] = source
        return lambda: self._forget(self.wait_sources, key)

    def kill(self, actor_id: ActorId) -> None:
        """Stop an actor between two executions and report it dead."""
        actor = self.actors[actor_id]
        actor.post(actor.loop.stop)
        actor.thread.join(PATIENCE_S)
        self.report_death(actor_id)

    def report_death(self, actor_id: ActorId) -> None:
        """Report an actor dead, in whatever method it is; its thread goes on to the end of it."""
        actor = self.actors[actor_id]
        actor.error = ActorDiedError(f"actor {actor.label} was killed", signal="SIGKILL")
        for callback in list(self._watchers.values()):
            callback(actor_id, actor.error)

    def claim(self, graph_id: int, actors: Sequence[Any]) -> Callable[[], None]:
        self.claims.add(graph_id)
        return lambda: self.claims.discard(graph_id)

    def at_death(
        self, actors: Sequence[ActorId], memory: int, function: SystemCall, payload: bytes
    ) -> Callable[[], None]:
        return lambda: None

    def check_owner(self) -> None:
        pass

    def close(self) -> None:
        for end in list(self._enders.values()):
            end(time.monotonic() + PATIENCE_S)
        for actor in self.actors.values():
            actor.post(actor.loop.stop)
        for actor in self.actors.values():
            actor.thread.join(PATIENCE_S)
            assert not actor.thread.is_alive(), f"{actor.label} did not stop"
        for actor in self.actors.values():
            for resource in actor.resources.values():
                resource.close()  # of an actor that died, as the end of its process would
            vars(actor).clear()  # nodes refer to it in cycles: memory would wait for the collector
