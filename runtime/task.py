"""One task, from its submission to its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.link import Link
    from runtime.objects import ObjectRef
    from runtime.options import TaskOptions
    from runtime.parcel import Parcel
    from runtime.pool import PoolWorker
    from runtime.session import Session
    from runtime.store import Function


class Task:
    """A call of a function; what it returns goes to `refs`, of which it is the source."""

    __slots__ = (
        "__weakref__",
        "age",
        "args",
        "cancelled",
        "children",
        "function",
        "name",
        "needed",
        "number",
        "options",
        "refs",
        "retries",
        "session",
        "state",
        "task_id",
        "worker",
    )

    def __init__(
        self,
        session: Session,
        function: Function,
        options: TaskOptions,
        args: Parcel,
        needed: Sequence[ObjectRef],
    ) -> None:
        self.session = session
        self.function = function
        self.options = options
        self.name = options.name or function.name
        self.args: Parcel | None = args
        """Until it is done."""
        self.needed: Sequence[ObjectRef] = needed
        """References among the arguments whose values it needs."""
        self.refs: Sequence[Any] = ()
        """Weak references to the results' references: nobody need hold them."""
        self.task_id = 0
        """Number of its first result, whatever number it is sent with."""
        self.retries = options.max_retries
        self.cancelled = False
        self.children: list[Any] = []
        """Weak references to the tasks that it has submitted."""
        self.age = 0
        """How many tasks were ready to run before it."""
        self.number = 0
        """Of the message that it was sent with last."""
        self.worker: PoolWorker | None = None
        self.state = "PENDING_ARGS_AVAIL"

    @property
    def where(self) -> str:
        """For messages."""
        worker = self.worker
        if worker is not None:
            return f"in worker process {worker.process.pid}"
        if self.state == "PENDING_ARGS_AVAIL":
            return "waiting for its arguments"
        if self.session.scheduler.has_worker_coming(self):
            return "waiting for a worker process that is being started"
        demand = self.options.demand
        return f"waiting for {demand} (free: {self.session.placement.ledger.available()})"

    def attend(self) -> Link | None:
        """Let the calling thread read the replies of the worker that runs it."""
        worker = self.worker
        link = None if worker is None else worker.link
        if link is not None:
            link.attend()
        return link

    def tries_again(self, parcels: Sequence[Parcel]) -> bool:
        """Tell whether it is to run again after this outcome; counts that."""
        wanted = self.options.retry_exceptions
        if wanted is False or not self.retries or len(parcels) != 1 or not parcels[0].is_error:
            return False
        if wanted is not True and not isinstance(parcels[0].load().exception().cause, wanted):
            return False
        return self.use_retry()

    def use_retry(self) -> bool:
        """Count one more run; returns False if it may have none."""
        if not self.retries:
            return False
        self.retries -= self.retries > 0
        return True

    def complete(self, parcels: Sequence[Parcel]) -> None:
        """Take the results, or one parcel with an `Error` for all."""
        failed = len(parcels) == 1 and parcels[0].is_error
        if failed:
            self._note_failure("it raised an exception")
        self._done("FAILED" if failed else "FINISHED")
        for index, weak in enumerate(self.refs):
            ref = weak()
            if ref is not None:
                ref.complete(parcels[0 if failed else index])

    def fail(self, error: BaseException) -> None:
        """Take the reason why there will be no results."""
        self._note_failure(error)
        self._done("FAILED")
        for weak in self.refs:
            ref = weak()
            if ref is not None:
                ref.fail(error)

    def follow(self, failed: ObjectRef) -> None:
        """End as a reference did that it needed."""
        self._note_failure(f"its argument {failed.what} failed")
        self._done("FAILED")
        for weak in self.refs:
            ref = weak()
            if ref is not None:
                ref.follow(failed)

    def _note_failure(self, why: object) -> None:
        pid = 0 if self.worker is None else self.worker.process.pid
        self.session.events.add("TASK_FAILED", self.name, pid=pid, message=why)

    def _done(self, state: str) -> None:
        self.state = state
        self.args = None
        self.needed = ()
        self.worker = None
