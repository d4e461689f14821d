"""The processes that belong to one graph: actors of class nodes, and workers for functions.

Until everything that can be checked was checked there is only a `NewActor` for each, which the
passes take for an actor; its number is negative. Then `hire` makes them, and puts the real ones in
their places. Teardown ends them: after what they were asked for, by force if that takes too long.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.arrival import await_process
from compiled_dag.class_node import ClassNode
from compiled_dag.containers import replaced
from compiled_dag.errors import GraphError
from compiled_dag.gpus import gpus_of
from compiled_dag.host import with_stack
from compiled_dag.node import DAGNode
from compiled_dag.passes.workers import assign_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compiled_dag.bindable import Remote, RemoteFunction
    from compiled_dag.capture import Captured
    from compiled_dag.errors import ActorDiedError
    from compiled_dag.host import Actor, ActorContext, ActorId, Host
    from compiled_dag.program import Program

_STACKS_S: Final = 0.3
"""How long the stack of an actor that is late is waited for."""
_ROLLBACK_S: Final = 0.3
"""How long a compile that failed waits for its processes; then they are killed."""


class NewActor:
    """An actor that compile will make: `compiled_dag.host.Actor` until then."""

    physical_gpus: tuple[str, ...] = ()
    """Nobody knows them yet."""

    def __init__(
        self,
        actor_id: ActorId,
        label: str,
        host: Host,
        num_gpus: float,
        made_by: ClassNode | RemoteFunction,
    ) -> None:
        """Note what is to be made.

        Args:
            actor_id: A number that no actor has.
            label: What messages call it.
            host: Its session.
            num_gpus: Logical GPUs it will hold.
            made_by: The class node whose actor it will be, or a function it will run.
        """
        self.actor_id = actor_id
        self.label = label
        self.host = host
        self.num_gpus = num_gpus
        self.made_by = made_by

    @property
    def remote(self) -> Remote:
        """What is run in its process."""
        return self.made_by._class if isinstance(self.made_by, ClassNode) else self.made_by


def place_functions(captured: Captured, most: int | None) -> Captured:
    """Give each call of a function a worker that is to be made.

    Args:
        captured: The graph.
        most: Workers in all; None: as many as there is room for.
    """
    functions = captured.pooled
    room = max((function.room() for function in functions.values()), default=1)
    graph, pool_of = assign_workers(captured.graph, captured.pools, most or room)
    new = tuple(
        NewActor(
            worker,
            functions[pool].worker_name,
            captured.host,
            functions[pool].num_gpus,
            functions[pool],
        )
        for worker, pool in pool_of.items()
    )
    if any(node.hint for node in graph.nodes):
        graph = dataclasses.replace(graph, gpus=(*graph.gpus, *map(gpus_of, new)))
    return dataclasses.replace(
        captured,
        graph=graph,
        actors=(*captured.actors, *new),
        new_actors=(*captured.new_actors, *new),
    )


class Owned:
    """What was made for one graph."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._actors: list[Actor] = []

    def hire(
        self, captured: Captured, program: Program, timeout_s: float
    ) -> tuple[Captured, Program]:
        """Make what is to be made and wait for it; returns both with the real ones in place.

        Raises:
            ActorDiedError: A constructor failed, or a process died.
            GraphError: One is not up in time.
        """
        if not captured.new_actors:
            return captured, program
        deadline = time.monotonic() + timeout_s
        try:
            made, handles = self._make(captured.new_actors)
            for actor in self._actors:
                self._await(actor, deadline, timeout_s)
        except BaseException:
            self.close(time.monotonic() + _ROLLBACK_S)
            raise
        constants = tuple(
            handles[id(value)] if isinstance(value, ClassNode) else value
            for value in captured.constants
        )
        actors = tuple(made.get(actor.actor_id, actor) for actor in captured.actors)
        graph = captured.graph.with_actors(
            {actor_id: (actor.actor_id, actor.label) for actor_id, actor in made.items()}
        )
        participants = ("driver", *(actor.label for actor in actors))
        return (
            dataclasses.replace(captured, graph=graph, actors=actors, constants=constants),
            dataclasses.replace(program, participants=participants),
        )

    def _make(self, new_actors: Sequence[NewActor]) -> tuple[dict[ActorId, Actor], dict[int, Any]]:
        """Start all; returns them by the numbers they had, and the handles by class node."""
        made: dict[ActorId, Actor] = {}
        handles: dict[int, Any] = {}
        for new in new_actors:
            if isinstance(new.made_by, ClassNode):
                handle = handles[id(new.made_by)] = _construct(new.made_by, handles)
                actor = new.made_by._class.bound(handle)
            else:
                actor = new.made_by.start_worker()
            made[new.actor_id] = actor
            self._actors.append(actor)
        return made, handles

    def _await(self, actor: Actor, deadline: float, timeout_s: float) -> None:
        await_process(self._host, actor, deadline, timeout_s)
        try:
            self._host.submit(actor.actor_id, confirm, b"").result(deadline)
        except TimeoutError as error:
            until = time.monotonic() + _STACKS_S
            doing = self._host.activities([actor.actor_id], until, stacks=True)[actor.actor_id]
            msg = (
                f"{actor.label} was not up within compile_timeout={timeout_s} s: its constructor "
                "has not ended"
            )
            raise GraphError(with_stack(msg, doing)) from error

    def close(self, deadline: float) -> None:
        """End them: after what they were asked for, or at once when it is `deadline`. Idempotent.

        What an interrupt (Ctrl-C) breaks off the next call finishes.
        """
        alive = self._living()
        try:
            if alive and time.monotonic() < deadline:
                self._end(alive, deadline)
        finally:
            for actor in self._living():
                self._host.kill(actor.actor_id)
        self._actors.clear()

    def _end(self, actors: Sequence[Actor], deadline: float) -> None:
        """Have actors end after what they were asked for, and wait for it."""
        host = self._host
        dead: set[ActorId] = set()

        def note(actor_id: ActorId, _error: ActorDiedError) -> None:
            dead.add(actor_id)
            host.board.ring(host.process)

        stop = host.watch(note)
        try:
            for actor in actors:
                host.end(actor.actor_id)
            # The watch is on: a death is seen here, or told.
            waiting = {actor.actor_id for actor in self._living()}
            host.waiter.until(lambda: waiting <= dead, _nothing, deadline)
        finally:
            stop()

    def _living(self) -> list[Actor]:
        return [actor for actor in self._actors if self._host.death(actor.actor_id) is None]


def _construct(node: ClassNode, handles: Mapping[int, Any]) -> Any:
    """Make the actor of a class node; class nodes among its arguments are made already."""

    def handle_of(other: DAGNode) -> Any:
        return handles[id(other)]

    start: Callable[..., Any] = node._class.remote
    return start(
        *(replaced(value, DAGNode, handle_of) for value in node._bound_args),
        **{name: replaced(v, DAGNode, handle_of) for name, v in node._bound_kwargs.items()},
    )


def confirm(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """Answer, when the constructor has ended (a `SystemCall`)."""
    return b""


def _nothing() -> None:
    """Guard nothing."""
