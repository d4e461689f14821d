"""Leases: which worker serves which lane, and who gets the tasks that wait.

Decides, with the scheduler's lock held by whoever calls; `runtime.scheduler` says what happens to
tasks and workers.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from runtime.lanes import Lane, Lanes
from runtime.pool import PoolWorker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.scheduler import Scheduler
    from runtime.session import Session
    from runtime.task import Task

_DEPTH: Final = 16
"""Tasks sent ahead to one worker."""
_MOST_STARTING: Final = 8
"""Processes asked for at once: each takes the memory of a fork."""
_MOST_STILLBORN: Final = 3
"""Processes of one kind that end, one after the other, before they have done anything."""


class Leases:
    """The workers of a session and what they are leased for; its users hold the lock."""

    def __init__(self, scheduler: Scheduler, session: Session) -> None:
        """Begin without workers; `scheduler` is told by them what happens."""
        self._scheduler = scheduler
        self._session = session
        self.lanes = Lanes()
        self.starting = 0
        """Processes that are asked for and not up."""
        self.closed = False
        """Whether nothing is to be started any more."""
        self._idle: list[PoolWorker] = []

    def enter(self, lane: Lane, task: Task) -> None:
        """Have a task wait in its lane, and send out what can be."""
        lane.queue.append((task.age, task))
        if lane.starved and lane.workers and not self.starting:
            self._fill_all(lane)  # whoever gives resources back serves the starved
        else:
            self.serve(lane)

    def serve(self, lane: Lane) -> None:
        """Send out what waits in a lane, as far as there are workers and resources."""
        while lane.queue and self._lease(lane):
            pass
        self._fill_all(lane)
        if not lane.starved and not lane.queue:
            self._widen(lane)
        elif lane.starved and not lane.workers and self.lanes.are_starved:
            self._session.begin_reclaim()

    def _fill_all(self, lane: Lane) -> None:
        """Send out what waits in a lane, as far as its workers take it."""
        for worker in lane.workers:
            if not lane.queue:
                break
            if len(worker.assigned) < _DEPTH:
                self._fill(lane, worker)

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
        if self.starting < _MOST_STARTING:
            grant = self._session.placement.ledger.take(lane.demand)
        lane.starved = grant is None and not lane.hopeless
        if grant is None:
            return None
        kind = lane.key[1:], grant.gpu_ids
        worker = self._take_idle(kind)
        known = worker is not None
        if worker is None:
            worker = PoolWorker(self._scheduler, self._session.board, kind)
            self.starting += 1
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
        if queue and self.lanes.older_waits(lane):
            depth = 1  # its lease is to end
        while queue and len(assigned) < depth:
            # A worker that is to end after a task is sent nothing behind it.
            if assigned and (worker.last or queue[0][1].options.max_calls):
                return
            _, task = queue.popleft()
            if task.state == "PENDING_NODE_ASSIGNMENT":
                worker.last = task.options.max_calls > 0
                worker.send(task)

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
            self._end_surplus()
        self._session.placement.start_waiting()
        self.serve_starved()

    def serve_starved(self) -> None:
        """Give free resources to the lanes that wait for some, the oldest first."""
        if self.closed:
            return
        for lane in sorted(filter(attrgetter("queue"), self.lanes), key=attrgetter("age")):
            self.serve(lane)
        for lane in self.lanes:
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

    def _end_surplus(self) -> None:
        """End idle workers that there are too many of, the longest idle first."""
        most = max(2, int(self._session.placement.ledger.totals()["CPU"]))
        while len(self._idle) > most:
            self._idle.pop(0).process.end_after_calls()

    def next(self, worker: PoolWorker) -> None:
        """Find work for a worker that has answered."""
        lane = worker.lane
        if lane is None:
            return
        overdrawn = self._session.placement.ledger.overdrawn
        if not worker.assigned and (overdrawn or self.lanes.older_waits(lane)):
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
                self.requeue(lane, tasks)
                self._fill(lane, thief)
                return bool(thief.assigned)
        return False

    def requeue(self, lane: Lane, tasks: Sequence[Task]) -> None:
        """Have tasks that were taken back wait before all others of their lane."""
        for task in reversed(tasks):
            task.worker = None
            task.state = "PENDING_NODE_ASSIGNMENT"
            lane.queue.appendleft((task.age, task))

    def _lend(self, worker: PoolWorker, *, back: bool) -> None:
        worker.waits = not back
        units = worker.grant.demand.num_cpus if worker.grant else 0
        self._session.placement.ledger.lend_cpus(-units if back else units)

    # --- what becomes of workers

    def came_up(self, worker: PoolWorker) -> None:
        """Give a new worker something to do."""
        self.starting -= 1
        worker.up = True
        lane = worker.lane
        if lane is None:
            self.serve_starved()
            return
        lane.num_stillborn = 0
        self._fill(lane, worker, max(1, len(lane.queue) // len(lane.workers)))
        if not worker.assigned and not self._steal(lane, worker):
            self._end_lease(worker)
        else:
            self.serve_starved()  # any lane: others may have waited for fewer to be starting

    def yield_to_others(self, worker: PoolWorker) -> None:
        """Let others use what a waiting worker cannot: its CPUs, and the tasks behind its own."""
        lane = worker.lane
        if lane is None or worker.waits:
            return
        self._lend(worker, back=False)
        self.requeue(lane, worker.take_back(1))
        self._session.placement.start_waiting()
        self.serve_starved()
        self.serve(lane)

    def take_back_lent(self, worker: PoolWorker) -> None:
        """Take back what a waiting worker had lent."""
        if worker.lane is not None and worker.waits:
            self._lend(worker, back=True)

    def retire(self, worker: PoolWorker) -> None:
        """End a worker that has called a function as often as it may."""
        if worker.lane is None:
            return
        worker.retired = True
        self._end_lease(worker)
        worker.process.end_after_calls()

    def bury(self, worker: PoolWorker, again: Sequence[Task]) -> Sequence[Task]:
        """Let go of a dead worker, whose tasks `again` others run; returns those nobody can."""
        if not worker.up:
            self.starting -= 1
        if worker in self._idle:
            self._idle.remove(worker)
        lane = worker.lane
        if lane is None:
            self.serve_starved()
            return ()
        self.requeue(lane, again)
        lane.num_stillborn += not worker.up
        hopeless: Sequence[Task] = ()
        if lane.num_stillborn >= _MOST_STILLBORN:  # more would not live either
            hopeless = lane.take_all()
        self._end_lease(worker)
        return hopeless
