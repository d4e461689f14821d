"""Remote classes, handles and methods: mistakes are refused where they are made."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest

import runtime
from runtime.exceptions import ActorClassInheritanceError, ActorHandleNotFoundError
from tests.runtime.actors import Worker, wait_until_dead

proc = pytest.mark.proc


def test_a_remote_class_cannot_be_called_or_inherited_from():
    with pytest.raises(TypeError, match=r"Worker\.remote"):
        Worker()
    with pytest.raises(ActorClassInheritanceError):

        class Derived(Worker):
            pass


@pytest.mark.parametrize("target", [1, "text", None])
def test_remote_takes_classes(target):
    with pytest.raises(TypeError):
        runtime.remote(target)


def test_remote_with_options_and_target_is_refused():
    with pytest.raises(AssertionError):
        runtime.remote(Worker, num_cpus=1)
    assert runtime.method()(test_remote_with_options_and_target_is_refused) is not None
    with pytest.raises(AssertionError, match="no option of a method. Known: num_returns"):
        runtime.method(surprise=1)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"num_cpu": 1}, ValueError, "Known: .*num_cpus"),
        ({"num_cpus": "1"}, TypeError, "num_cpus"),
        ({"num_cpus": -1}, ValueError, "num_cpus"),
        ({"num_gpus": 0.00001}, ValueError, "num_gpus"),
        ({"num_gpus": 1.5}, ValueError, "whole number"),
        ({"gpu_visibility": "all"}, ValueError, "assigned_first"),
        ({"gpu_visibility": "assigned_only"}, ValueError, "num_gpus"),
        ({"runtime_env": 1}, TypeError, "dict"),
        ({"runtime_env": {"env_vars": {"A": 1}}}, TypeError, "env_vars"),
        ({"max_concurrency": 0}, ValueError, "max_concurrency"),
        ({"name": ""}, ValueError, "name"),
        ({"name": 1}, TypeError, "name"),
        ({"get_if_exists": True}, ValueError, "needs a name"),
        ({"resources": {"GPU": 1}}, ValueError, "num_gpus"),
        ({"resources": {"tpu": -1}}, ValueError, "tpu"),
        ({"lifetime": "long"}, ValueError, "detached"),
        ({"concurrency_groups": {"io": 1}}, ValueError, "@remote"),
    ],
)
def test_options_are_checked_before_anything_starts(options, kind, text):
    with pytest.raises(kind, match=text):
        Worker.options(**options)


def test_options_as_usual_are_accepted():
    Worker.options(max_restarts=0, max_concurrency=1, name=None, lifetime=None)


@proc
def test_unknown_methods_name_the_nearest(session):
    worker = Worker.remote()
    with pytest.raises(AttributeError, match=r"Worker has no method 'ech'.*'echo'"):
        worker.ech.remote(1)


@proc
def test_a_direct_call_says_how_to_do_it(session):
    with pytest.raises(TypeError, match=r"\.echo\.remote"):
        Worker.remote().echo(1)


@proc
@pytest.mark.parametrize("verb", ["remote", "bind"])
def test_wrong_arguments_show_the_signature_without_self(session, verb):
    worker = Worker.remote()
    with pytest.raises(TypeError, match=r"Worker\.echo\(value\) does not take \(int, int\)"):
        getattr(worker.echo, verb)(1, 2)
    with pytest.raises(TypeError, match=r"Worker\.add\(amount, \*, times=1\)"):
        getattr(worker.add, verb)(1, tims=2)


@proc
def test_wrong_constructor_arguments(session):
    with pytest.raises(TypeError, match=r"Worker\.__init__\(start: .*int.* = 0\)"):
        Worker.remote(1, 2)


@proc
def test_handles_are_equal_by_actor(session):
    worker, other = Worker.remote(), Worker.remote()
    same = copy.copy(worker)
    assert worker == same
    assert worker != other
    assert len({worker, same, other}) == 2


@proc
def test_handles_and_references_may_be_pickled_in_their_session(session):
    worker = Worker.remote()
    assert pickle.loads(pickle.dumps(worker)) == worker
    ref = runtime.put(1)
    assert runtime.get(pickle.loads(pickle.dumps(ref))) == 1
    assert runtime.get(worker.echo.remote(worker)) == worker


@proc
def test_an_actor_ends_after_its_calls_when_its_last_handle_goes(session):
    worker = Worker.remote()
    pid = runtime.get(worker.pid.remote())
    method = worker.add
    refs = [worker.add.remote(1) for _ in range(100)]
    del worker
    gc.collect()
    assert runtime.get(method.remote(1)) == 101  # a bound method holds the handle
    del method
    gc.collect()
    assert runtime.get(refs) == list(range(1, 101))
    assert wait_until_dead([pid]) == []


@proc
def test_the_last_call_of_a_temporary_handle_is_served(session):
    assert runtime.get(Worker.remote().sleep.remote(0.05)) == 0.05


@proc
def test_kill_takes_handles_of_this_session():
    with runtime.init():
        worker = Worker.remote()
        with pytest.raises(ValueError, match=r"handle, not ObjectRef.*runtime\.cancel"):
            runtime.kill(worker.echo.remote(1))
    with runtime.init():
        with pytest.raises(ActorHandleNotFoundError):
            runtime.kill(worker)
        with pytest.raises(runtime.exceptions.ActorDiedError, match="session ended"):
            runtime.get(worker.echo.remote(1))


@proc
def test_a_users_method_may_have_any_name(session):
    @runtime.remote
    class Odd:
        def label(self):
            return "label"

        def host(self):
            return "host"

        def actor_id(self):
            return "actor_id"

    odd = Odd.remote()
    assert runtime.get([odd.label.remote(), odd.host.remote(), odd.actor_id.remote()]) == [
        "label",
        "host",
        "actor_id",
    ]
