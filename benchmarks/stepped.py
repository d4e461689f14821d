"""Count what an execution runs: driver and actor on one thread, which never waits.

    python -m benchmarks.stepped 4 1000        (4 idle programs beside it, 1000 executions)

The real graph, driver, channels, resident programs and main loop, over a host that has no process:
what is submitted to its one actor runs at once, and the actor's loop returns where it would sleep.
So an execution is the same work every time, and instructions can be counted (`instructions`). The
clock counts its readings: by it executions follow one another as fast as real ones do.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import os
import sys
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from compiled_dag import InputNode
from compiled_dag.class_node import bind_method
from compiled_dag.host import ActorId
from compiled_dag.loop import Loop
from compiled_dag.shm.board import Board, Doorbell
from compiled_dag.shm.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from compiled_dag.host import Pending, SystemCall


_READING_NS = 1000


class _IdleError(Exception):
    """The loop has nothing to do."""


class _NeverWaits(Waiter):
    """The waiting policy of a loop that hands the thread back instead."""

    __slots__ = ()

    def until(self, *_: Any, **__: Any) -> bool:
        raise _IdleError

    def word(self, *_: Any, **__: Any) -> bool:
        raise _IdleError

    def either(self, *_: Any, **__: Any) -> bool:
        raise _IdleError

    def any_of(self, *_: Any, **__: Any) -> bool:
        raise _IdleError


class _Done:
    def __init__(self, value: bytes) -> None:
        self._value = value

    def result(self, deadline: float | None) -> bytes:
        del deadline
        return self._value


class SteppedActor:
    """The one actor: its own handle and its own context."""

    __opaque_to_graphs__ = True
    actor_id = ActorId(1)
    label = "Echo(1)"
    process = 1
    num_gpus = 0.0
    physical_gpus: tuple[str, ...] = ()

    def __init__(self, host: SteppedHost) -> None:
        self.host = host
        self.instance = self
        self.board = host.board
        self.waiter = _NeverWaits(Doorbell(host.board, self.process))
        self.resources: dict[str, Any] = {}
        self.loop = Loop(host.board, self.process, self.waiter, lambda: False)

    def identity(self) -> tuple[str, str]:
        return "", "1"

    def step(self) -> None:
        """Run what there is to run."""
        with contextlib.suppress(_IdleError):
            self.loop.run()

    def echo(self, value: object) -> object:
        """Return `value`."""
        return value


class _Method:
    num_returns = 1
    class_name = "Echo"
    cuda_graph = False
    name = "echo"

    def __init__(self, actor: SteppedActor) -> None:
        self.actor = self.handle = actor
        self.declared: dict[str, Any] = {}
        self.function = SteppedActor.echo
        self.signature = inspect.signature(actor.echo)


class SteppedHost:
    """A session without processes; see `compiled_dag.host.Host`."""

    closed = False
    process = 0

    def __init__(self) -> None:
        segment = Board.create()
        self.board = Board(segment.fd)
        segment.close()
        self.waiter = Waiter(Doorbell(self.board, self.process))
        self.actor = SteppedActor(self)

    def compile(self) -> Any:
        """Bring up a graph of one call."""
        with InputNode() as node:
            method: Any = _Method(self.actor)
            dag: Any = bind_method(method, (node,), {})
        return dag.experimental_compile()

    def bound_actor(self, _handle: Any) -> SteppedActor:
        return self.actor

    def line(self, _actor_id: ActorId, _deadline: float) -> int:
        return self.actor.process

    def submit(
        self, _actor_id: ActorId, function: SystemCall, payload: bytes, fds: Sequence[int] = ()
    ) -> Pending:
        actor: Any = self.actor
        return _Done(function(actor, payload, [os.dup(fd) for fd in fds]))

    def watch(self, _callback: Any) -> Callable[[], None]:
        return _nothing

    def at_shutdown(self, _callback: Any) -> Callable[[], None]:
        return _nothing

    def watch_waits(self, _source: Any) -> Callable[[], None]:
        return _nothing

    def claim(self, _graph_id: int, _actors: Any) -> Callable[[], None]:
        return _nothing

    def at_death(self, *_: Any) -> Callable[[], None]:
        return _nothing

    def call_soon(self, callback: Callable[[], object]) -> None:
        callback()

    def death(self, _actor_id: ActorId) -> None:
        return None

    def check_owner(self) -> None:
        """Nobody else has it."""

    @contextlib.contextmanager
    def lending(self) -> Iterator[None]:
        yield


def _nothing() -> None:
    pass


@contextlib.contextmanager
def executing(idle: int) -> Iterator[Callable[[], object]]:
    """Yield what runs one execution of a graph whose actor has `idle` more programs."""
    host = SteppedHost()
    graphs = [host.compile() for _ in range(1 + idle)]
    execute, step = graphs[0].execute, host.actor.step

    def run() -> object:
        ref = execute(1)
        step()
        return ref.get()

    try:
        if run() != 1:
            raise RuntimeError("the graph did not echo its input")
        yield run
    finally:
        for graph in graphs:
            graph.teardown()


def main(arguments: list[str]) -> None:
    """Run so many executions."""
    idle, executions = map(int, arguments)
    time.monotonic_ns = count(0, _READING_NS).__next__
    time.monotonic = count(0.0, _READING_NS / 1e9).__next__
    with executing(idle) as run:
        gc.disable()
        for _ in range(executions):
            run()


if __name__ == "__main__":
    main(sys.argv[1:])
