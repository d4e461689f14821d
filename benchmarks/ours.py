"""Our side of each case: a compiled graph, used as a user would."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import runtime
from benchmarks.rounds import Side, echoing
from compiled_dag import InputNode

if TYPE_CHECKING:
    from collections.abc import Iterator


class Echo:
    """Do what the floor's processes do."""

    def echo(self, value: object) -> object:
        """Return `value`."""
        return value


@contextmanager
def session() -> Iterator[None]:
    """Start the runtime and shut it down again, so that no case inherits another's processes."""
    runtime.init()
    try:
        yield
    finally:
        runtime.shutdown()


@contextmanager
def chain(length: int) -> Iterator[Side]:
    """Compile `length` echoing actors in a row; a trip sends an int through all of them."""
    with session():
        remote = runtime.remote(Echo)
        actors = [remote.remote() for _ in range(length)]
        with InputNode() as node:
            dag: Any = node
            for actor in actors:
                dag = actor.echo.bind(dag)
        compiled = dag.experimental_compile()
        try:
            execute = compiled.execute
            yield echoing("ours", lambda: execute(1).get())
        finally:
            compiled.teardown()
