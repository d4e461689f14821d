"""How graphs, sessions and drivers end: in order, in the middle, by Ctrl-C, by SIGKILL.

And compiles that end before they began: what they had is given back, and the actors stay usable.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import runtime
from compiled_dag import DAGContext, InputNode
from compiled_dag.errors import ActorDiedError, ChannelClosedError, GraphError
from tests import leaks
from tests.crew import Order, Worker, extremes, wait_for_file
from tests.live import (
    LONG_S,
    chain,
    driver,
    end_all,
    is_in_a_call,
    make,
    make_ranks,
    pids_of,
    reduce,
    wait_until,
    where,
)

pytestmark = pytest.mark.proc


@pytest.fixture
def short_teardown(monkeypatch):
    monkeypatch.setattr(DAGContext.get_current(), "teardown_timeout", 0.05)


# --- teardown -------------------------------------------------------------------------------------


def test_after_teardown_only_what_was_got_remains(session):
    crew = make(3)
    dag = chain(crew).experimental_compile()
    got, never = dag.execute(0), dag.execute(1)
    assert got.get(timeout=LONG_S) == 123
    for _ in range(2):
        dag.teardown()
    assert dag.is_teardown
    assert got.get() == 123
    for use in (lambda: never.get(timeout=LONG_S), lambda: dag.execute(2)):
        with pytest.raises(ChannelClosedError, match="torn down"):
            use()
    with chain(crew).experimental_compile() as again:
        assert again.execute(0).get(timeout=LONG_S) == 123


def test_results_outlive_teardown_and_shutdown(no_leaks):
    runtime.init()
    with chain(make(2)).experimental_compile() as dag:
        held = [dag.execute(np.full(1 << 17, float(n))).get(timeout=LONG_S) for n in range(4)]
    runtime.shutdown()
    gc.collect()
    assert extremes(held) == [(n * 100 + 12,) * 2 for n in range(4)]
    with pytest.raises(ValueError, match="read-only"):
        held[0][0] = 1


@pytest.mark.parametrize("at", [1, 2, 3], ids=["first", "middle", "last"])
def test_teardown_while_an_actor_is_in_user_code(session, short_teardown, tmp_path, at):
    crew = make(3)
    release = tmp_path / "release"
    dag = chain(crew).experimental_compile()
    refs = [dag.execute(Order(at, "wait", str(release))), dag.execute(1)]
    wait_until(lambda: "Worker.work" in where(dag)[f"Worker({at})"])
    with pytest.warns(RuntimeWarning, match=rf"Worker\({at}\) is still in user code"):
        dag.teardown()
    for ref in refs:
        with pytest.raises(ChannelClosedError):
            ref.get(timeout=LONG_S)
    release.touch()
    with chain(crew).experimental_compile() as again:
        assert again.execute(0).get(timeout=LONG_S) == 123


def test_teardown_of_a_stopped_actor_is_bounded(session, short_teardown):
    crew = make(2)
    pid = pids_of(crew)[1]
    dag = chain(crew).experimental_compile()
    os.kill(pid, signal.SIGSTOP)
    with pytest.warns(RuntimeWarning, match=r"Worker\(2\) does not answer: stopped by a signal"):
        dag.teardown()
    os.kill(pid, signal.SIGCONT)
    with chain(crew).experimental_compile() as again:
        assert again.execute(0).get(timeout=LONG_S) == 12


def test_teardown_that_kills_the_actors(session, short_teardown, tmp_path):
    crew, bystander = make(2), Worker.remote(9)
    pids = pids_of(crew)
    dag = chain(crew).experimental_compile()
    dag.execute(Order(2, "hold_gil"))
    wait_until(lambda: "Worker.work" in where(dag)["Worker(2)"])
    with pytest.warns(RuntimeWarning, match=r"Worker\(2\)"):
        dag.teardown(kill_actors=True)
    assert end_all(pids, LONG_S) == []
    with pytest.raises(ActorDiedError, match=r"runtime\.kill"):
        runtime.get(crew[0].pid.remote(), timeout=LONG_S)
    assert runtime.get(bystander.pid.remote(), timeout=LONG_S)


def test_teardown_from_another_thread_ends_a_blocked_get(session, tmp_path):
    crew = make(2)
    release = tmp_path / "release"
    dag = chain(crew).experimental_compile()
    ref = dag.execute(Order(2, "wait", str(release)))
    wait_until(lambda: "Worker.work" in where(dag)["Worker(2)"])
    thread = threading.Timer(0.1, dag.teardown)
    thread.start()
    with pytest.raises(ChannelClosedError):
        ref.get(timeout=LONG_S)
    release.touch()  # teardown waits for the method
    thread.join()
    assert runtime.get(crew[1].pid.remote(), timeout=LONG_S)


def test_teardown_from_several_threads_at_once(session):
    crew = make(3)
    for _ in range(5):
        dag = chain(crew).experimental_compile()
        refs = [dag.execute(n) for n in range(3)]
        threads = [threading.Thread(target=dag.teardown) for _ in range(4)]
        for thread in threads:
            thread.start()
        for ref in refs:  # got, or told: never hung
            try:
                assert ref.get(timeout=LONG_S) in (123, 1123, 2123)
            except ChannelClosedError:
                assert dag.is_teardown
        for thread in threads:
            thread.join()
        assert dag.is_teardown


def test_a_graph_that_is_dropped_is_torn_down(session):
    crew = make(2)
    files = runtime.get(crew[0].memory_files.remote(), timeout=LONG_S)
    dag = chain(crew).experimental_compile()
    assert dag.execute(0).get(timeout=LONG_S) == 12
    assert runtime.get(crew[0].memory_files.remote(), timeout=LONG_S) == files + 1
    del dag
    gc.collect()
    wait_until(
        lambda: runtime.get(crew[0].memory_files.remote(), timeout=LONG_S) == files,
    )


def test_shutdown_ends_graphs_that_are_up_and_busy(no_leaks, tmp_path):
    runtime.init()
    crew = make(3)
    pids_of(crew)
    dags = [chain(crew).experimental_compile() for _ in range(2)]
    ref = dags[0].execute(Order(2, "wait", str(tmp_path / "never")))
    runtime.shutdown()
    assert all(dag.is_teardown for dag in dags)
    with pytest.raises((ChannelClosedError, ActorDiedError)):
        ref.get(timeout=LONG_S)


# --- compiles that fail ---------------------------------------------------------------------------


@contextmanager
def nothing_left(crew):
    """Check that a block leaves the driver's and the actors' descriptors as they were."""
    pids_of(crew)
    files = runtime.get([worker.memory_files.remote() for worker in crew], timeout=LONG_S)
    before = leaks.snapshot()
    yield
    assert leaks.settle(before) == []
    after = runtime.get([worker.memory_files.remote() for worker in crew], timeout=LONG_S)
    assert after == files
    with chain(crew).experimental_compile() as dag:
        assert dag.execute(0).get(timeout=LONG_S) == 123


@contextmanager
def compile_timeout(seconds):
    context = DAGContext.get_current()
    before, context.compile_timeout = context.compile_timeout, seconds
    try:
        yield
    finally:
        context.compile_timeout = before


def test_a_compile_with_a_constructor_that_raises(session):
    @runtime.remote
    class Broken:
        def __init__(self):
            raise LookupError("no such thing")

        def work(self, value):
            return value

    crew = make(3)
    broken = Broken.remote()
    graph = chain([*crew[:2], broken, crew[2]])  # at once: a method of a dead actor is not bound
    with pytest.raises(ActorDiedError):
        runtime.get(broken.work.remote(1), timeout=LONG_S)
    with nothing_left(crew), pytest.raises(ActorDiedError, match="no such thing") as caught:
        graph.experimental_compile()
    assert isinstance(caught.value.cause, LookupError)


def test_a_compile_that_waits_for_a_constructor_that_raises(session, tmp_path):
    @runtime.remote
    class Broken:
        def __init__(self, path):
            wait_for_file(path)
            raise LookupError("no such thing")

        def work(self, value):
            return value

    crew = make(2)
    broken = Broken.remote(str(tmp_path / "release"))
    thread = threading.Timer(0.1, (tmp_path / "release").touch)
    thread.start()
    with pytest.raises(ActorDiedError, match="no such thing"):
        chain([*crew, broken]).experimental_compile()
    thread.join()
    with chain(crew).experimental_compile() as dag:
        assert dag.execute(0).get(timeout=LONG_S) == 12


@pytest.mark.parametrize("at", [0, 1, 2], ids=["first", "middle", "last"])
def test_a_compile_with_a_dead_actor(session, at):
    crew = make(3)
    graph = chain(crew)
    pid = pids_of(crew)[at]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ActorDiedError, match="SIGKILL"):
        runtime.get(crew[at].pid.remote(), timeout=LONG_S)
    before = leaks.snapshot()
    with pytest.raises(ActorDiedError, match=rf"Worker\({at + 1}\)"):
        graph.experimental_compile()
    with pytest.raises(RuntimeError, match=rf"Worker\({at + 1}\).*SIGKILL"):
        chain(crew)
    assert leaks.settle(before) == []


@pytest.mark.parametrize("collective", [False, True])
def test_a_compile_with_a_busy_actor(session, tmp_path, collective):
    crew = make_ranks(3) if collective else make(3)
    graph = reduce(crew) if collective else chain(crew)
    message = (
        r"\(2\)[^:]* did not join" if collective else r"\(2\).*compile_timeout=0.3.*in the call"
    )
    release = tmp_path / "release"
    with nothing_left(crew):
        call = crew[1].wait.remote(str(release))
        wait_until(lambda: is_in_a_call(crew[1]))
        with compile_timeout(0.3), pytest.raises(GraphError, match=message) as caught:
            graph.experimental_compile()
        assert "in wait_for_file" in str(caught.value)
        del caught
        release.touch()
        runtime.get(call, timeout=LONG_S)
    with graph.experimental_compile() as dag:
        expected = [12.0] * 3 if collective else 123
        result = dag.execute(0)
        assert (runtime.get(result, timeout=LONG_S)) == expected


def test_a_compile_with_a_constant_that_cannot_be_sent(session):
    crew = make(3)
    message = r"argument 1 of .*Worker\.both"
    with nothing_left(crew), InputNode() as inp, pytest.raises(TypeError, match=message) as caught:
        crew[0].both.bind(inp, threading.Lock())
    del caught


def test_too_few_descriptors_at_compile():
    """Every descriptor may be the one that is missing: each time, all is given back."""
    with driver("""
import resource
crew = make(2)
pids_of(crew)
chain(crew).experimental_compile().teardown()
listing = lambda: sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in range(3, 1000)
                         if os.path.lexists(f"/proc/self/fd/{fd}"))
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
await_zygotes()
before = listing()
for spare in range(100):
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for fd in taken[:spare]:
        os.close(fd)
    try:
        dag = chain(crew).experimental_compile()
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        dag = None
    for fd in taken[spare:]:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if dag is not None:
        assert dag.execute(0).get(timeout=60) == 12
        dag.teardown()
        break
    print(spare, problem, flush=True)
    del problem
    assert listing() == before, (spare, before, listing())
    with chain(crew).experimental_compile() as dag:
        assert dag.execute(0).get(timeout=60) == 12
    dag = None
print("done", flush=True)
""") as started:
        lines = []
        while (line := started.line()) != "done":
            lines.append(line)
        assert started.wait() == 0, started.errors
        assert lines
        assert all("open files" in line or "file descriptors left" in line for line in lines), lines


def test_a_file_size_limit_at_compile():
    with driver("""
import resource
crew = make(2)
pids_of(crew)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
files = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
try:
    chain(crew).experimental_compile()
except Exception as error:
    print(type(error).__name__, error, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert len(os.listdir("/proc/self/fd")) == files
with chain(crew).experimental_compile() as dag:
    print(dag.execute(0).get(), flush=True)
""") as started:
        assert started.line().startswith("MemoryCapError ")
        assert started.line() == "12"
        assert started.wait() == 0, started.errors
        assert "ulimit -f" in started.output


# --- drivers --------------------------------------------------------------------------------------


def test_the_end_of_a_script_that_tears_nothing_down(tmp_path):
    with driver(f"""
crew = make(3)
print(*pids_of(crew), flush=True)
dag = chain(crew).experimental_compile()
refs = [dag.execute(0), dag.execute(Order(2, "wait", {str(tmp_path / "never")!r})), dag.execute(1)]
print(refs[0].get(), flush=True)
""") as started:
        pids = [int(pid) for pid in started.line().split()]
        assert started.line() == "123"
        assert started.wait() == 0
        assert started.errors == ""
        assert end_all(pids, LONG_S) == []


def test_the_end_of_a_script_that_raises(tmp_path):
    with driver("""
crew = make(2)
print(*pids_of(crew), flush=True)
dag = chain(crew).experimental_compile()
dag.execute(Order(1, "raise")).get()
""") as started:
        pids = [int(pid) for pid in started.line().split()]
        assert started.wait() == 1
        assert "actor 1 was told to" in started.errors
        assert "(Worker pid=" not in started.errors
        assert end_all(pids, LONG_S) == []


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_a_driver_that_is_killed_in_an_execution(signal_, tmp_path):
    """Of the four actors one holds the GIL in C, one sleeps, one is stopped, one waits."""
    with driver(f"""
crew = make(4)
pids = pids_of(crew)
graphs = [chain([worker]).experimental_compile() for worker in crew]
both = chain(crew[:2]).experimental_compile()
orders = [Order(1, "hold_gil"), Order(2, "wait", {str(tmp_path / "never")!r}), Order(3, "stop"), 5]
refs = [graph.execute(order) for graph, order in zip(graphs, orders)]
both.execute(1)
assert refs[3].get() == 54
print(*pids, *runtime.lifecycle.current().zygotes.pids(), flush=True)
signal.pause()
""") as started:
        pids = [int(pid) for pid in started.line().split()]
        assert len(pids) >= 5
        wait_until(lambda: state_of(pids[2]) == "T")
        os.kill(started.pid, signal_)
        assert end_all(pids, LONG_S) == []


def state_of(pid):
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat[stat.rindex(")") + 2]


# --- Ctrl-C ---------------------------------------------------------------------------------------

BEFORE = """
path = sys.argv[1]
crew = make(2)
pids_of(crew)
dag = chain(crew).experimental_compile(_max_inflight_executions=1, _capacity_policy="block",
                                       _submit_timeout=-1, _get_timeout=60)
assert dag.execute(0).get() == 12
def memory_files():
    links = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3, 200)
             if os.path.lexists(f"/proc/self/fd/{fd}")]
    return sum("memfd:" in link for link in links)
def blocked():
    ref = dag.execute(Order(2, "wait", path))
    wait_until(lambda: "execution 1: is in Worker.work" in where(dag)["Worker(2)"])
    return ref
def interrupted(use):
    print("ready", flush=True)
    try:
        use()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    open(path, "w").close()
"""

BLOCKED = {
    "get": ("ref = blocked()", "ref.get()", "assert ref.get() == 'wait'"),
    "get_many": (
        "ref = blocked()",
        "runtime.get([ref])",
        "assert runtime.get([ref]) == ['wait']",
    ),
    "execute": ("ref = blocked()", "dag.execute(1)", "assert ref.get() == 'wait'"),
    "compile": (
        "crew[1].wait.remote(path)",
        "chain(crew).experimental_compile()",
        "",
    ),
    "compile_constructor": (
        "crew[1] = Worker.remote(2, path)",
        "chain(crew).experimental_compile()",
        "",
    ),
    "teardown": (
        "ref = blocked()",
        "dag.teardown()",
        "assert memory_files() == 1; dag.teardown(); dag = chain(crew).experimental_compile()",
    ),
    "remote": ("ref = crew[1].wait.remote(path)", "runtime.get(ref)", "runtime.get(ref)"),
}


@pytest.mark.parametrize("what", BLOCKED)
def test_ctrl_c_is_caught_and_everything_goes_on(what, tmp_path):
    prepare, use, after = BLOCKED[what]
    body = f"""{BEFORE}
{prepare}
interrupted(lambda: {use})
{after}
assert dag.execute(3).get() == 312
if "compile" in {what!r}:
    dag = chain(crew).experimental_compile()
    assert dag.execute(4).get() == 412
print("went on", flush=True)
"""
    with driver(body, str(tmp_path / "release")) as started:
        started.goes_on_after_an_interrupt()
        started.ends_well()


@pytest.mark.parametrize("what", ["get", "teardown"])
def test_ctrl_c_that_nobody_catches_ends_the_script(what, tmp_path):
    prepare, use, _ = BLOCKED[what]
    body = f"{BEFORE}\n{prepare}\nprint(*pids_of(crew[:1]), flush=True)\n{use}"
    with driver(body, str(tmp_path / "never")) as started:
        pids = [int(pid) for pid in started.line().split()]
        started.wait_until_asleep()
        started.interrupt()
        assert started.wait() in (130, -signal.SIGINT)
        assert started.errors.rstrip().endswith("KeyboardInterrupt")
        assert started.errors.count("Traceback") == 1, started.errors
        assert "(Worker pid=" not in started.errors
        assert end_all(pids, LONG_S) == []


UNCAUGHT = {
    "get": "ref.get(-1)",
    "call": "runtime.get(crew[1].wait.remote(path))",
    "graph": "with dag: ref.get(-1)",
    "session": "with runtime.init(ignore_reinit_error=True): ref.get(-1)",
}


@pytest.mark.parametrize("what", UNCAUGHT)
def test_after_ctrl_c_nobody_waits_for_who_is_in_user_code(what, tmp_path):
    """With the grace of an ordinary end this would take an hour, and the test would fail."""
    body = f"""{BEFORE}
runtime.session._GRACE_S = DAGContext.get_current().teardown_timeout = 3600
ref = blocked()
print(*pids_of(crew[:1]), flush=True)
{UNCAUGHT[what]}
"""
    with driver(body, str(tmp_path / "never")) as started:
        pids = [int(pid) for pid in started.line().split()]
        started.wait_until_asleep()
        started.interrupt()
        assert started.wait() == -signal.SIGINT
        assert started.errors.rstrip().endswith("KeyboardInterrupt")
        assert started.errors.count("Traceback") == 1, started.errors
        assert end_all(pids, LONG_S) == []


def test_a_second_ctrl_c_ends_the_wait_for_actors_at_exit(tmp_path):
    """The wait is made an hour long; as it is, it would be over before it is interrupted."""
    body = f"""{BEFORE}
runtime.session._HURRIED_S = 3600
pids = pids_of(crew)
blocked()
print(*pids, flush=True)
dag.teardown()
"""
    with driver(body, str(tmp_path / "never")) as started:
        pids = [int(pid) for pid in started.line().split()]
        started.wait_until_asleep()
        started.interrupt()
        wait_until(lambda: "KeyboardInterrupt" in started.errors)
        started.wait_until_asleep()
        started.interrupt()
        assert started.wait() != 0
        assert started.errors.count("Traceback") == 1, started.errors
        assert end_all(pids, LONG_S) == []
        assert "(Worker pid=" not in started.errors
