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
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.errors import TaskCancelledError
from runtime import obituary
from runtime.checks import STREAM
from runtime.lanes import Lane, key_of, when_all_done
from runtime.objects import ObjectRef, next_reference
from runtime.pool import PoolWorker
from runtime.stream import StreamEnd
from runtime.task import Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.errors import ActorDiedError
    from runtime.messages import Reply
    from runtime.options import TaskOptions
    from runtime.parcel import Parcel
    from runtime.session import Session
    from runtime.store import Function

_DEPTH: Final = 16
"""Tasks sent ahead to one worker."""
_MOST_KNOWN: Final = 256
"""Options whose lanes are remembered."""
_MOST_STARTING: Final = 8
"""Processes asked for at once: each takes the memory of a fork."""
_MOST_STILLBORN: Final = 3
"""Processes of one kind that end, one after the other, before they have done anything."""


class Scheduler:
    """Tasks and workers of a session. Any thread may use it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.RLock()
        self._lanes: dict[Any, Lane] = {}
        self._lane_of: dict[int, tuple[TaskOptions, Lane]] = {}
        """By the identity of options, which it keeps: those of a function are one object."""
        self._idle: list[PoolWorker] = []
        self._counter = itertools.count()
        self._starting = 0
        self._warned: set[Any] = set()
        self._closed = False

    # --- in

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
            lane = self._lane(task)
            if not self._closed:
                task.state = "PENDING_NODE_ASSIGNMENT"
                task.age = next(self._counter)
                lane.queue.append((task.age, task))
                if lane.starved and lane.workers and not self._starting:
                    self._fill_all(lane)  # whoever gives resources back serves the starved
                else:
                    self._serve(lane)
        if self._closed:
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

    def _lane(self, task: Task) -> Lane:
        options = task.options
        known = self._lane_of.get(id(options))
        if known is not None:
            return known[1]
        key = key_of(options)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane.of(key, options)
        if len(self._lane_of) >= _MOST_KNOWN:
            self._lane_of.clear()
        self._lane_of[id(options)] = options, lane
        return lane

    def has_worker_coming(self, task: Task) -> bool:
        """Tell whether a process for a waiting task is being started."""
        with self._lock:
            return any(not worker.up for worker in self._lane(task).workers)

    # --- who runs what (with the lock)

    def _serve(self, lane: Lane) -> None:
        """Send out what waits in a lane, as far as there are workers and resources."""
        while lane.queue and self._lease(lane):
            pass
        self._fill_all(lane)
        if not lane.starved and not lane.queue:
            self._widen(lane)
        elif lane.starved and not lane.workers and self.is_starved:
            self._session.begin_reclaim()

    def _fill_all(self, lane: Lane) -> None:
        """Send out what waits in a lane, as far as its workers take it."""
        for worker in lane.workers:
            if not lane.queue:
                break
            if len(worker.assigned) < _DEPTH:
                self._fill(lane, worker)

    @property
    def is_starved(self) -> bool:
        """Whether a task waits for resources that no task has: actors have them all."""
        lanes = list(self._lanes.values())
        return any(lane.starved and lane.queue for lane in lanes) and not any(
            lane.workers for lane in lanes
        )

    def _lease(self, lane: Lane) -> bool:
        """Have one more worker serve the lane; returns whether there is sense in yet another."""
        coming = sum(not worker.up for worker in lane.workers)
        if len(lane.queue) <= coming:
            return False
        worker = self._engage(lane)
        if worker is None:
            return False
        if worker.up:
            self._fill(lane, worker, 1)
            if not worker.assigned and not lane.queue:  # all of it has been cancelled
                self._end_lease(worker)
        return True

    def _engage(self, lane: Lane) -> PoolWorker | None:
        """Have a worker, an idle or a new one, serve the lane, if the resources are there."""
        if not lane.demand.num_cpus:
            active = sum(not worker.waits for worker in lane.workers)
            if active >= self._most_without_cpu():
                return None
        grant = None
        if self._starting < _MOST_STARTING:
            grant = self._session.placement.ledger.take(lane.demand)
        lane.starved = grant is None and not lane.hopeless
        if grant is None:
            return None
        kind = lane.key[1:], grant.gpu_ids
        worker = self._take_idle(kind)
        known = worker is not None
        if worker is None:
            worker = PoolWorker(self, self._session.board, kind)
            self._starting += 1
        worker.lane, worker.grant = lane, grant
        lane.workers.append(worker)
        if not known:
            self._session.start_worker(worker, lane.kind, grant)
        return worker

    def _most_without_cpu(self) -> int:
        return 4 * max(1, int(self._session.placement.ledger.totals()["CPU"]))

    def _take_idle(self, kind: Any) -> PoolWorker | None:
        for position in range(len(self._idle) - 1, -1, -1):
            if self._idle[position].kind == kind:
                return self._idle.pop(position)
        return None

    def _fill(self, lane: Lane, worker: PoolWorker, depth: int = _DEPTH) -> None:
        """Send a worker tasks ahead."""
        if not worker.takes_more:
            return
        queue, assigned = lane.queue, worker.assigned
        if queue and self._older_waits(lane):
            depth = 1  # its lease is to end
        while queue and len(assigned) < depth:
            # A worker that is to end after a task is sent nothing behind it.
            if assigned and (worker.last or queue[0][1].options.max_calls):
                return
            _, task = queue.popleft()
            if task.state == "PENDING_NODE_ASSIGNMENT":
                worker.last = task.options.max_calls > 0
                worker.send(task)

    def _older_waits(self, lane: Lane) -> bool:
        """Tell whether a lane with an older task waits for resources."""
        return len(self._lanes) > 1 and any(
            other.starved and other.queue and (not lane.queue or other.age < lane.age)
            for other in self._lanes.values()
            if other is not lane
        )

    def _end_lease(self, worker: PoolWorker) -> None:
        """Give a worker's resources back; the worker is idle."""
        lane = worker.lane
        lane.workers.remove(worker)
        worker.lane = None
        if worker.waits:
            self._lend(worker, back=True)
        self._session.placement.ledger.give_back(worker.grant)  # type: ignore[arg-type]
        worker.grant = None
        if worker.death is None and not worker.retired:
            self._idle.append(worker)
            self._retire()
        self._session.placement.start_waiting()
        self._serve_starved()

    def _serve_starved(self) -> None:
        """Give free resources to the lanes that wait for some, the oldest first."""
        if self._closed:
            return
        waiting = sorted(
            (lane for lane in self._lanes.values() if lane.queue), key=attrgetter("age")
        )
        for lane in waiting:
            self._serve(lane)
        for lane in list(self._lanes.values()):
            if lane.starved and not lane.queue:
                self._widen(lane)

    def _widen(self, lane: Lane) -> None:
        """Let more workers serve a lane whose tasks all wait behind others."""
        while True:
            behind = sum(worker.num_behind() for worker in lane.workers)
            coming = sum(not worker.up for worker in lane.workers)
            if behind <= coming:
                lane.starved = False
                return
            worker = self._engage(lane)
            if worker is None:
                return
            if worker.up and not self._steal(lane, worker):
                self._end_lease(worker)
                return

    def _retire(self) -> None:
        """End idle workers that there are too many of, the longest idle first."""
        most = max(2, int(self._session.placement.ledger.totals()["CPU"]))
        while len(self._idle) > most:
            self._idle.pop(0).process.end_after_calls()

    def _next(self, worker: PoolWorker) -> None:
        """Find work for a worker that has answered."""
        lane = worker.lane
        if lane is None:
            return
        overdrawn = self._session.placement.ledger.overdrawn
        if not worker.assigned and (overdrawn or self._older_waits(lane)):
            self._end_lease(worker)
            return
        if lane.queue and len(worker.assigned) <= _DEPTH // 2:
            self._fill(lane, worker)
        # What was queued may all have been cancelled.
        if not worker.assigned and not lane.queue and not self._steal(lane, worker):
            self._end_lease(worker)

    def _steal(self, lane: Lane, thief: PoolWorker) -> bool:
        """Give an idle worker half of what the busiest one of its lane has not begun."""
        if not thief.takes_more:
            return False
        for victim in sorted(lane.workers, key=PoolWorker.num_behind, reverse=True):
            behind = victim.num_behind()
            if not behind:
                return False
            tasks = victim.take_back(len(victim.assigned) - (behind + 1) // 2)
            if tasks:  # they may have begun just now
                self._requeue(lane, tasks)
                self._fill(lane, thief)
                return bool(thief.assigned)
        return False

    def _requeue(self, lane: Lane, tasks: Sequence[Task]) -> None:
        for task in reversed(tasks):
            task.worker = None
            task.state = "PENDING_NODE_ASSIGNMENT"
            lane.queue.appendleft((task.age, task))

    def _lend(self, worker: PoolWorker, *, back: bool) -> None:
        worker.waits = not back
        units = worker.grant.demand.num_cpus if worker.grant else 0
        self._session.placement.ledger.lend_cpus(-units if back else units)

    # --- what workers say

    def opened(self, worker: PoolWorker) -> None:
        """Give a new worker something to do."""
        with self._lock:
            self._starting -= 1
            worker.up = True
            lane = worker.lane
            if lane is None:
                self._serve_starved()
                return
            lane.num_stillborn = 0
            self._fill(lane, worker, max(1, len(lane.queue) // len(lane.workers)))
            if not worker.assigned and not self._steal(lane, worker):
                self._end_lease(worker)
            else:
                self._serve_starved()  # any lane: others may have waited for fewer to be starting

    def answered(self, worker: PoolWorker, reply: Reply) -> None:
        """Hand out a task's outcome, and give the worker more."""
        with self._lock:
            task = worker.assigned.pop(reply.number, None)
            if task is not None:
                worker.last_name = task.name
            retired = task is not None and self._is_worn_out(worker, task)
            if task is not None and self._try_again(task, reply.parcels):
                self._requeue(self._lane(task), [task])
                task = None
            if retired:
                self._retire_one(worker)
            else:
                self._next(worker)
        if task is not None and task.state != "FAILED":
            task.complete(reply.parcels)

    def _is_worn_out(self, worker: PoolWorker, task: Task) -> bool:
        most = task.options.max_calls
        if not most:
            return False
        number = task.function.number
        worker.num_calls[number] = worker.num_calls.get(number, 0) + 1
        return worker.num_calls[number] >= most

    def _retire_one(self, worker: PoolWorker) -> None:
        if worker.lane is None:
            return
        worker.retired = True
        self._end_lease(worker)
        worker.process.end_after_calls()

    def _try_again(self, task: Task, parcels: Sequence[Parcel]) -> bool:
        """Tell whether a task that raised is to run again."""
        wanted = task.options.retry_exceptions
        if wanted is False or not task.retries or len(parcels) != 1 or not parcels[0].is_error:
            return False
        cause = parcels[0].load().exception().cause
        if wanted is not True and not isinstance(cause, wanted):
            return False
        task.retries -= 1 if task.retries > 0 else 0
        return True

    def skipped(self, worker: PoolWorker, number: int) -> None:
        """Take note that a worker passed a task over."""
        with self._lock:
            task = worker.passed_over(number)
            if not worker.revoked:
                self._next(worker)
            if task is not None:
                lane = self._lane(task)
                self._requeue(lane, [task])
                self._serve(lane)

    def waits(self, worker: PoolWorker) -> None:
        """Let others use what a waiting worker cannot."""
        with self._lock:
            lane = worker.lane
            if lane is None or worker.waits:
                return
            self._lend(worker, back=False)
            self._requeue(lane, worker.take_back(1))
            self._session.placement.start_waiting()
            self._serve_starved()
            self._serve(lane)

    def goes_on(self, worker: PoolWorker) -> None:
        """Take back what a waiting worker had lent."""
        with self._lock:
            if worker.lane is not None and worker.waits:
                self._lend(worker, back=True)

    def died(self, worker: PoolWorker, death: ActorDiedError) -> None:
        """Run the tasks of a dead worker again, or fail them."""
        crashed = obituary.of_worker(death)
        with self._lock:
            if not worker.up:
                self._starting -= 1
            if worker in self._idle:
                self._idle.remove(worker)
            tasks = list(worker.assigned.items())
            worker.assigned.clear()
            lane = worker.lane
            failed = []
            again = []
            for number, task in tasks:
                if worker.has_begun(number) or task.cancelled:
                    if not task.retries:
                        failed.append(task)
                        continue
                    task.retries -= 1 if task.retries > 0 else 0
                again.append(task)
            if self._closed:
                failed, again = [task for _, task in tasks], []
            if lane is not None:
                self._requeue(lane, again)
                lane.num_stillborn += not worker.up
                if lane.num_stillborn >= _MOST_STILLBORN:  # more would not live either
                    failed += [task for _, task in lane.queue]
                    lane.queue.clear()
                self._end_lease(worker)
            else:
                self._serve_starved()
        for task in failed:
            cancelled = TaskCancelledError(f"task {task.name} was cancelled: {death}")
            task.fail(cancelled if task.cancelled else crashed)

    # --- from outside

    def kick(self) -> None:
        """Look whether something can run now: resources were given back."""
        with self._lock:
            self._serve_starved()

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
        self._requeue(lane, [other for other in taken if other is not task])
        if task in taken:
            task.worker = None
        self._serve(lane)

    def close(self, error: BaseException) -> None:
        """Fail everything that waits, and start nothing any more: the session ends."""
        with self._lock:
            self._closed = True
            waiting = [task for lane in self._lanes.values() for _, task in lane.queue]
            for lane in self._lanes.values():
                lane.queue.clear()
        for task in waiting:
            task.fail(error)
