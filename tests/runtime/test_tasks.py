"""Tasks: arguments, results, options, errors, dependencies, retries, deaths."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import signal
import threading
import time
from pathlib import Path

import pytest

import runtime
from compiled_dag.errors import (
    ActorDiedError,
    DeserializationError,
    GetTimeoutError,
    TaskError,
    WorkerCrashedError,
)
from tests.crew import wait_for_file
from tests.live import LONG_S, driver, in_fork, wait_until
from tests.runtime.actors import Worker, wait_until_dead

pytestmark = pytest.mark.proc


@runtime.remote
def add(left, right=1, *, factor=1):
    return (left + right) * factor


@runtime.remote
def kinds(*args, **kwargs):
    return [type(arg).__name__ for arg in args], {k: type(v).__name__ for k, v in kwargs.items()}


@runtime.remote
def fail(error, *_needed):
    raise error


@runtime.remote
def pid(*_needed):
    return os.getpid()


@runtime.remote
def values(count):
    return list(range(count))


@runtime.remote
def record(folder, value):
    """Leave a file per run; returns how many there are."""
    (Path(folder) / f"{value}-{time.monotonic_ns()}").touch()
    return num_runs(folder)


@runtime.remote
def die(folder, lives):
    """Kill the worker in all runs but the last of `lives`."""
    (Path(folder) / str(time.monotonic_ns())).touch()
    if num_runs(folder) < lives:
        os.kill(os.getpid(), signal.SIGKILL)
    return num_runs(folder)


@runtime.remote
def pid_once_there(path):
    wait_for_file(path)
    return os.getpid()


def num_runs(folder):
    return len(list(Path(folder).iterdir()))


def get(refs):
    return runtime.get(refs, timeout=LONG_S)


# --- arguments and results ------------------------------------------------------------------------


def test_arguments_and_result(session):
    assert get(add.remote(1)) == 2
    assert get(add.remote(1, right=2, factor=3)) == 9
    assert get(add.remote("a", right="b")) == "ab"


def test_a_reference_among_the_arguments_arrives_as_its_value(session):
    two = add.remote(1)
    assert get(add.remote(two, right=two, factor=runtime.put(10))) == 40


def test_a_reference_inside_an_argument_arrives_as_a_reference(session):
    ref = runtime.put(1)
    args, kwargs = get(kinds.remote(ref, [ref], key=ref, other={"x": ref}))
    assert args == ["int", "list"]
    assert kwargs == {"key": "int", "other": "dict"}

    @runtime.remote
    def inside(refs):
        return [type(ref).__name__ for ref in refs], runtime.get(refs)

    names, found = get(inside.remote([ref, add.remote(ref)]))
    assert found == [1, 2]
    assert all("Ref" in name for name in names)


def test_numbers_of_returns(session):
    assert values.options(num_returns=0).remote(0) is None
    ref = values.options(num_returns=1).remote(2)
    assert get(ref) == [0, 1]
    refs = values.options(num_returns=3).remote(3)
    assert get(refs) == [0, 1, 2]


@pytest.mark.parametrize("count", [0, 2, 4])
def test_a_wrong_number_of_returns(session, count):
    for ref in values.options(num_returns=3).remote(count):
        with pytest.raises(ValueError, match=f"3 values.*{count} values"):
            get(ref)


def test_one_value_where_several_were_promised(session):
    for ref in add.options(num_returns=2).remote(1):
        with pytest.raises(ValueError, match=r"2 values.*int"):
            get(ref)


def test_hundreds_of_large_arguments_and_results(session):
    np = pytest.importorskip("numpy")

    @runtime.remote
    def total(*arrays):
        return sum(array.size for array in arrays)

    @runtime.remote(num_returns=600)
    def many():
        return [np.full(200_000, index, "u2") for index in range(600)]

    refs = [runtime.put(np.zeros(200_000, "u1")) for _ in range(600)]
    assert get(total.remote(*refs)) == 600 * 200_000
    assert [array[0] for array in get(many.remote())] == list(range(600))


# --- what is refused at once ----------------------------------------------------------------------


def test_a_remote_function_is_not_called_directly():
    with pytest.raises(TypeError, match=r"add\.remote"):
        add(1)
    assert add.__wrapped__(1) == 2


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"oops": 1})])
def test_arguments_that_do_not_fit(args, kwargs):
    with pytest.raises(TypeError, match="add"):
        add.remote(*args, **kwargs)


def test_what_can_be_remote():
    async def coroutine():
        pass

    with pytest.raises(TypeError, match="int"):
        runtime.remote(3)
    with pytest.raises(TypeError, match="already"):
        runtime.remote(add)
    with pytest.raises(ValueError, match="actor"):
        runtime.remote(coroutine)
    with pytest.raises(AssertionError):
        runtime.remote(lambda: 1, num_cpus=1)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"num_cpu": 1}, ValueError, "num_cpus"),
        ({"num_cpus": -1}, ValueError, "num_cpus"),
        ({"num_cpus": "1"}, TypeError, "num_cpus"),
        ({"num_cpus": True}, TypeError, "num_cpus"),
        ({"num_cpus": 0.00001}, ValueError, "0.0001"),
        ({"num_cpus": float("nan")}, ValueError, "num_cpus"),
        ({"num_gpus": 1.5}, ValueError, "whole"),
        ({"resources": {"GPU": 1}}, ValueError, "num_gpus"),
        ({"resources": {"CPU": 1}}, ValueError, "num_cpus"),
        ({"resources": {"x": -1}}, ValueError, "x"),
        ({"resources": [1]}, TypeError, "dict"),
        ({"num_returns": -1}, ValueError, "num_returns"),
        ({"num_returns": "two"}, TypeError, "num_returns"),
        ({"max_retries": -2}, ValueError, "max_retries"),
        ({"max_retries": 1.0}, TypeError, "max_retries"),
        ({"max_calls": 1}, ValueError, "max_calls"),
        ({"retry_exceptions": 1}, TypeError, "retry_exceptions"),
        ({"retry_exceptions": [int]}, TypeError, "int"),
        ({"name": 1}, TypeError, "name"),
        ({"name": ""}, ValueError, "name"),
        ({"runtime_env": {"env_vars": {"A": 1}}}, TypeError, "env_vars"),
        ({"gpu_visibility": "assigned_only"}, ValueError, "num_gpus"),
        ({"lifetime": "detached"}, ValueError, "lifetime"),
    ],
)
def test_options_are_checked_when_they_are_given(options, kind, text):
    with pytest.raises(kind, match=text):
        add.options(**options)
    assert not runtime.is_initialized()


def test_options_leave_the_function_itself_alone(session):
    named = add.options(name="plus", num_returns=1, max_retries=0)
    assert get(named.remote(1)) == 2
    assert named.__name__ == "add"
    with pytest.raises(TypeError, match="plus"):
        get(add.options(name="plus").remote("a", 1))
    with pytest.raises(TypeError, match="task add"):
        get(add.remote("a", 1))


# --- errors ---------------------------------------------------------------------------------------


def test_an_exception_comes_back_as_itself(session):
    with pytest.raises(KeyError) as caught:
        get(fail.remote(KeyError("missing")))
    assert isinstance(caught.value, TaskError)
    assert "missing" in str(caught.value)
    assert "raise error" in str(caught.value), "the remote traceback"
    assert get(add.remote(1)) == 2


class AwkwardError(Exception):
    """Cannot be pickled once it holds a lock."""

    def __init__(self, text, lock):
        super().__init__(text)
        self.lock = lock


def test_an_exception_that_cannot_be_pickled_comes_as_text(session):
    @runtime.remote
    def awkward():
        raise AwkwardError("stuck", threading.Lock())

    with pytest.raises(TaskError, match=r"AwkwardError: .*stuck"):
        get(awkward.remote())


def test_an_exception_that_cannot_be_rebuilt_comes_as_text(session):
    class FussyError(Exception):
        def __init__(self, one, two):
            super().__init__(one)

    @runtime.remote
    def fussy():
        raise FussyError("first", "second")

    with pytest.raises(TaskError, match=r"FussyError: first"):
        get(fussy.remote())


def test_a_result_that_cannot_be_pickled(session):
    @runtime.remote
    def lock():
        return threading.Lock()

    with pytest.raises(TypeError, match="lock"):
        get(lock.remote())


class OnlyThere:
    """Unpickles in another process only."""

    def __init__(self):
        self.home = os.getpid()

    def __reduce__(self):
        return _rebuild, (self.home,)


def _rebuild(home):
    if os.getpid() != home:
        raise RuntimeError("far from home")
    return OnlyThere()


@runtime.remote
def make_stranger():
    return OnlyThere()


def test_a_value_that_cannot_be_unpickled(session):
    made = make_stranger.remote()
    for _ in range(2):
        with pytest.raises(DeserializationError, match="far from home"):
            get(made)
    with pytest.raises(RuntimeError, match="far from home"):
        get(add.remote(OnlyThere()))
    assert get(add.remote(1)) == 2


def test_a_function_that_cannot_be_unpickled_says_so_every_time(session):
    stubborn = OnlyThere()
    for ref in [runtime.remote(lambda: stubborn).remote() for _ in range(2)]:
        with pytest.raises(RuntimeError, match="far from home"):
            get(ref)
    function = runtime.remote(lambda: stubborn)
    for ref in [function.remote() for _ in range(40)]:
        with pytest.raises(RuntimeError, match="far from home"):
            get(ref)
    assert get(add.remote(1)) == 2


def test_what_cannot_be_sent_is_named(session):
    with pytest.raises(TypeError, match="argument 1"):
        add.remote(1, threading.Lock())
    with pytest.raises(TypeError, match="argument 'factor'"):
        add.remote(1, factor=threading.Lock())
    lock = threading.Lock()
    with pytest.raises(TypeError, match="lock"):
        runtime.remote(lambda: lock).remote()
    assert get(add.remote(1)) == 2


# --- dependencies ---------------------------------------------------------------------------------


def test_a_chain_of_a_thousand(session):
    ref = add.remote(0)
    for _ in range(1000):
        ref = add.remote(ref)
    assert get(ref) == 1001


def test_a_chain_of_a_thousand_fails_from_end_to_end(session, tmp_path):
    path = tmp_path / "go"

    @runtime.remote
    def late():
        wait_for_file(path)
        raise ValueError("at the start")

    ref = late.remote()
    refs = [ref := add.remote(ref) for _ in range(1000)]
    path.touch()
    for ref in (refs[-1], refs[0], add.remote(refs[-1])):
        with pytest.raises(ValueError, match="at the start"):
            get(ref)


def test_a_chain_through_actors_fails_from_end_to_end(session):
    workers = [Worker.remote() for _ in range(2)]
    ref = workers[0].fail.remote("first")
    for step in range(600):
        ref = workers[step % 2].echo.remote(ref)
    with pytest.raises(ValueError, match="first"):
        get(ref)


def test_a_diamond(session):
    top = add.remote(1)
    left, right = add.remote(top, 10), add.remote(top, 100)
    assert get(add.remote(left, right)) == 114


def test_a_task_whose_argument_failed_does_not_run(session, tmp_path):
    bad = fail.remote(ValueError("no"))
    ref = record.remote(str(tmp_path), bad)
    with pytest.raises(ValueError, match="no"):
        get(ref)
    assert num_runs(tmp_path) == 0


def test_tasks_and_actors_feed_each_other(session):
    worker = Worker.remote(1)
    ref = worker.add.remote(add.remote(1))
    assert get(add.remote(ref)) == 4
    with pytest.raises(ValueError, match="boom"):
        get(add.remote(worker.fail.remote()))
    with pytest.raises(ValueError, match="task"):
        get(worker.echo.remote(fail.remote(ValueError("task"))))


def test_ten_thousand_tasks(session):
    refs = [add.remote(index) for index in range(10_000)]
    assert get(refs) == list(range(1, 10_001))


def test_tasks_from_several_threads(session):
    found = []

    def use(start):
        refs = [add.remote(start + index) for index in range(300)]
        found.append(get(refs) == [start + index + 1 for index in range(300)])

    threads = [threading.Thread(target=use, args=(1000 * index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8


def test_a_function_that_several_threads_use_first(session):
    for _ in range(10):
        large = os.urandom(1 << 20)
        function = runtime.remote(lambda: len(large))  # noqa: B023
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(get(function.remote())))  # noqa: B023
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [1 << 20] * 4


def test_wait_with_tasks(session, tmp_path):
    path = tmp_path / "go"
    slow, quick = pid_once_there.remote(str(path)), add.remote(1)
    assert runtime.wait([slow, quick], timeout=LONG_S) == ([quick], [slow])
    assert runtime.wait([slow], timeout=0) == ([], [slow])
    with pytest.raises(GetTimeoutError, match=r"pid_once_there in worker process \d+"):
        runtime.get(slow, timeout=0)
    path.touch()
    ready, rest = runtime.wait([slow, quick], num_returns=2, timeout=LONG_S)
    assert (ready, rest) == ([slow, quick], [])


def test_an_error_is_raised_without_waiting_for_the_others(session, tmp_path):
    path = tmp_path / "go"
    slow = pid_once_there.remote(str(path))
    with pytest.raises(ValueError, match="early"):
        get([slow, fail.remote(ValueError("early"))])
    path.touch()
    get(slow)


# --- functions ------------------------------------------------------------------------------------


def test_closures_over_values_references_and_handles(session):
    worker, ref, number = Worker.remote(5), runtime.put(7), 1

    @runtime.remote
    def use():
        return number + runtime.get(ref) + runtime.get(worker.add.remote(0))

    assert get(use.remote()) == 13


def test_remote_functions_inside_values_and_functions(session):
    @runtime.remote
    def apply(functions, value):
        for function in functions:
            value = runtime.get(function.remote(value))
        return value

    @runtime.remote
    def give():
        return add

    assert get(apply.remote([add, add.options(name="other")], 1)) == 3
    assert get(get(give.remote()).remote(1)) == 2


def test_a_recursive_function(session):
    @runtime.remote
    def factorial(number):
        return 1 if number < 2 else number * runtime.get(factorial.remote(number - 1))

    assert get(factorial.remote(6)) == 720


def test_functions_of_main_and_their_successors():
    body = """
class Mine(Exception):
    pass

@runtime.remote
def f(): return 1
print(runtime.get(f.remote()))

@runtime.remote
def f(): return helper()
def helper(): return 2
print(runtime.get(f.remote()))

@runtime.remote
def g(): raise Mine("own class")
try: runtime.get(g.remote())
except Mine as error: print(type(error.cause) is Mine)

@runtime.remote
def outer():
    return runtime.get(g.options(max_retries=1, retry_exceptions=[Mine]).remote())
try: runtime.get(outer.remote())
except Mine: print("through two")

def twice(n): return 2 * n
print(runtime.get(runtime.remote(twice).remote(21)))
runtime.shutdown()
print(runtime.get(f.remote()), "in the next session")
"""
    with driver(body) as started:
        expected = ["1", "2", "True", "through two", "42", "2 in the next session"]
        assert [started.line() for _ in expected] == expected
        assert started.wait() == 0
    assert started.errors == ""


def test_a_function_that_arrived_in_an_ended_session_says_so(no_leaks):
    @runtime.remote
    def give():
        return add

    with runtime.init():
        arrived = get(give.remote())
        assert get(arrived.remote(1)) == 2
    with runtime.init(), pytest.raises(RuntimeError, match="session"):
        arrived.remote(1)


# --- deaths and retries ---------------------------------------------------------------------------


@pytest.mark.parametrize("max_retries", [3, -1])
def test_a_task_whose_worker_is_killed_runs_again(session, tmp_path, max_retries):
    assert get(die.options(max_retries=max_retries).remote(str(tmp_path), 3)) == 3


@pytest.mark.parametrize("max_retries", [0, 2])
def test_retries_come_to_an_end(session, tmp_path, max_retries):
    with pytest.raises(WorkerCrashedError, match="SIGKILL"):
        get(die.options(max_retries=max_retries).remote(str(tmp_path), 100))
    assert num_runs(tmp_path) == max_retries + 1
    assert get(add.remote(1)) == 2


def test_a_worker_that_exits(session):
    @runtime.remote(max_retries=0)
    def leave():
        os._exit(3)

    with pytest.raises(WorkerCrashedError, match="code 3"):
        get(leave.remote())


@pytest.mark.parametrize("wanted", [True, [ValueError], [OSError, Exception]])
def test_exceptions_worth_another_attempt(session, tmp_path, wanted):
    @runtime.remote(retry_exceptions=wanted, max_retries=2)
    def third_time(folder):
        (Path(folder) / str(time.monotonic_ns())).touch()
        if num_runs(folder) < 3:
            raise ValueError("once more")
        return num_runs(folder)

    assert get(third_time.remote(str(tmp_path))) == 3


@pytest.mark.parametrize(("wanted", "runs"), [(False, 1), ([KeyError], 1), (True, 3)])
def test_exceptions_that_remain(session, tmp_path, wanted, runs):
    @runtime.remote(retry_exceptions=wanted, max_retries=2)
    def never(folder):
        (Path(folder) / str(time.monotonic_ns())).touch()
        raise ValueError("as always")

    with pytest.raises(ValueError, match="as always"):
        get(never.remote(str(tmp_path)))
    assert num_runs(tmp_path) == runs


@pytest.mark.parametrize("most", [1, 3])
def test_a_worker_ends_after_max_calls(session, most):
    @runtime.remote(max_calls=most)
    def own_pid():
        return os.getpid()

    pids = get([own_pid.remote() for _ in range(12)])
    assert max(pids.count(pid) for pid in pids) <= most
    assert not wait_until_dead([pid for pid in set(pids) if pids.count(pid) == most])
    assert get(add.remote(1)) == 2


def test_random_kills_while_short_tasks_run(session):
    chance = random.Random(7)
    refs = [pid.remote() for _ in range(2000)]
    kills = 0
    for position in range(100, 2000, 100):
        runtime.wait(refs, num_returns=position, timeout=LONG_S)
        alive = workers()
        for victim in chance.sample(alive, k=-(-len(alive) // 2)):
            with contextlib.suppress(ProcessLookupError):  # it was one too many, and has ended
                os.kill(victim, signal.SIGKILL)
                kills += 1
    for ref in refs:
        with contextlib.suppress(WorkerCrashedError):
            assert get(ref) > 0
    assert kills
    assert get([add.remote(index) for index in range(100)]) == list(range(1, 101))


def test_kills_of_workers_whose_tasks_wait(session):
    @runtime.remote(max_retries=-1)
    def tree(depth):
        return 1 if not depth else sum(runtime.get([tree.remote(depth - 1) for _ in range(2)]))

    ref = tree.remote(5)
    for _ in range(5):
        runtime.wait([ref], timeout=0.05)
        for victim in workers()[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
    assert runtime.get(ref, timeout=2 * LONG_S) == 32


def workers() -> list[int]:
    """Return the processes of the workers that are alive."""
    known = list(runtime.lifecycle.current().processes)
    return [p.pid for p in known if p.class_name == "worker" and p.pid and not p.gone]


def test_a_worker_killed_while_idle(session):
    for _ in range(5):
        first = get(pid.remote())
        os.kill(first, signal.SIGKILL)
        assert get(pid.options(max_retries=0).remote()) != first or not workers()


def test_an_actor_among_the_arguments_is_dead(session):
    worker = Worker.remote()
    runtime.kill(worker)
    with pytest.raises(ActorDiedError):
        get(add.remote(worker.echo.remote(1)))


# --- ends -----------------------------------------------------------------------------------------


def test_sessions_with_tasks_come_and_go(no_leaks):
    for _ in range(5):
        with runtime.init(num_cpus=2):
            refs = [add.remote(index) for index in range(50)]
            assert get(refs[-1]) == 50


def test_a_session_that_ends_with_tasks_in_all_states(no_leaks, tmp_path):
    @runtime.remote
    def nested():
        return runtime.get(pid_once_there.remote(str(tmp_path / "never")))

    with runtime.init(num_cpus=2):
        refs = [pid_once_there.remote(str(tmp_path / "never")) for _ in range(40)]
        refs += [add.remote(refs[0]), nested.remote()]
        with pytest.warns(UserWarning, match="x"):
            refs.append(add.options(resources={"x": 2}).remote(1))
        started = set(workers())
    assert not wait_until_dead(started)
    for ref in refs:
        with pytest.raises(WorkerCrashedError, match="session"):
            get(ref)


def test_a_session_ends_at_once_while_a_task_waits(no_leaks, tmp_path):
    @runtime.remote
    def nested(path):
        ref = pid_once_there.remote(path)
        (Path(path).parent / "waits").touch()
        return runtime.get(ref)

    with runtime.init(num_cpus=1):
        ref = nested.remote(str(tmp_path / "never"))
        wait_until((tmp_path / "waits").exists)
    with pytest.raises(WorkerCrashedError):
        get(ref)


def test_a_killed_driver_leaves_nobody(no_leaks):
    body = """
@runtime.remote
def spread(depth):
    print(os.getpid(), flush=True)
    if depth: runtime.get([spread.remote(depth - 1) for _ in range(2)])
    while True: time.sleep(1)
runtime.init(num_cpus=2, log_to_driver=False)
ref = spread.remote(2)
from runtime import lifecycle
session = lifecycle.current()
def pids(): return [a.pid for a in session.processes if a.pid]
wait_until(lambda: len(pids()) >= 3)
print(*pids(), *session.zygotes.pids(), flush=True)
time.sleep(1000)
"""
    with driver(body) as started:
        pids = [int(text) for text in started.line().split()]
        started.kill()
        assert not wait_until_dead(pids)


def test_ctrl_c_in_get_leaves_the_tasks_alone(tmp_path):
    body = """
from tests.crew import wait_for_file
@runtime.remote
def slow(path):
    wait_for_file(path)
    return 1
@runtime.remote
def quick(index): return index
runtime.init(num_cpus=2)
ref = slow.remote(sys.argv[1])
runtime.get(quick.remote(0))
try:
    print("ready", flush=True)
    runtime.get(ref)
except KeyboardInterrupt:
    open(sys.argv[1], "w").close()
    print("interrupted", runtime.get(ref), runtime.get(quick.remote(7)), flush=True)
"""
    with driver(body, str(tmp_path / "go")) as started:
        assert started.line() == "ready"
        started.wait_until_asleep()
        started.interrupt()
        assert started.line() == "interrupted 1 7"
        assert started.wait() == 0
    assert started.errors == ""


def test_ctrl_c_at_any_moment_loses_no_result():
    body = """
@runtime.remote
def quick(index): return index
runtime.init(num_cpus=2)
runtime.get(quick.remote(0))
main = threading.main_thread().ident
interrupted = 0
for round in range(30):
    refs = [quick.remote(index) for index in range(300)]
    timer = threading.Timer(0.0005 * round, signal.pthread_kill, (main, signal.SIGINT))
    try:
        timer.start()
        runtime.get(refs)
        timer.join()
        time.sleep(10)
    except KeyboardInterrupt:
        interrupted += 1
    timer.join()
    assert runtime.get(refs, timeout=60) == list(range(300))
print("done", interrupted, flush=True)
"""
    with driver(body) as started:
        assert started.line() == "done 30"
        assert started.wait() == 0


def test_a_forked_child_is_refused(session):
    ref = add.remote(1)
    get(ref)
    for use in (lambda: add.remote(1), lambda: get(runtime.put(1))):
        assert "RuntimeError" in in_fork(use)
    assert get(add.remote(ref)) == 3


def test_a_task_may_fork(session):
    @runtime.remote
    def fork():
        ref = runtime.put(1)
        child = os.fork()
        if not child:
            try:
                add.remote(1)
            except RuntimeError:
                del ref
                os._exit(7)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return code, runtime.get(ref), runtime.get(add.remote(1))

    assert get(fork.remote()) == (7, 1, 2)


def test_a_reference_outlives_pickling_by_hand_inside_the_session(session):
    ref = add.remote(1)
    data = pickle.dumps(ref)
    del ref
    assert get(pickle.loads(data)) == 2

    @runtime.remote
    def use(text):
        return runtime.get(pickle.loads(text))

    assert get(use.remote(data)) == 2


def test_a_task_whose_process_is_being_started_says_so(session):
    zygotes = runtime.lifecycle.current().zygotes
    wait_until(zygotes.pids)
    stopped = zygotes.pids()
    for zygote in stopped:
        os.kill(zygote, signal.SIGSTOP)
    try:
        ref = add.remote(1)
        with pytest.raises(GetTimeoutError, match=r"add waiting for a worker process that is bei"):
            runtime.get(ref, timeout=0)
    finally:
        for zygote in stopped:
            os.kill(zygote, signal.SIGCONT)
    assert runtime.get(ref, timeout=LONG_S) == 2
