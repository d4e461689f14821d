"""A worker process: runs tasks, one after the other, from a short queue of its own.

The queue is what makes short tasks fast: the worker begins the next one without asking. It is also
what must not hold tasks up behind a long one, so the driver can take back what has not begun, by
two words on the board (each has one writer) and Dekker's argument:

* the worker stores the task's number in CLAIMED, fences, and begins only if it is under REVOKED;
* the driver stores the first number it wants back in REVOKED, fences, and takes those over CLAIMED.

One of the two sees the other's store, so no task runs twice. Where both do, the driver believes the
task begun and the worker does not begin it: the worker says so (`Skipped`), as of every message it
passes over, and the driver queues the task again. Until all have been passed over it sends the
worker nothing, because later numbers would be over REVOKED too; taking back more only lowers it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from compiled_dag.shm.board import CLAIMED, REVOKED
from compiled_dag.shm.futex import fence
from runtime.calls import next_number
from runtime.messages import Call, GoesOn, Item, Reply, Skipped, Stop, System, SystemReply, Want

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiled_dag.errors import ActorDiedError
    from compiled_dag.shm.board import Board
    from runtime.link import Link
    from runtime.parcel import Parcel
    from runtime.process import ActorProcess
    from runtime.resources import Grant
    from runtime.scheduler import Scheduler
    from runtime.system_call import SystemCall
    from runtime.task import Task

NOTHING_REVOKED: Final = (1 << 64) - 1


class PoolWorker:
    """One worker as the scheduler sees it; its methods hold the scheduler's lock unless said."""

    process: ActorProcess

    def __init__(self, scheduler: Scheduler, board: Board, kind: Any) -> None:
        self.scheduler = scheduler
        self.kind = kind
        """What its process was started for: environment, folder, GPUs."""
        self.link: Link | None = None
        self.death: ActorDiedError | None = None
        self.lane: Any = None
        """The kind of tasks it has a lease for, or None: idle."""
        self.grant: Grant | None = None
        self.assigned: dict[int, Task] = {}
        """Sent and not answered, by number, in order."""
        self.revoked: set[int] = set()
        """Taken back and not yet passed over."""
        self.waits = False
        """Whether its task waits for others, and its CPUs are lent."""
        self.up = False
        self.last = False
        """Whether it may end after what it was sent last: a function with `max_calls`."""
        self.retired = False
        """Whether it is about to end."""
        self.known: set[int] = set()
        """Functions whose code it has."""
        self.num_calls: dict[int, int] = {}
        """Of functions with `max_calls`."""
        self._systems: dict[int, SystemCall] = {}
        """Functions of this project's own that it was sent."""
        self.last_name = ""
        """Of the task that it has answered last."""
        self._board = board
        self._sending = threading.Lock()

    # --- tasks

    @property
    def takes_more(self) -> bool:
        """Tell whether tasks may be sent now."""
        return self.up and not self.revoked and not self.waits and not self.retired

    def send(self, task: Task) -> None:
        """Send it a task."""
        number = task.number = next_number()
        task.worker = self
        task.state = "RUNNING"
        self.assigned[number] = task
        function, args = task.function, task.args
        assert args is not None
        parcels: list[Parcel] = [args]
        if task.needed:
            parcels += [ref.parcel for ref in task.needed if ref.parcel is not None]
        new = function.number not in self.known
        if new:
            self.known.add(function.number)
            parcels.append(function.parcel)
        method = b"\0" + bytes((new,)) + function.number.to_bytes(8, "little")
        method += task.task_id.to_bytes(8, "little") + task.name.encode()
        count = task.options.num_returns
        with self._sending:
            if self.link is not None:
                call = Call(number, method, 1 if count is None else int(count), parcels)
                self.link.send(self.link.spares.lend_to(call, function.name))

    def take_back(self, first: int) -> list[Task]:
        """Take back the tasks from position `first` of the queue on that have not begun.

        Those taken back before come after them: the word only goes down until all are passed over.
        """
        numbers = list(self.assigned)[first:]
        if not numbers:
            return []
        words, line = self._board.words, self.process.line
        words[self._board.word_index(line, REVOKED)] = numbers[0]
        fence()
        claimed = words[self._board.word_index(line, CLAIMED)]
        taken = [number for number in numbers if number > claimed]
        self.revoked.update(taken)
        words[self._board.word_index(line, REVOKED)] = min(self.revoked, default=NOTHING_REVOKED)
        return [self.assigned.pop(number) for number in taken]

    def has_begun(self, number: int) -> bool:
        """Tell whether a task may have begun."""
        return number <= self._board.words[self._board.word_index(self.process.line, CLAIMED)]

    def num_behind(self) -> int:
        """Return how many tasks wait behind the one that runs, or is to run next."""
        count = len(self.assigned)
        if count < 2:  # noqa: PLR2004  nothing waits behind one
            return 0
        claimed = self._board.words[self._board.word_index(self.process.line, CLAIMED)]
        return min(count - 1, sum(number > claimed for number in self.assigned))

    def current(self) -> Task | None:
        """Return the task that it runs; takes no lock."""
        words = self._board.words
        return self.assigned.get(words[self._board.word_index(self.process.line, CLAIMED)])

    def running_name(self) -> str:
        """Return the name of the task that has begun last (for its output)."""
        task = self.current()
        return self.last_name if task is None else task.name

    def passed_over(self, number: int) -> Task | None:
        """Note that a message was passed over; returns the task if it must be queued again."""
        if number in self.revoked:
            self.revoked.discard(number)
            task = None
        else:
            task = self.assigned.pop(number, None)
        if not self.revoked:
            index = self._board.word_index(self.process.line, REVOKED)
            self._board.words[index] = NOTHING_REVOKED
        return task

    def is_worn_out(self, task: Task) -> bool:
        """Count a call of a function with `max_calls`; tells whether it was the last."""
        most = task.options.max_calls
        if not most:
            return False
        number = task.function.number
        self.num_calls[number] = self.num_calls.get(number, 0) + 1
        return self.num_calls[number] >= most

    def take_at_death(self) -> tuple[list[Task], list[Task]]:
        """Take all that it was sent: what has failed with it, and what is to run again."""
        failed: list[Task] = []
        again: list[Task] = []
        for number, task in self.assigned.items():
            lost = self.has_begun(number) or task.cancelled
            (failed if lost and not task.use_retry() else again).append(task)
        self.assigned.clear()
        return failed, again

    # --- as `runtime.calls.Calls` is to an actor: from any thread, without the lock

    def connect(self, link: Link | None) -> None:
        """Use `link` from now on."""
        with self._sending:
            self.link = link

    def open(self) -> None:
        """Start taking tasks: the process exists."""
        self.scheduler.opened(self)

    def answer(self, message: Reply | SystemReply) -> None:
        """Hand a task's outcome to its references."""
        if isinstance(message, Reply):
            self._settle(message.number, message.parcels)
            self.scheduler.answered(self, message)
            return
        call = self._systems.pop(message.number, None)
        if call is not None:
            call.finish(failed=message.failed, data=message.data)

    def _settle(self, number: int, parcels: Sequence[Parcel]) -> None:
        """See `Spares.settle`."""
        link, task = self.link, self.assigned.get(number)
        if link is not None:
            link.spares.settle(number, "" if task is None else task.function.name, parcels)

    def yielded(self, item: Item) -> None:
        """Hand an item to its stream."""
        task = self.assigned.get(item.number)
        end = None if task is None else task.refs[0]()
        if end is not None:
            end.add(int.from_bytes(item.position, "little"), item.parcels[0])

    def notice(self, message: Any) -> None:
        """Take note of what the process says of itself."""
        if isinstance(message, Skipped):
            self._settle(message.number, ())
            self.scheduler.skipped(self, message.number)
        elif isinstance(message, Want) and message.blocks:
            self.scheduler.waits(self)
        elif isinstance(message, GoesOn):
            self.scheduler.goes_on(self)

    def post(self, message: Any) -> None:
        """Send a message that is no task."""
        with self._sending:
            if self.link is not None:
                self.link.send(message)

    def flush(self) -> None:
        """Go on sending what the socket did not take."""
        with self._sending:
            if self.link is not None:
                self.link.flush()

    def stop_at_once(self, word: int) -> None:
        """Have the process end without serving what it has been sent."""
        with self._sending:
            if self.link is not None:
                self.link.stop_at_once(word)

    def are_left(self) -> bool:
        """See `Calls.are_left`: the scheduler decides where tasks run again."""
        return False

    def end(self) -> None:
        """Have the process end after what it has been sent."""
        self.post(Stop())

    def submit(self, message: System, call: SystemCall) -> None:
        """Send a function of this project's own; it waits for the tasks sent before."""
        self._systems[message.number] = call
        if self.death is None:
            self.post(message)
        else:
            self._fail_systems(self.death)

    def _fail_systems(self, death: ActorDiedError) -> None:
        while self._systems:
            self._systems.popitem()[1].fail(death)

    def fail(self, death: ActorDiedError) -> bool:
        """Note that it is dead; False if that is known."""
        if self.death is not None:
            return False
        self.death = death
        self._fail_systems(death)
        self.scheduler.died(self, death)
        return True
