"""What code can learn about where it runs."""

from __future__ import annotations

import asyncio

import pytest

import runtime

pytestmark = pytest.mark.proc


@runtime.remote
class Asker:
    """Answers with what its runtime context says."""

    def __init__(self):
        self.born_in = runtime.get_runtime_context().get_task_name()

    def ids(self):
        return ids()

    def facts(self):
        context = runtime.get_runtime_context()
        return (
            context.get_actor_name(),
            context.namespace,
            context.was_current_actor_reconstructed,
            dict(context.runtime_env),
            context.get_assigned_resources(),
            context.get_accelerator_ids(),
            self.born_in,
        )

    def itself(self):
        return runtime.get_runtime_context().current_actor

    def twice(self, value):
        return 2 * value


@runtime.remote
class Async:
    """Runs two calls at once."""

    def __init__(self):
        self.both = asyncio.Event()
        self.count = 0

    async def ids(self):
        before = ids()
        self.count += 1
        if self.count == 2:
            self.both.set()
        await self.both.wait()
        return before, ids()


def ids():
    context = runtime.get_runtime_context()
    return {
        "task": context.get_task_id(),
        "name": context.get_task_name(),
        "actor": context.get_actor_id(),
        "worker": context.get_worker_id(),
        "job": context.get_job_id(),
        "node": context.get_node_id(),
    }


def test_in_the_driver(session):
    context = runtime.get_runtime_context()
    found = ids()
    assert found["task"] is found["name"] is found["actor"] is None
    assert int(found["worker"], 16) > 0
    assert context.get_actor_name() is None
    assert context.get_assigned_resources() == {}
    assert context.get_accelerator_ids() == {"GPU": []}
    assert context.get_placement_group_id() is None
    assert context.get_node_labels() == {}
    assert "driver" in repr(context)
    with pytest.raises(RuntimeError, match="the driver"):
        _ = context.current_actor
    with pytest.raises(RuntimeError, match="none runs here"):
        context.is_canceled()


def test_the_driver_starts_a_session_and_knows_its_namespace(no_leaks):
    try:
        runtime.get_runtime_context()
        assert runtime.is_initialized()
    finally:
        runtime.shutdown()
    env = {"env_vars": {"SOME": "thing"}}
    with runtime.init(namespace="garden", runtime_env=env):
        context = runtime.get_runtime_context()
        assert (context.namespace, context.runtime_env) == ("garden", env)


def test_in_an_actor(no_leaks):
    with runtime.init(num_cpus=2, resources={"salt": 3}, namespace="garden"):
        env = {"env_vars": {"SOME": "thing"}}
        options = {"num_cpus": 0.5, "resources": {"salt": 2}, "runtime_env": env}
        asker = Asker.options(name="eve", **options).remote()
        assert runtime.get(asker.facts.remote()) == (
            "eve",
            "garden",
            False,
            env,
            {"CPU": 0.5, "salt": 2},
            {"GPU": []},
            "Asker.__init__",
        )
        assert runtime.get(Asker.remote().facts.remote())[0] == ""
        del asker


def test_each_call_has_an_id_and_a_name(session):
    first, second = Asker.remote(), Asker.remote()
    found = runtime.get([first.ids.remote(), first.ids.remote(), second.ids.remote()])
    assert [entry["name"] for entry in found] == ["Asker.ids"] * 3
    assert len({entry["task"] for entry in found}) == 3
    assert found[0]["actor"] == found[1]["actor"] != found[2]["actor"]
    assert found[0]["worker"] != found[2]["worker"] != ids()["worker"]
    assert found[0]["node"] == ids()["node"]
    assert found[0]["job"] == ids()["job"]


def test_calls_that_run_at_once_do_not_mix(session):
    asker = Async.remote()
    pairs = runtime.get([asker.ids.remote(), asker.ids.remote()])
    assert all(before == after for before, after in pairs)
    assert pairs[0][0]["task"] != pairs[1][0]["task"]
    threaded = Asker.options(max_concurrency=2).remote()
    assert runtime.get(threaded.ids.remote())["name"] == "Asker.ids"


def test_an_actor_can_hand_itself_out(session):
    asker = Asker.remote()
    other = runtime.get(asker.itself.remote())
    assert other == asker
    assert runtime.get(other.twice.remote(4)) == 8


def test_an_actor_knows_that_it_was_made_again(session):
    asker = Asker.options(max_restarts=1, max_task_retries=1).remote()
    assert runtime.get(asker.facts.remote())[2] is False
    runtime.kill(asker, no_restart=False)
    assert runtime.get(asker.facts.remote())[2] is True


def test_in_a_task(no_leaks):
    with runtime.init(num_cpus=2, num_gpus=2):
        with pytest.warns(UserWarning, match="fake|shared"):
            found, resources, accelerators = runtime.get(_task.remote())
        assert (found["name"], found["actor"]) == ("_task", None)
        assert resources == {"CPU": 0.5, "GPU": 1}
        assert len(accelerators["GPU"]) == 1
        ref = _small.options(name="mine").remote()
        found, kind, name = runtime.get(ref)
        assert found["name"] == "mine"
        assert found["task"].endswith(ref.hex())
        assert (kind, name) == ("RuntimeError", None)


@runtime.remote(num_cpus=0.5, num_gpus=1)
def _task():
    context = runtime.get_runtime_context()
    return ids(), context.get_assigned_resources(), context.get_accelerator_ids()


@runtime.remote
def _small():
    context = runtime.get_runtime_context()
    try:
        _ = context.current_actor
    except RuntimeError as error:
        return ids(), type(error).__name__, context.get_actor_name()
