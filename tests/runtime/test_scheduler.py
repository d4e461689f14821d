"""The scheduler without processes: lanes, leases, stealing, taking back, Dekker's argument."""

from __future__ import annotations

import queue
import random
import threading
from collections import deque
from types import SimpleNamespace

import pytest

from compiled_dag.errors import ActorDiedError, WorkerCrashedError
from compiled_dag.shm.board import REVOKED, Board
from runtime.arguments import pack_arguments
from runtime.events import EventLog
from runtime.gpus import GpuPool
from runtime.interruption import Interruption
from runtime.messages import Call, GoesOn, Skipped, Want
from runtime.options import TaskOptions
from runtime.parcel import Parcel
from runtime.pool import NOTHING_REVOKED, PoolWorker
from runtime.resources import Demand, Ledger
from runtime.scheduler import Scheduler
from runtime.spare import Spares
from runtime.store import Function
from runtime.task_service import TaskService
from runtime.warm import WarmMemory

RAN: list[int] = []
"""Arguments of the tasks that ran, in order."""


def note(value):
    RAN.append(value)
    return value


def refuse(value):
    RAN.append(value)
    raise ValueError(value)


def no_spares() -> Spares:
    return Spares(WarmMemory(lambda _call: None, lambda _delay, _call: None))


class FakeProcess:
    """A worker's process as a queue in this one; the test decides when it does something."""

    def __init__(self, board: Board, line: int, worker: PoolWorker) -> None:
        self.line = line
        self.pid = 1000 + line
        self.inbox: deque[Call] = deque()
        self.stopping = False
        self.spares = no_spares()
        self._service = TaskService(board, line, Interruption(board, line), refuse)
        self._worker = worker

    def send(self, message: Call) -> None:
        """Take a message, as the link does."""
        self.inbox.append(message)

    def end_after_calls(self) -> None:
        self.stopping = True

    def step(self) -> bool:
        """Do one task; returns False if there is none."""
        if not self.inbox:
            return False
        message = self._service.run(self.inbox.popleft(), cancelled=False)
        if isinstance(message, Skipped):
            self._worker.notice(message)
        else:
            self._worker.answer(message)
        return True

    def begin(self) -> Call:
        """Claim the next task and stay in it."""
        call = self.inbox.popleft()
        self._service._words[self._service._claimed] = call.number
        return call

    def finish(self, call: Call) -> None:
        self._worker.answer(self._service.run(call, cancelled=False))


class FakeSession:
    """What a scheduler asks of its session."""

    def __init__(self, num_cpus: float, **others: float) -> None:
        self._segment = Board.create()
        self.board = Board(self._segment.fd)
        self.warnings: list[str] = []
        self.placement = SimpleNamespace(
            ledger=Ledger(num_cpus, GpuPool(0), others),
            start_waiting=lambda: None,
            warn_for_ever=lambda who, missing: self.warnings.append(f"{who}: {missing}"),
            warn_about_devices=lambda _count: None,
        )
        self.num_reclaims = 0
        self.events = EventLog()
        self.workers: list[PoolWorker] = []
        self.scheduler = Scheduler(self)  # type: ignore[arg-type]

    def begin_reclaim(self) -> None:
        """Note that garbage should be looked through."""
        self.num_reclaims += 1

    def start_worker(self, worker: PoolWorker, _options: object, _grant: object) -> None:
        line = len(self.workers) + 1
        self.board.words[self.board.word_index(line, REVOKED)] = NOTHING_REVOKED
        worker.process = FakeProcess(self.board, line, worker)  # type: ignore[assignment]
        self.workers.append(worker)

    def open(self, worker: PoolWorker) -> None:
        """Let a worker's process be born."""
        worker.connect(worker.process)  # type: ignore[arg-type]
        worker.open()

    def open_all(self) -> None:
        for worker in self.workers:
            if not worker.up:
                self.open(worker)

    def run(self) -> None:
        """Let all processes work, in turn, until nothing is left to do."""
        self.open_all()
        busy = True
        while busy:
            live = [worker for worker in self.workers if worker.death is None]
            steps = [worker.process.step() for worker in live]
            busy = any(steps)
            self.open_all()

    def die(self, worker: PoolWorker) -> None:
        worker.process.inbox.clear()
        worker.fail(ActorDiedError("killed"))

    def close(self) -> None:
        self._segment.close()


@pytest.fixture
def make():
    made = []

    def make_session(num_cpus=1, **others):
        RAN.clear()
        made.append(FakeSession(num_cpus, **others))
        return made[-1]

    yield make_session
    for session in made:
        session.close()


_functions = {
    function: Function(number, function.__name__, Parcel.of(function))
    for number, function in enumerate((note, refuse), 1)
}


def submit(session, value, function=note, needed=(), **options):
    """Submit a task; returns its reference."""
    parcel, _ = pack_arguments((value,), {})
    made = TaskOptions().updated(options, decorator=True)
    (ref,) = session.scheduler.submit(_functions[function], made, parcel, needed, (None,))
    return ref


def free(session):
    return session.placement.ledger.available()["CPU"]


# --- who runs what --------------------------------------------------------------------------------


def test_one_worker_per_cpu_and_tasks_in_order(make):
    session = make(2)
    refs = [submit(session, value) for value in range(40)]
    assert len(session.workers) == 2
    assert free(session) == 0
    session.run()
    assert [ref.value() for ref in refs] == list(range(40))
    assert sorted(RAN) == list(range(40))
    assert len(session.workers) == 2
    assert free(session) == 2


def test_idle_workers_are_used_again(make):
    session = make(1)
    for value in range(5):
        ref = submit(session, value)
        session.run()
        assert ref.value() == value
    assert len(session.workers) == 1


@pytest.mark.parametrize("num_warm", [0, 1, 2, 3])
def test_every_cpu_has_a_task_before_one_waits_behind_another(make, num_warm):
    session = make(4)
    for value in range(num_warm):
        submit(session, value)
    session.run()
    for value in range(8):
        submit(session, value)
    session.open_all()
    assert free(session) == 0
    assert min(len(worker.assigned) for worker in session.workers) >= 1
    assert len(session.workers) == 4


def test_what_waits_is_found_behind_whom_it_waits(make):
    session = make(3)
    for value in range(3):
        submit(session, value)
    session.open_all()
    submit(session, 3)
    submit(session, 4)
    ahead = max(session.workers, key=lambda worker: len(worker.assigned))
    behind, idle = [worker for worker in session.workers if worker is not ahead]
    behind.send(*ahead.take_back(2))
    for worker in (ahead, ahead, behind):  # the first has begun its last, and not said so yet
        worker.process.begin()
    assert [len(worker.assigned) for worker in (ahead, behind, idle)] == [2, 2, 1]
    assert [worker.num_behind() for worker in (ahead, behind, idle)] == [0, 1, 0]
    idle.process.step()
    assert [len(worker.assigned) for worker in (ahead, behind, idle)] == [2, 1, 1]


def test_kinds_have_workers_of_their_own_and_take_turns(make):
    session = make(1)
    refs = [submit(session, value, num_cpus=1 if value % 2 else 0.5) for value in range(20)]
    session.run()
    assert [ref.value() for ref in refs] == list(range(20))
    assert free(session) == 1


def test_an_older_task_of_another_kind_gets_the_resources(make):
    session = make(1)
    submit(session, "first")
    session.open_all()
    submit(session, "other kind", num_cpus=0.5)
    for value in range(50):
        submit(session, value)
    session.run()
    assert RAN[0] == "first"
    assert RAN.index("other kind") < 20


def test_too_large_a_task_is_reported_once_and_waits(make):
    session = make(1)
    refs = [submit(session, value, num_cpus=2) for value in range(3)]
    session.run()
    assert session.warnings == ["task note: CPU: 2 of 1"]
    assert not any(ref.done for ref in refs)
    (lane,) = session.scheduler._leases.lanes
    assert [task.name for _, task in lane.queue] == ["note"] * 3


def test_garbage_is_looked_through_when_tasks_wait_for_what_no_task_has(make):
    session = make(1, seat=1)
    held = session.placement.ledger.take(Demand.of(0, 0, {"seat": 1}))
    ref = submit(session, 1, resources={"seat": 1})
    session.run()
    assert session.num_reclaims
    assert session.scheduler.is_starved
    session.placement.ledger.give_back(held)
    session.scheduler.kick()
    session.run()
    assert ref.value() == 1
    assert not session.scheduler.is_starved


def test_few_processes_are_started_at_once_and_the_others_of_any_kind_follow(make):
    session = make(20)
    for value in range(30):
        submit(session, value)
    other = submit(session, "other", num_cpus=0.5)
    assert len(session.workers) == 8
    calls = []
    for _ in range(5):  # the first ones never end
        for worker in [worker for worker in session.workers if not worker.up]:
            session.open(worker)
            calls.append(worker.process.inbox)
    assert len(session.workers) >= 20
    assert any(call.method.endswith(b"note") for inbox in calls for call in inbox)
    session.run()
    assert other.value() == "other"


def test_a_new_worker_takes_half_of_what_waits_behind_another(make):
    session = make(2)
    blocker = submit(session, "held", num_cpus=1.5)
    (first,) = session.workers
    session.open_all()
    held = first.process.begin()
    refs = [submit(session, value, num_cpus=0.5) for value in range(9)]
    session.open_all()
    second = session.workers[1]
    second_call = second.process.begin()
    assert len(second.assigned) == 9
    first.process.finish(held)
    assert blocker.done
    session.open_all()
    for worker in session.workers:
        while worker is not second and worker.process.step():
            pass
    assert len(RAN) > 4, "the others are not left behind the one that runs"
    second.process.finish(second_call)
    session.run()
    assert [ref.value() for ref in refs] == list(range(9))
    assert sorted(RAN[1:]) == list(range(9)), "none twice"


# --- waiting --------------------------------------------------------------------------------------


def test_what_waits_behind_a_waiting_task_goes_elsewhere(make):
    session = make(1)
    refs = [submit(session, value) for value in range(5)]
    session.open_all()
    (worker,) = session.workers
    call = worker.process.begin()
    worker.notice(Want(numbers=[], blocks=True))
    assert free(session) == 0, "lent to another worker"
    assert len(session.workers) == 2
    session.open_all()
    while session.workers[1].process.step():
        pass
    assert [ref.done for ref in refs] == [False, True, True, True, True]
    worker.notice(GoesOn())
    worker.process.finish(call)
    session.run()
    assert sorted(RAN) == list(range(5))
    assert free(session) == 1


def test_a_task_that_only_asks_lends_nothing(make):
    session = make(1)
    submit(session, 0)
    submit(session, 1)
    session.open_all()
    (worker,) = session.workers
    call = worker.process.begin()
    worker.notice(Want(numbers=[], blocks=False))
    assert not worker.waits
    assert len(session.workers) == 1
    worker.process.finish(call)
    session.run()
    assert RAN == [0, 1]


def test_taking_back_twice(make):
    session = make(1)
    refs = [submit(session, value) for value in range(10)]
    session.open_all()
    (worker,) = session.workers
    call = worker.process.begin()
    with session.scheduler._lock:
        later = worker.take_back(6)
        assert len(later) == 4
        session.scheduler._leases.requeue(worker.lane, later)
    worker.notice(Want(numbers=[], blocks=True))
    assert list(worker.assigned) == [call.number]
    assert len(worker.revoked) == 9
    worker.notice(GoesOn())
    worker.process.finish(call)
    session.run()
    assert sorted(RAN) == list(range(10))
    assert all(ref.done for ref in refs)
    assert not worker.revoked


def test_waiting_tasks_without_cpus_do_not_use_up_the_workers(make):
    session = make(1)
    for value in range(30):
        submit(session, value, num_cpus=0)
        session.open_all()
        waiting = [worker for worker in session.workers if worker.process.inbox]
        for worker in waiting:
            worker.process.begin()
            worker.notice(Want(numbers=[], blocks=True))
    assert len(session.workers) == 30


# --- ends -----------------------------------------------------------------------------------------


def test_the_tasks_of_a_dead_worker_run_elsewhere(make):
    session = make(1)
    refs = [submit(session, value, max_retries=1) for value in range(6)]
    session.open_all()
    (worker,) = session.workers
    worker.process.begin()
    session.die(worker)
    session.run()
    assert [ref.value() for ref in refs] == list(range(6))
    assert free(session) == 1


def test_only_what_had_begun_uses_up_its_retries(make):
    session = make(1)
    refs = [submit(session, value, max_retries=0) for value in range(6)]
    session.open_all()
    (worker,) = session.workers
    worker.process.begin()
    session.die(worker)
    session.run()
    with pytest.raises(WorkerCrashedError, match="killed"):
        refs[0].value()
    assert [ref.value() for ref in refs[1:]] == list(range(1, 6))


def test_a_worker_that_cannot_be_started_fails_its_tasks(make):
    session = make(1)

    def refuse_to_start(worker, _options, _grant):
        worker.process = FakeProcess(session.board, 1, worker)
        worker.fail(ActorDiedError("no process"))

    session.start_worker, start = refuse_to_start, session.start_worker
    ref = submit(session, 1)
    with pytest.raises(WorkerCrashedError, match="no process"):
        ref.value()
    assert free(session) == 1
    session.start_worker = start
    ref = submit(session, 2)
    session.run()
    assert ref.value() == 2


@pytest.mark.parametrize("most", [1, 2])
def test_max_calls(make, most):
    session = make(2)
    refs = [submit(session, value, max_calls=most) for value in range(8)]
    session.run()
    assert all(ref.done for ref in refs)
    assert len(session.workers) == 8 // most
    assert all(worker.process.stopping for worker in session.workers)
    assert free(session) == 2


def test_retries_of_exceptions(make):
    session = make(1)
    ref = submit(session, 1, refuse, retry_exceptions=[ValueError], max_retries=2)
    other = submit(session, 2, refuse, retry_exceptions=[KeyError], max_retries=2)
    session.run()
    assert ref.failed
    assert other.failed
    assert RAN.count(1) == 3
    assert RAN.count(2) == 1


def test_nothing_is_started_once_the_session_ends(make):
    session = make(1)
    refs = [submit(session, value) for value in range(40)]
    session.open_all()
    (worker,) = session.workers
    worker.process.begin()
    session.scheduler.close(WorkerCrashedError("the end"))
    session.die(worker)
    refs.append(submit(session, 41))
    for ref in refs:
        with pytest.raises(WorkerCrashedError):
            ref.value()
    assert len(session.workers) == 1


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_every_task_ends_once(make, seed):
    chance = random.Random(seed)
    session = make(chance.choice([1, 2, 3]), x=1)
    refs, inside = [], {}
    for value in range(400):
        action = chance.random()
        if action < 0.45:
            options = chance.choice([{}, {}, {"num_cpus": 0.5}, {"resources": {"x": 1}}])
            refs.append((value, submit(session, value, max_retries=-1, **options)))
        elif action < 0.55:
            session.open_all()
        elif action < 0.58:
            live = [worker for worker in session.workers if worker.up and worker.death is None]
            if live:
                victim = chance.choice(live)
                inside.pop(victim, None)
                session.die(victim)
        else:
            _advance(chance, session, inside)
    for worker, (call, waits) in inside.items():
        if waits:
            worker.notice(GoesOn())
        worker.process.finish(call)
    session.run()
    assert [ref.value() for _, ref in refs] == [value for value, _ in refs]
    assert session.placement.ledger.available() == session.placement.ledger.totals()
    assert not any(worker.revoked or worker.assigned for worker in alive(session))


def alive(session):
    return [worker for worker in session.workers if worker.death is None]


def _advance(chance, session, inside):
    """Let one worker do something: run a task, begin one, wait in one, end it."""
    able = [worker for worker in alive(session) if worker.up]
    if not able:
        return
    worker = chance.choice(able)
    if worker not in inside:
        if chance.random() < 0.6:
            worker.process.step()
        elif worker.process.inbox and worker.process.inbox[0].number in worker.assigned:
            inside[worker] = worker.process.begin(), False
        return
    call, waits = inside[worker]
    if waits:
        worker.notice(GoesOn())
        inside[worker] = call, False
    elif chance.random() < 0.5:
        worker.notice(Want(numbers=[], blocks=True))
        inside[worker] = call, True
    else:
        del inside[worker]
        worker.process.finish(call)


# --- Dekker's argument ----------------------------------------------------------------------------


def test_no_task_runs_twice_or_never_while_one_thread_works_and_one_takes_back(make):
    """One thread is the worker, this one the driver, which takes back whatever it can."""
    session = make(1)
    total, chance = 3000, random.Random(1)
    calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
    answers: queue.SimpleQueue = queue.SimpleQueue()
    tasks = {}
    worker = PoolWorker(session.scheduler, session.board, None)
    session.start_worker(worker, None, None)
    worker.up = True
    worker.connect(SimpleNamespace(send=calls.put, spares=no_spares()))
    line = worker.process.line
    service = TaskService(session.board, line, Interruption(session.board, line), refuse)

    def work():
        while (call := calls.get()) is not None:
            answers.put(service.run(call, cancelled=False))

    thread = threading.Thread(target=work)
    thread.start()
    waiting = deque(_task(session, value) for value in range(total))
    num_taken = num_both = 0
    try:
        while len(tasks) < total:
            while waiting and worker.takes_more and len(worker.assigned) < 8:
                worker.send(waiting.popleft())
            if worker.assigned and chance.random() < 0.3:
                taken = worker.take_back(chance.randrange(len(worker.assigned)))
                num_taken += len(taken)
                waiting.extendleft(reversed(taken))
            while not answers.empty() or not worker.takes_more or len(worker.assigned) >= 8:
                message = answers.get(timeout=30)
                if isinstance(message, Skipped):
                    again = worker.passed_over(message.number)
                    if again is not None:
                        num_both += 1
                        waiting.appendleft(again)
                else:
                    task = worker.assigned.pop(message.number)
                    tasks[task.args] = message
            if not waiting and worker.assigned and answers.empty():
                answers.put(answers.get(timeout=30))
    finally:
        calls.put(None)
        thread.join()
    assert sorted(RAN) == list(range(total))
    assert num_taken


def _task(session, value):
    from runtime.task import Task

    parcel, _ = pack_arguments((value,), {})
    return Task(session, _functions[note], TaskOptions(), parcel, ())
