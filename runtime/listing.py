"""What is there in a session: rows for `runtime.state`, made when they are asked for.

Nothing is recorded for them. Tasks and references are found through the garbage collector, so they
are those that anybody still holds: submitting a task costs nothing more for being listed.
"""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from compiled_dag.shm.board import CLAIMED
from runtime import ids
from runtime.calls import Calls
from runtime.events import Event
from runtime.objects import ObjectRef
from runtime.pending import CREATION
from runtime.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.process import ActorProcess
    from runtime.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorState:
    """An actor."""

    actor_id: str
    class_name: str
    state: str
    """PENDING_CREATION, ALIVE, RESTARTING or DEAD."""
    name: str
    """Empty if it has none."""
    ray_namespace: str
    pid: int
    """0 while it has no process."""
    job_id: str
    node_id: str
    is_detached: bool
    num_restarts: int
    required_resources: Mapping[str, float]
    waits_for: str
    """What it needs and what is free, while it has no process."""
    death_cause: str
    """Empty while it lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """A task, or a call of an actor that is not answered yet."""

    task_id: str
    name: str
    state: str
    """PENDING_ARGS_AVAIL, PENDING_NODE_ASSIGNMENT (waits for resources or its turn),
    SUBMITTED_TO_WORKER, RUNNING, FINISHED or FAILED."""
    type: str
    """NORMAL_TASK, ACTOR_TASK or ACTOR_CREATION_TASK."""
    func_or_class_name: str
    job_id: str
    node_id: str
    actor_id: str | None
    worker_id: str | None
    worker_pid: int
    """0 while no process has it."""
    required_resources: Mapping[str, float]
    waits_for: str
    """What it waits for; empty if it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectState:
    """A value that the driver refers to, or will; every object has its home there."""

    object_id: str
    """As `ObjectRef.hex`."""
    object_size: int
    """Bytes; 0 while there is no value."""
    task_status: str
    """PENDING, FINISHED or FAILED."""
    call_site: str
    """What makes it."""
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionState:
    """A remote function that has been used."""

    function_id: int
    name: str
    size: int
    """Bytes of its pickled code."""


Row: TypeAlias = ActorState | TaskState | ObjectState | FunctionState | Event

KINDS: Final[Mapping[str, type[Row]]] = {
    "actors": ActorState,
    "tasks": TaskState,
    "objects": ObjectState,
    "functions": FunctionState,
    "events": Event,
}


def rows_of(session: Session, kind: str) -> Sequence[Row]:
    """Return all rows of one of `KINDS`."""
    match kind:
        case "actors":
            return [_actor(process) for process in session.processes if _is_actor(process)]
        case "tasks":
            return sorted([*_tasks(session), *_calls(session)], key=lambda row: row.task_id)
        case "objects":
            return sorted(_objects(session), key=lambda row: row.object_id)
        case "functions":
            return [
                FunctionState(function_id=known.number, name=known.name, size=known.parcel.size)
                for known in session.store.functions()
            ]
        case _:
            return session.events.rows()


def summary_of(session: Session) -> dict[str, Any]:
    """Count what is there by name and state; see `runtime.state.summary`."""
    actors = ((row.class_name, row.state) for row in rows_of(session, "actors"))  # type: ignore[union-attr]
    tasks = ((row.name, row.state) for row in rows_of(session, "tasks"))  # type: ignore[union-attr]
    objects = ((row.call_site, row.task_status) for row in rows_of(session, "objects"))  # type: ignore[union-attr]
    ledger = session.placement.ledger
    return {
        "actors": _counted(actors),
        "tasks": _counted(tasks),
        "objects": _counted(objects),
        "resources": {"total": ledger.totals(), "available": ledger.available()},
    }


def _counted(pairs: Iterator[tuple[str, str]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (name, state), count in sorted(Counter(pairs).items()):
        found.setdefault(name, {})[state] = count
    return found


def _is_actor(process: ActorProcess) -> bool:
    return isinstance(process.calls, Calls)


def _actor(process: ActorProcess) -> ActorState:
    session, options, death = process.session, process.options, process.death
    if death is not None:
        state = "DEAD"
    elif process.pid:
        state = "ALIVE"
    else:
        state = "RESTARTING" if process.life.fate.num_restarts else "PENDING_CREATION"
    waits = state == "PENDING_CREATION"
    return ActorState(
        actor_id=ids.actor(process.actor_id),
        class_name=process.class_name,
        state=state,
        name=options.name or "",
        ray_namespace=session.names.default if options.namespace is None else options.namespace,
        pid=process.pid,
        job_id=ids.JOB,
        node_id=ids.NODE,
        is_detached=options.lifetime == "detached",
        num_restarts=process.life.fate.num_restarts,
        required_resources=options.demand.amounts(),
        waits_for=session.placement.waits_for(process) if waits else "",
        death_cause="" if death is None else str(death),
    )


def _tasks(session: Session) -> list[TaskState]:
    return [_task(found) for found in _living(Task) if found.session is session]


def _task(task: Task) -> TaskState:
    worker, state = task.worker, task.state
    if worker is not None and state == "RUNNING" and not worker.has_begun(task.number):
        state = "SUBMITTED_TO_WORKER"
    return TaskState(
        task_id=ids.task(task.task_id),
        name=task.name,
        state=state,
        type="NORMAL_TASK",
        func_or_class_name=task.function.name,
        job_id=ids.JOB,
        node_id=ids.NODE,
        actor_id=None,
        worker_id=None if worker is None else ids.worker(worker.process.actor_id),
        worker_pid=0 if worker is None else worker.process.pid,
        required_resources=task.options.demand.amounts(),
        waits_for=task.where if state.startswith("PENDING") else "",
    )


def _calls(session: Session) -> list[TaskState]:
    return [
        _call(process, number, what, sent=sent)
        for process in session.processes
        if isinstance(process.calls, Calls)
        for number, what, sent in process.calls.unanswered()
    ]


def _call(process: ActorProcess, number: int, what: str, *, sent: bool) -> TaskState:
    board = process.session.board
    state, waits_for = "PENDING_ARGS_AVAIL", "its turn, its arguments, or its actor's start"
    if sent:
        runs = board.words[board.word_index(process.line, CLAIMED)] == number
        state, waits_for = ("RUNNING" if runs else "SUBMITTED_TO_WORKER"), ""
    return TaskState(
        task_id=ids.call(number, process.actor_id),
        name=what,
        state=state,
        type="ACTOR_CREATION_TASK" if number == CREATION else "ACTOR_TASK",
        func_or_class_name=what,
        job_id=ids.JOB,
        node_id=ids.NODE,
        actor_id=ids.actor(process.actor_id),
        worker_id=ids.worker(process.actor_id),
        worker_pid=process.pid,
        required_resources={},
        waits_for=waits_for,
    )


def _objects(session: Session) -> list[ObjectState]:
    return [
        _object(ref)
        for ref in _living(ObjectRef)
        if getattr(ref.source, "session", None) is session
    ]


def _object(ref: ObjectRef) -> ObjectState:
    status = "PENDING" if not ref.done else "FAILED" if ref.failed else "FINISHED"
    return ObjectState(
        object_id=ref.hex(),
        object_size=0 if ref.parcel is None else ref.parcel.size,
        task_status=status,
        call_site=ref.what,
        job_id=ids.JOB,
    )


def _living(cls: type) -> list[Any]:
    # Not isinstance: it asks proxies for their __class__, and torch has one that warns.
    return [found for found in gc.get_objects() if issubclass(type(found), cls)]
