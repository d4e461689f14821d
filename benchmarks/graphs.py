"""Write the works of compiled graphs, for every system that has Ray's names.

Every trip answers 1, which is checked once before anything is timed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.rounds import WARM_TRIPS, checked, timed
from benchmarks.values import make
from benchmarks.works import actor_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.systems import System
    from benchmarks.works import Block, Work

Draw: TypeAlias = "Callable[[System], Any]"
_HEADROOM = 65536
"""Bytes of a message beside its payload, where a buffer's size must be said beforehand."""


@contextmanager
def up(system: System, draw: Draw, **options: Any) -> Iterator[Any]:
    """Draw and compile a graph; tear it down at the end."""
    compiled = draw(system).experimental_compile(**options)
    try:
        yield compiled
    finally:
        compiled.teardown()


def _work(
    draw: Draw, value: Callable[[], Any], is_right: Callable[[Any], bool], nbytes: int = 0
) -> Work:
    """Make a work of one execution at a time, of values of up to `nbytes`."""

    @contextmanager
    def work(system: System) -> Iterator[Block]:
        given, get = value(), system.load().get
        with up(system, draw, **room(system, nbytes)) as compiled:
            execute = compiled.execute

            def trip() -> object:
                return 1 if is_right(get(execute(given))) else 0

            checked(system.name, trip)
            yield timed(trip)

    return work


def room(system: System, nbytes: int) -> dict[str, int]:
    """Return the compile options of a system that has to be told how large values are."""
    return {"_buffer_size_bytes": nbytes + _HEADROOM} if system.name == "ray" and nbytes else {}


def _one() -> int:
    return 1


# --- shapes, with an int --------------------------------------------------------------------------


def drawn_chain(length: int) -> Draw:
    """Return how to draw a chain of actors."""

    def draw(system: System) -> Any:
        with system.nodes().InputNode() as node:
            dag = node
            for actor in [actor_of(system) for _ in range(length)]:
                dag = actor.echo.bind(dag)
        return dag

    return draw


def chain(length: str) -> Work:
    """Send an int through actors in a row."""
    draw = drawn_chain(int(length))

    @contextmanager
    def work(system: System) -> Iterator[Block]:
        get = system.load().get
        with up(system, draw) as compiled:
            execute = compiled.execute

            def trip() -> object:
                return get(execute(1))

            checked(system.name, trip)
            yield timed(trip)

    return work


def fan_out(width: str) -> Work:
    """Send an int to actors side by side; get all their answers."""

    def draw(system: System) -> Any:
        nodes = system.nodes()
        with nodes.InputNode() as node:
            return nodes.MultiOutputNode(
                [actor_of(system).echo.bind(node) for _ in range(int(width))]
            )

    expected = [1] * int(width)
    return _work(draw, _one, lambda answers: answers == expected)


def fan_in(width: str) -> Work:
    """Send an int to actors side by side, and what they make of it to one more."""

    def draw(system: System) -> Any:
        with system.nodes().InputNode() as node:
            parts = [actor_of(system).echo.bind(node) for _ in range(int(width))]
            return actor_of(system).join.bind(*parts)

    return _work(draw, _one, lambda answer: answer == 1)


def diamond() -> Work:
    """Send an int through one actor, then two side by side, then one that joins them."""

    def draw(system: System) -> Any:
        with system.nodes().InputNode() as node:
            top = actor_of(system).echo.bind(node)
            sides = [actor_of(system).echo.bind(top) for _ in range(2)]
            return actor_of(system).join.bind(*sides)

    return _work(draw, _one, lambda answer: answer == 1)


# --- many at once ---------------------------------------------------------------------------------


def pipelined(length: str, depth: str) -> Work:
    """Keep `depth` executions in flight; a block's one time is that of an execution."""
    most = int(depth)

    @contextmanager
    def work(system: System) -> Iterator[Block]:
        get = system.load().get
        draw = drawn_chain(int(length))
        with up(system, draw, _max_inflight_executions=most) as compiled:
            execute = compiled.execute
            checked(system.name, lambda: get(execute(1)))

            def block(trips: int) -> list[int]:
                for _ in range(WARM_TRIPS):
                    get(execute(1))
                sent: deque[Any] = deque()
                begin = perf_counter_ns()
                for _ in range(trips):
                    if len(sent) == most:
                        get(sent.popleft())
                    sent.append(execute(1))
                while sent:
                    get(sent.popleft())
                return [(perf_counter_ns() - begin) // trips]

            yield block

    return work


def awaited(length: str) -> Work:
    """Await one execution after the other in an event loop."""

    @contextmanager
    def work(system: System) -> Iterator[Block]:
        draw = drawn_chain(int(length))
        loop = asyncio.new_event_loop()
        # The peer's reader of results is a task of the loop that is set when it compiles; a loop
        # that never runs is what it takes otherwise, and nothing is ever answered.
        asyncio.set_event_loop(loop)
        try:
            with up(system, draw, enable_asyncio=True) as compiled:

                async def block(trips: int) -> list[int]:
                    times = []
                    for _ in range(WARM_TRIPS):
                        await (await compiled.execute_async(1))
                    for _ in range(trips):
                        begin = perf_counter_ns()
                        answer = await (await compiled.execute_async(1))
                        times.append(perf_counter_ns() - begin)
                        if answer != 1:
                            raise RuntimeError(f"{system.name} was sent 1, awaited {answer!r}")
                    return times

                yield lambda trips: loop.run_until_complete(block(trips))
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    return work


# --- payloads -------------------------------------------------------------------------------------


def payload(kind: str, way: str, nbytes: str) -> Work:
    """Send a payload in, out, in and out, or from one actor to another."""
    size = int(nbytes)

    def holder(system: System) -> Any:
        actor = actor_of(system)
        system.load().get(actor.hold.remote(kind, size))
        return actor

    def draw(system: System) -> Any:
        with system.nodes().InputNode() as node:
            if way == "in":
                return actor_of(system).some.bind(node)
            if way == "echo":
                return actor_of(system).echo.bind(node)
            held = holder(system).give.bind(node)
            return held if way == "out" else actor_of(system).some.bind(held)

    value = _one if way in {"out", "between"} else lambda: make(kind, size)
    whole = way in {"out", "echo"}
    return _work(draw, value, lambda got: len(got) == size if whole else got == 1, size)


def readers(kind: str, count: str, nbytes: str) -> Work:
    """Send one payload to several actors."""
    size = int(nbytes)

    def draw(system: System) -> Any:
        nodes = system.nodes()
        with nodes.InputNode() as node:
            return nodes.MultiOutputNode(
                [actor_of(system).some.bind(node) for _ in range(int(count))]
            )

    expected = [1] * int(count)
    return _work(draw, lambda: make(kind, size), lambda answers: answers == expected, size)


def nested(nbytes: str) -> Work:
    """Send dictionaries of arrays in and out."""

    def draw(system: System) -> Any:
        with system.nodes().InputNode() as node:
            return actor_of(system).echo.bind(node)

    size = int(nbytes)
    return _work(draw, lambda: make("nested", size), lambda answer: len(answer) == 3, size)


WORKS: dict[str, Callable[..., Work]] = {
    "chain": chain,
    "fan-out": fan_out,
    "fan-in": fan_in,
    "diamond": diamond,
    "pipelined": pipelined,
    "awaited": awaited,
    "payload": payload,
    "readers": readers,
    "nested": nested,
}
