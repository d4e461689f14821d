"""The state API: what there is, what has happened, what waits for what."""

from __future__ import annotations

import pickle

import pytest

import runtime
from runtime import processes
from runtime.events import EventLog
from runtime.exceptions import ActorDiedError
from runtime.util import state
from tests.live import wait_until
from tests.runtime.actors import Worker

proc = pytest.mark.proc


@runtime.remote
def double(value):
    return 2 * value


@runtime.remote
def fail():
    raise ValueError("boom")


@runtime.remote
def look(kind):
    return getattr(state, f"list_{kind}")()


@runtime.remote
def sums():
    return state.summary()


def test_the_event_log_is_bounded_and_keeps_first_lines():
    log = EventLog()
    for number in range(1500):
        log.add("TASK_FAILED", f"task {number}", message="why\nand where")
    rows = log.rows()
    assert len(rows) == 1000
    assert (rows[-1].event_id, rows[-1].name, rows[-1].message) == (1500, "task 1499", "why")
    assert pickle.loads(pickle.dumps(rows[0])) == rows[0]


@pytest.mark.parametrize(
    ("filters", "text"),
    [
        ([("stat", "=", "ALIVE")], "no field 'stat'; there are actor_id, .*state"),
        ([("state", "<", "ALIVE")], "'<'"),
        (["state=ALIVE"], "a filter is"),
    ],
)
def test_wrong_filters_are_refused_before_anything_starts(filters, text):
    with pytest.raises(ValueError, match=text):
        state.list_actors(filters=filters)
    with pytest.raises(ValueError, match="limit=0"):
        state.list_tasks(limit=0)
    assert not runtime.is_initialized()


@proc
def test_actors_are_listed_dead_or_alive(session):
    first, second = Worker.options(name="eve").remote(), Worker.remote()
    pid = runtime.get([first.pid.remote(), second.pid.remote()])[0]
    runtime.kill(second)
    eve, other = state.list_actors()
    assert (eve.name, eve.class_name, eve.state, eve.pid) == ("eve", "Worker", "ALIVE", pid)
    assert (eve.death_cause, eve.waits_for, eve.is_detached) == ("", "", False)
    assert other.state == "DEAD"
    assert "kill" in other.death_cause
    assert state.list_actors(filters=[("state", "=", "ALIVE"), ("pid", "=", pid)]) == [eve]
    assert state.list_actors(filters=[("name", "!=", "eve")]) == [other]
    assert state.list_actors(limit=1, detail=True) == [eve]
    assert state.summarize_actors() == {"Worker": {"ALIVE": 1, "DEAD": 1}}


@proc
def test_of_the_dead_the_last_are_remembered(session, monkeypatch):
    monkeypatch.setattr(processes, "MOST_BURIED", 2)
    actors = [Worker.remote() for _ in range(4)]
    for actor in actors:
        runtime.get(actor.pid.remote())
        runtime.kill(actor)
        with pytest.raises(ActorDiedError):
            runtime.get(actor.pid.remote())
    table = runtime.lifecycle.current().processes
    wait_until(lambda: len(list(table)) == 2)
    assert [one.state for one in state.list_actors()] == ["DEAD"] * 2
    with pytest.raises(ActorDiedError, match="kill"):  # whoever has a handle is told why
        runtime.get(actors[0].pid.remote())


@proc
def test_what_waits_says_for_what(no_leaks):
    with runtime.init(num_cpus=1):
        first = Worker.options(num_cpus=1).remote()
        runtime.get(first.echo.remote(1))
        second = Worker.options(num_cpus=1).remote()
        ref = double.options(num_cpus=0.5).remote(1)
        after = double.remote(ref)
        _, waiting = state.list_actors()
        assert (waiting.state, waiting.pid) == ("PENDING_CREATION", 0)
        assert waiting.required_resources == {"CPU": 1}
        assert "needs CPU: 1; free are {'CPU': 0.0}" in waiting.waits_for
        task, last = state.list_tasks(filters=[("type", "=", "NORMAL_TASK")])
        assert (task.state, task.required_resources) == ("PENDING_NODE_ASSIGNMENT", {"CPU": 0.5})
        assert "CPU: 0.5" in task.waits_for
        assert last.state == "PENDING_ARGS_AVAIL"
        assert "arguments" in last.waits_for
        runtime.kill(first)
        runtime.kill(second)
        assert runtime.get(after) == 4


@proc
def test_tasks_and_calls_are_listed(session, tmp_path):
    gate = tmp_path / "gate"
    worker = Worker.remote()
    runtime.get(worker.echo.remote(1))
    calls = [worker.wait_for_file.remote(str(gate)), worker.echo.remote(2)]
    done, failed = double.options(name="mine").remote(2), fail.remote()
    runtime.wait([done, failed], num_returns=2)
    rows = {row.name: row for row in state.list_tasks()}
    assert rows["mine"].state == "FINISHED"
    assert (rows["mine"].func_or_class_name, rows["mine"].type) == ("double", "NORMAL_TASK")
    assert rows["fail"].state == "FAILED"
    call = rows["Worker.echo"]
    assert (call.state, call.type) == ("SUBMITTED_TO_WORKER", "ACTOR_TASK")
    assert call.actor_id == state.list_actors()[0].actor_id
    assert rows["Worker.wait_for_file"].state in ("SUBMITTED_TO_WORKER", "RUNNING")
    gate.touch()
    runtime.get(calls)
    assert state.list_tasks(filters=[("type", "=", "ACTOR_TASK")]) == []
    assert state.summarize_tasks()["fail"] == {"FAILED": 1}


@proc
def test_a_task_has_the_id_that_it_sees(session):
    @runtime.remote
    def own_id():
        return runtime.get_runtime_context().get_task_id()

    ref = own_id.remote()
    assert [row.task_id for row in state.list_tasks()] == [runtime.get(ref)]


@proc
def test_objects_and_functions_are_listed(session):
    kept = runtime.put(b"x" * 1000)
    result, failed = double.remote(1), fail.remote()
    runtime.wait([result, failed], num_returns=2)
    rows = {row.object_id: row for row in state.list_objects()}
    assert rows[kept.hex()].object_size >= 1000
    assert rows[result.hex()].task_status == "FINISHED"
    assert rows[failed.hex()].task_status == "FAILED"
    assert {row.name for row in state.list_functions()} == {"double", "fail"}
    assert state.summarize_objects()["put(bytes)"] == {"FINISHED": 1}
    del rows


@proc
def test_proxies_that_happen_to_be_there_are_left_alone(session):
    class Proxy:
        @property
        def __class__(self):
            raise AssertionError("looked at")

    there = Proxy()
    assert state.list_objects() == []
    del there


@proc
def test_it_works_in_tasks(session):
    worker = Worker.remote()
    runtime.get(worker.echo.remote(1))
    assert [row.state for row in runtime.get(look.remote("actors"))] == ["ALIVE"]
    assert runtime.get(look.remote("events"))[0].kind == "SESSION_STARTED"
    found = runtime.get(sums.remote())
    assert found["actors"] == {"Worker": {"ALIVE": 1}}
    assert found["tasks"]["sums"]["RUNNING"] == 1
    assert found["resources"]["total"] == runtime.cluster_resources()


@proc
def test_events_tell_what_has_happened(session):
    worker = Worker.remote()
    pid = runtime.get(worker.pid.remote())
    with pytest.raises(ActorDiedError):
        runtime.get(worker.exit_hard.remote(3))
    with pytest.raises(ValueError, match="boom"):
        runtime.get(fail.remote())
    other = Worker.remote()
    runtime.get(other.echo.remote(1))
    runtime.kill(other)
    events = state.list_events()
    assert events[0].kind == "SESSION_STARTED"
    started = next(event for event in events if event.pid == pid)
    assert (started.kind, started.name) == ("PROCESS_STARTED", "Worker(1)")
    ended = state.list_events(filters=[("kind", "=", "PROCESS_ENDED"), ("pid", "=", pid)])
    assert "exited with code 3" in ended[0].message
    assert [e.name for e in events if e.kind == "TASK_FAILED"] == ["fail"]
    assert [e.kind for e in state.list_events(limit=1, filters=[("name", "=", "Worker(1)")])] == [
        "PROCESS_ENDED"
    ]
    assert any(event.kind == "ACTOR_KILLED" for event in events)


@proc
def test_there_is_one_node(no_leaks):
    with runtime.init(num_cpus=3, resources={"salt": 2}):
        (node,) = runtime.nodes()
        assert node["Alive"]
        assert node["Resources"] == {"CPU": 3, "salt": 2}
        assert node["NodeID"] == runtime.get_runtime_context().get_node_id()
