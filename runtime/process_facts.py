"""What a process is told about itself when its code asks (`runtime.runtime_context`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compiled_dag.shm.board import CANCELLED
from runtime.pool import PoolWorker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """What stays as it is as long as the process lives."""

    is_actor: bool
    """Or a worker, which runs tasks; or the driver."""
    namespace: str
    runtime_env: Mapping[str, Any]
    name: str | None = None
    num_restarts: int = 0


def facts_of(session: Session, actor_id: int | None) -> ProcessFacts:
    """Return the facts of an actor's or worker's process; None is the driver."""
    placement, namespace = session.placement, session.names.default
    if actor_id is None:
        env = placement.runtime_env(None)
        return ProcessFacts(is_actor=False, namespace=namespace, runtime_env=env)
    process = session.actor(actor_id)
    return ProcessFacts(
        is_actor=not isinstance(process.calls, PoolWorker),
        namespace=namespace,
        runtime_env=placement.runtime_env(process.options),
        name=process.options.name,
        num_restarts=process.life.fate.num_restarts,
    )


def assigned_resources(session: Session, actor_id: int) -> dict[str, float]:
    """Return what an actor, or the task that a worker runs, holds now."""
    process = session.actor(actor_id)
    grant = process.life.grant
    if isinstance(process.calls, PoolWorker) and process.calls.grant is not None:
        grant = process.calls.grant
    return grant.demand.amounts()


def is_cancelled(session: Session, actor_id: int, number: int) -> bool:
    """Tell whether the call with this number was the last one to be cancelled there."""
    board = session.board
    line = session.actor(actor_id).line
    return bool(number) and board.words[board.word_index(line, CANCELLED)] == number
