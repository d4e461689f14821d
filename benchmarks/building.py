"""Write the works that time how graphs come up and go down: by nodes, on so many actors."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.graphs import up
from benchmarks.rounds import checked, timed
from benchmarks.works import actor_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.systems import System
    from benchmarks.works import Block, Work


class Cycle(NamedTuple):
    """How long the parts of one graph's life took, in nanoseconds."""

    compile: int
    first: int
    """Its first execution."""
    teardown: int


def row_of(actors: Sequence[Any], nodes: int, system: System) -> Any:
    """Draw a chain of so many nodes, on one actor after the other."""
    with system.nodes().InputNode() as node:
        dag = node
        for number in range(nodes):
            dag = actors[number % len(actors)].echo.bind(dag)
    return dag


def cycle(actors: Sequence[Any], nodes: int, system: System) -> Cycle:
    """Compile such a graph, execute it once, tear it down."""
    get, dag = system.load().get, row_of(actors, nodes, system)
    begin = perf_counter_ns()
    compiled = dag.experimental_compile()
    made = perf_counter_ns()
    answer = get(compiled.execute(1))
    answered = perf_counter_ns()
    compiled.teardown()
    ended = perf_counter_ns()
    if answer != 1:
        raise RuntimeError(f"{system.name} was sent 1 and answered {answer!r}")
    return Cycle(made - begin, answered - made, ended - answered)


def _part(part: str) -> Callable[..., Work]:
    def named(nodes: str, actors: str) -> Work:
        @contextmanager
        def work(system: System) -> Iterator[Block]:
            started = [actor_of(system) for _ in range(int(actors))]
            cycle(started, int(nodes), system)

            def block(trips: int) -> list[int]:
                lives = [cycle(started, int(nodes), system) for _ in range(trips)]
                return [getattr(life, part) for life in lives]

            yield block

        return work

    return named


def row(nodes: str, actors: str) -> Work:
    """Execute a chain of so many nodes, on one actor after the other."""

    @contextmanager
    def work(system: System) -> Iterator[Block]:
        started = [actor_of(system) for _ in range(int(actors))]
        with up(system, lambda _: row_of(started, int(nodes), system)) as compiled:
            yield _executing(compiled, system)

    return work


def resident(graphs: str) -> Work:
    """Execute one of several graphs of one actor; the others are idle."""

    @contextmanager
    def work(system: System) -> Iterator[Block]:
        actor = actor_of(system)
        with ExitStack() as stack:
            compiled = [
                stack.enter_context(up(system, lambda _: row_of([actor], 1, system)))
                for _ in range(int(graphs))
            ]
            yield _executing(compiled[0], system)

    return work


def _executing(compiled: Any, system: System) -> Block:
    get, execute = system.load().get, compiled.execute

    def trip() -> object:
        return get(execute(1))

    checked(system.name, trip)
    return timed(trip)


WORKS: dict[str, Callable[..., Work]] = {
    "compile": _part("compile"),
    "first": _part("first"),
    "teardown": _part("teardown"),
    "row": row,
    "resident": resident,
}
