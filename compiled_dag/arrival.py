"""Waiting for an actor's process when a graph is compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiled_dag.errors import GraphError

if TYPE_CHECKING:
    from compiled_dag.host import Actor, Host


def await_process(host: Host, actor: Actor, deadline: float, timeout_s: float) -> int:
    """Wait until an actor has a process; returns its line on the board.

    Args:
        host: The session.
        actor: One of its actors.
        deadline: `time.monotonic` value.
        timeout_s: The ``compile_timeout`` that it comes from.

    Raises:
        GraphError: It has none by then; says what it waits for.
        ActorDiedError: It is dead.
    """
    try:
        return host.line(actor.actor_id, deadline)
    except TimeoutError as error:
        msg = f"actor {actor.label} was not up within compile_timeout={timeout_s} s: {error}"
        raise GraphError(msg) from error
