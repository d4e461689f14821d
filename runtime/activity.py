"""What processes are doing and wait for, as the driver sees it.

Nothing is asked of the processes' own threads: what runs and what is awaited stands on the board,
whose it is is known here, and stacks come by signal (`runtime.stacks`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from compiled_dag.host import Activity, ActorId, Wait
from compiled_dag.shm.board import (
    ACTOR_BIT,
    AWAITED,
    AWAITED_AT,
    CLAIMED,
    CLAIMED_AT,
    CONCURRENT,
    GROUP_BIT,
)
from runtime.pool import PoolWorker
from runtime.process import ActorProcess
from runtime.stacks import Stack, Subject
from runtime.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.objects import ObjectRef
    from runtime.session import Session


def activities(
    session: Session, actor_ids: Sequence[ActorId], deadline: float, *, stacks: bool
) -> Mapping[ActorId, Activity]:
    """Return what processes are doing; see `compiled_dag.host.Host`."""
    processes = [session.processes[actor_id] for actor_id in actor_ids]
    found: Mapping[int, Stack] = {}
    if stacks:
        subjects = [
            Subject(key=process.actor_id, pid=process.pid, pipe=process.life.stacks)
            for process in processes
            if process.pid and process.life.stacks is not None
        ]
        found = session.stacks.take(subjects, deadline)
    return {process.actor_id: _activity(process, found) for process in processes}


def _activity(process: ActorProcess, stacks: Mapping[int, Stack]) -> Activity:
    stack = stacks.get(process.actor_id, Stack())
    state = stack.state
    if not process.pid and process.death is None:
        state = f"has no process yet: {process.session.placement.waits_for(process)}"
    call, for_s = running(process)
    return Activity(
        stack=stack.frames, state=state, call=call, call_for_s=for_s, wait=wait_of(process)
    )


def running(process: ActorProcess) -> tuple[str, float]:
    """Return the call or task that a process's main thread runs, empty if none; since how long."""
    board = process.session.board
    if isinstance(process.calls, PoolWorker):
        task = process.calls.current()
        name = "" if task is None else task.name
    else:
        number = board.words[board.word_index(process.line, CLAIMED)]
        name = process.calls.name_of(number) if process.pid else ""
    if not name:
        return "", 0.0
    return name, _for_s(board.words[board.word_index(process.line, CLAIMED_AT)])


def wait_of(process: ActorProcess) -> Wait | None:
    """Return what a process's main thread waits for in a `get`, a compile or a collective."""
    elsewhere = _wait_in_group(process) or _wait_in_compile(process)
    ref = _awaited(process)
    if elsewhere is not None or ref is None:
        return elsewhere
    board, maker = process.session.board, _maker(ref)
    return Wait(
        actor_id=process.actor_id,
        on=None if maker is None else maker.actor_id,
        text=f"{ref.what} {ref.source.where}",
        for_s=_for_s(board.words[board.word_index(process.line, AWAITED_AT)]),
    )


def wait_for_turn(process: ActorProcess) -> Wait | None:
    """Return what a `get` waits for if that has to be done by another process's main thread."""
    wait = wait_of(process)
    if wait is None or wait.on is None:
        return None
    session = process.session
    board, maker = session.board, session.processes[wait.on]
    return None if board.words[board.word_index(maker.line, CONCURRENT)] else wait


def _wait_in_group(process: ActorProcess) -> Wait | None:
    board = process.session.board
    number = board.words[board.word_index(process.line, AWAITED)]
    if not number & GROUP_BIT or process.gone:
        return None
    for_s = _for_s(board.words[board.word_index(process.line, AWAITED_AT)])
    return process.session.groups.wait_in(number ^ GROUP_BIT, process.actor_id, for_s)


def _wait_in_compile(process: ActorProcess) -> Wait | None:
    board = process.session.board
    number = board.words[board.word_index(process.line, AWAITED)]
    if not ACTOR_BIT <= number < GROUP_BIT or process.gone:
        return None
    other = process.session.processes[ActorId(number ^ ACTOR_BIT)]
    return Wait(
        actor_id=process.actor_id,
        on=other.actor_id,
        text=f"actor {other.label} to take its part of a graph, or to let go of it",
        for_s=_for_s(board.words[board.word_index(process.line, AWAITED_AT)]),
        by="compile",
    )


def _awaited(process: ActorProcess) -> ObjectRef | None:
    board = process.session.board
    number = board.words[board.word_index(process.line, AWAITED)]
    ref: ObjectRef | None = process.peer.held(number) if 0 < number < ACTOR_BIT else None
    return None if ref is None or ref.done else ref


def progress_of(ref: ObjectRef) -> str:
    """Return what is known of a reference that is not ready, in words."""
    where = f"{ref.what} {ref.source.where}"
    maker = _maker(ref)
    if maker is None:
        return where
    runs, for_s = running(maker)
    if runs and _runs(maker, ref):
        return f"{where}, where it has run for {for_s:.3f} s"
    if runs:
        return f"{where}, which has run {runs} for {for_s:.3f} s"
    return where


def _maker(ref: ObjectRef) -> ActorProcess | None:
    """Return the process that makes a reference's value, if that is known yet."""
    source = ref.source
    if isinstance(source, Task):
        return None if source.worker is None else source.worker.process
    return source if isinstance(source, ActorProcess) else None


def _runs(maker: ActorProcess, ref: ObjectRef) -> bool:
    """Tell whether what a process's main thread runs now makes `ref`."""
    if isinstance(maker.calls, PoolWorker):
        return maker.calls.current() is ref.source
    board = maker.session.board
    return maker.calls.makes(board.words[board.word_index(maker.line, CLAIMED)], ref)


def _for_s(since_ns: int) -> float:
    return max(0.0, (time.monotonic_ns() - since_ns) / 1e9)
