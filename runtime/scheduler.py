"""Which task runs where, and when.

Tasks wait in *lanes*, one for each kind: what they hold (resources) and what process they need. A
worker serves one lane at a time: it has a *lease*, that is, resources taken once and used by one
task after the other; so short tasks cost no bookkeeping each. A lease ends when its lane is empty,
or when an older task of another lane waits for resources.

A worker without work takes half of what another worker of its lane has not begun; one whose task
waits for other tasks gives all of it back, and lends its CPUs meanwhile: that is why tasks that
wait for tasks cannot lock each other out.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from typing import TYPE_CHECKING, Any

from compiled_dag.errors import TaskCancelledError
from compiled_dag.interrupts import whole
from runtime import obituary
from runtime.checks import STREAM
from runtime.lanes import when_all_done
from runtime.leases import Leases
from runtime.objects import ObjectRef
from runtime.references import next_reference
from runtime.stream import StreamEnd
from runtime.task import Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.errors import ActorDiedError
    from runtime.lanes import Lane
    from runtime.messages import Reply
    from runtime.options import TaskOptions
    from runtime.parcel import Parcel
    from runtime.pool import PoolWorker
    from runtime.session import Session
    from runtime.store import Function


class Scheduler:
    """Tasks and workers of a session. Any thread may use it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.RLock()
        self._leases = Leases(self, session)
        self._counter = itertools.count()
        self._warned: set[Any] = set()

    # --- in

    @whole
    def submit(
        self,
        function: Function,
        options: TaskOptions,
        args: Parcel,
        needed: Sequence[ObjectRef],
        numbers: Sequence[int | None],
    ) -> tuple[ObjectRef, ...]:
        """Queue a call; returns the references of its results."""
        task = Task(self._session, function, options, args, needed)
        kind = StreamEnd if options.num_returns == STREAM else ObjectRef
        refs = tuple([kind(task.name, task, number) for number in numbers])
        task.task_id = refs[0].number if refs else next_reference()
        task.refs = [weakref.ref(ref) for ref in refs]
        if needed and not all(ref.done for ref in needed):
            when_all_done(needed, lambda: self._enqueue(task))
        else:
            self._enqueue(task)
        return refs

    def _enqueue(self, task: Task) -> None:
        for ref in task.needed:
            if ref.failed:
                task.follow(ref)
                return
        with self._lock:
            if task.state != "PENDING_ARGS_AVAIL":
                return  # cancelled meanwhile
            lane = self._leases.lanes.of(task.options)
            if not self._leases.closed:
                task.state = "PENDING_NODE_ASSIGNMENT"
                task.age = next(self._counter)
                self._leases.enter(lane, task)
        if self._leases.closed:
            task.fail(obituary.of_tasks())
        elif lane.key not in self._warned:
            self._warn(lane, task)

    def _warn(self, lane: Lane, task: Task) -> None:
        self._warned.add(lane.key)
        placement = self._session.placement
        missing = placement.ledger.missing(lane.demand)
        if missing:
            lane.hopeless, lane.starved = True, False
            placement.warn_for_ever(f"task {task.name}", missing)
        placement.warn_about_devices(lane.demand.num_gpus)

    def has_worker_coming(self, task: Task) -> bool:
        """Tell whether a process for a waiting task is being started."""
        with self._lock:
            return any(not worker.up for worker in self._leases.lanes.of(task.options).workers)

    @property
    def is_starved(self) -> bool:
        """Whether a task waits for resources that no task has: actors have them all."""
        return self._leases.lanes.are_starved

    # --- what workers say

    def opened(self, worker: PoolWorker) -> None:
        """Give a new worker something to do."""
        with self._lock:
            self._leases.came_up(worker)

    def answered(self, worker: PoolWorker, reply: Reply) -> None:
        """Hand out a task's outcome, and give the worker more."""
        with self._lock:
            task = worker.assigned.pop(reply.number, None)
            if task is not None:
                worker.last_name = task.name
            retired = task is not None and worker.is_worn_out(task)
            if task is not None and task.tries_again(reply.parcels):
                self._leases.requeue(self._leases.lanes.of(task.options), [task])
                task = None
            if retired:
                self._leases.retire(worker)
            else:
                self._leases.next(worker)
        if task is not None and task.state != "FAILED":
            task.complete(reply.parcels)

    def skipped(self, worker: PoolWorker, number: int) -> None:
        """Take note that a worker passed a task over."""
        with self._lock:
            task = worker.passed_over(number)
            if not worker.revoked:
                self._leases.next(worker)
            if task is not None:
                lane = self._leases.lanes.of(task.options)
                self._leases.requeue(lane, [task])
                self._leases.serve(lane)

    def waits(self, worker: PoolWorker) -> None:
        """Let others use what a waiting worker cannot."""
        with self._lock:
            self._leases.yield_to_others(worker)

    def goes_on(self, worker: PoolWorker) -> None:
        """Take back what a waiting worker had lent."""
        with self._lock:
            self._leases.take_back_lent(worker)

    def died(self, worker: PoolWorker, death: ActorDiedError) -> None:
        """Run the tasks of a dead worker again, or fail them."""
        crashed = obituary.of_worker(death)
        with self._lock:
            failed, again = worker.take_at_death()
            if self._leases.closed:
                failed, again = [*failed, *again], []
            failed += self._leases.bury(worker, again)
        for task in failed:
            cancelled = TaskCancelledError(f"task {task.name} was cancelled: {death}")
            task.fail(cancelled if task.cancelled else crashed)

    # --- from outside

    def kick(self) -> None:
        """Look whether something can run now: resources were given back."""
        with self._lock:
            self._leases.serve_starved()

    def cancel(self, task: Task, *, force: bool, recursive: bool) -> None:
        """Cancel a task: out of its queue, or interrupted where it runs."""
        with self._lock:
            if task.state in ("FINISHED", "FAILED"):
                return
            task.cancelled = True
            task.retries = 0
            worker = task.worker
            if worker is not None and not worker.has_begun(task.number):
                self._take_out(worker, task)
            worker = task.worker
            children = [child() for child in task.children] if recursive else []
        if worker is None:
            task.fail(TaskCancelledError(f"task {task.name} was cancelled before it ran"))
        elif force:
            self._session.kill_worker(worker, f"runtime.cancel({task.name}, force=True)")
        else:
            worker.process.interrupt(task.number)
        for child in children:
            if child is not None:
                self.cancel(child, force=force, recursive=True)

    def _take_out(self, worker: PoolWorker, task: Task) -> None:
        """Take a task that has not begun back from its worker, with those behind it."""
        lane = worker.lane
        taken = worker.take_back(list(worker.assigned).index(task.number))
        self._leases.requeue(lane, [other for other in taken if other is not task])
        if task in taken:
            task.worker = None
        self._leases.serve(lane)

    def close(self, error: BaseException) -> None:
        """Fail everything that waits, and start nothing any more: the session ends."""
        with self._lock:
            self._leases.closed = True
            waiting = [task for lane in self._leases.lanes for task in lane.take_all()]
        for task in waiting:
            task.fail(error)
