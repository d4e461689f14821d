"""Calls, references, arguments and results."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import runtime
from runtime.exceptions import GetTimeoutError, TaskError
from tests.runtime.actors import Worker

pytestmark = pytest.mark.proc

MIB = 1 << 20


def test_a_call_runs_in_another_process_on_its_main_thread(session):
    import os

    worker = Worker.remote()
    assert runtime.get(worker.pid.remote()) != os.getpid()
    assert runtime.get(worker.main_thread.remote()) is True


def test_constructor_arguments_and_state(session):
    worker = Worker.remote(10)
    assert runtime.get([worker.add.remote(1), worker.add.remote(2, times=3)]) == [11, 17]


@pytest.mark.parametrize(
    "value", [None, 1, 2.5, "text", b"bytes", (1, [2, {"a": 3}]), 1 << 100, b"x" * MIB, "y" * MIB]
)
def test_values_come_back_equal(session, value):
    assert runtime.get(Worker.remote().echo.remote(value)) == value


@pytest.mark.parametrize("nbytes", [80, 8 * MIB])
def test_numpy_arrays_are_read_only_on_both_sides(session, nbytes):
    worker = Worker.remote()
    array = np.arange(nbytes // 8, dtype=np.int64)
    assert runtime.get(worker.writeable.remote(array)) is False
    back = runtime.get(worker.echo.remote(array))
    assert np.array_equal(back, array)
    with pytest.raises(ValueError, match="read-only"):
        back[0] = 1


def test_64_mib_go_in_and_out(session):
    worker = Worker.remote()
    array = np.ones(8 * MIB)
    assert runtime.get(worker.total.remote(array)) == 8 * MIB
    assert runtime.get(worker.echo.remote({"nested": [array]}))["nested"][0].sum() == 8 * MIB


def test_ten_thousand_calls_in_flight_keep_their_order(session):
    worker = Worker.remote()
    refs = [worker.add.remote(1) for _ in range(10_000)]
    assert runtime.get(refs) == list(range(1, 10_001))


def test_large_calls_in_both_directions_do_not_block_each_other(session):
    worker = Worker.remote()
    value = b"x" * 90_000
    refs = [worker.echo.remote(value) for _ in range(500)]
    assert all(back == value for back in runtime.get(refs))


def test_a_reference_arrives_as_its_value(session):
    first, second = Worker.remote(), Worker.remote()
    ref = second.echo.remote(first.echo.remote(5))
    assert runtime.get(ref) == 5
    assert runtime.get(first.add.remote(ref, times=runtime.put(2))) == 10


def test_a_large_reference_arrives_as_its_value(session):
    first, second = Worker.remote(), Worker.remote()
    array = np.ones(MIB)
    assert runtime.get(second.total.remote(first.echo.remote(array))) == MIB
    assert runtime.get(second.total.remote(runtime.put(array))) == MIB


def test_a_constructor_takes_references(session):
    slow = Worker.remote().sleep.remote(0.05)
    worker = Worker.remote(slow)
    assert runtime.get(worker.add.remote(1)) == 1.05


def test_later_calls_wait_behind_one_that_waits(session, tmp_path):
    gate = tmp_path / "gate"
    first, second = Worker.remote(), Worker.remote()
    held = first.wait_for_file.remote(str(gate))
    refs = [second.record.remote(held), second.record.remote("later")]
    assert runtime.wait(refs, timeout=0.1) == ([], refs)
    gate.touch()
    assert runtime.get(refs[1]) == [str(gate), "later"]


def test_a_failed_reference_fails_the_call_without_running_it(session):
    first, second = Worker.remote(), Worker.remote()
    ref = second.record.remote(first.fail.remote())
    with pytest.raises(ValueError, match="boom"):
        runtime.get(ref)
    assert runtime.get(second.record.remote("ran")) == ["ran"]


def test_a_reference_inside_a_container_arrives_as_a_reference(session):
    worker = Worker.remote()
    ref = worker.echo.remote(1)
    (back,) = runtime.get(worker.echo.remote([ref]))
    assert back == ref
    assert runtime.get(back) == 1


def test_errors_are_also_of_the_cause_and_show_the_remote_traceback(session):
    with pytest.raises(ValueError, match="boom") as caught:
        runtime.get(Worker.remote().fail.remote())
    assert isinstance(caught.value, TaskError)
    assert "Worker.fail" in str(caught.value)
    assert "raise ValueError(message)" in str(caught.value)


def test_an_unpicklable_result_is_a_task_error(session):
    worker = Worker.remote()
    with pytest.raises(TypeError, match="lock"):
        runtime.get(worker.lock.remote())
    assert runtime.get(worker.echo.remote(1)) == 1


def test_an_unpicklable_argument_is_refused_with_its_path(session):
    with pytest.raises(TypeError, match=r"\['key'\]"):
        Worker.remote().echo.remote({"key": threading.Lock()})


def test_several_returns(session):
    worker = Worker.remote()
    refs = worker.pair.options(num_returns=2).remote()
    assert runtime.get(refs) == [1, 2]
    assert worker.pair.options(num_returns=0).remote() is None
    with pytest.raises(ValueError, match=r"num_returns=3 asks for 3 values.*2 values"):
        runtime.get(worker.pair.options(num_returns=3).remote()[0])


def test_method_sets_the_number_of_returns(session):
    @runtime.remote
    class Pair:
        @runtime.method(num_returns=2)
        def both(self):
            return "a", "b"

    assert runtime.get(Pair.remote().both.remote()) == ["a", "b"]


def test_get_checks_its_argument(session):
    ref = runtime.put(1)
    assert runtime.get([]) == []
    with pytest.raises(ValueError, match="not int"):
        runtime.get(1)
    with pytest.raises(TypeError, match=r"item 1 .*str"):
        runtime.get([ref, "x"])
    for nested in ([[ref], [ref]], [ref, (ref,)]):
        with pytest.raises(TypeError, match=r"item \d is a .*Flatten it .*get each by itself"):
            runtime.get(nested)


def test_get_times_out_and_can_be_repeated(session, tmp_path):
    gate = tmp_path / "gate"
    ref = Worker.remote().wait_for_file.remote(str(gate))
    with pytest.raises(GetTimeoutError, match=r"Worker.wait_for_file on actor Worker\(1\)"):
        runtime.get(ref, timeout=0.1)
    with pytest.raises(TimeoutError):
        runtime.get(ref, timeout=0)
    gate.touch()
    assert runtime.get(ref, timeout=-1) == str(gate)


def test_get_of_a_list_raises_the_first_known_error_without_waiting(session, tmp_path):
    slow, fast = Worker.remote(), Worker.remote()
    held = slow.wait_for_file.remote(str(tmp_path / "never"))
    with pytest.raises(ValueError, match="boom"):
        runtime.get([held, fast.fail.remote()], timeout=60)
    runtime.kill(slow)


def test_get_says_what_may_be_meant_by_what_is_no_reference(session):
    actor = Worker.remote()
    for wrong, remedy in [
        ((actor.echo.remote(1),), r"not tuple: make it a list, get\(\[\*refs\]\)$"),
        ((actor.echo.remote(n) for n in range(2)), r"not generator: make it a list"),
        (actor, r"not ActorHandle: call a method of <actor Worker\(\d+\).*> *, handle\.method"),
        (
            actor.echo.bind(1),
            r"not ClassMethodNode: execute <ClassMethodNode Worker.echo bound .*>",
        ),
        (forgotten := unawaited(), r"not coroutine: await it first, ref = await graph\.execute_as"),
        (3, r"not int$"),
    ]:
        with pytest.raises(
            ValueError, match=rf"^get takes an ObjectRef or a list of them, {remedy}"
        ):
            runtime.get(wrong)
    forgotten.close()


async def unawaited():
    """Stand for `execute_async`."""


def test_a_method_of_a_remote_class_is_called_on_actors():
    with pytest.raises(
        AttributeError, match=r"Worker\.remote\(\.\.\.\)\.echo\.remote\(\.\.\.\), or"
    ):
        Worker.echo.bind(1)
    with pytest.raises(
        AttributeError, match=r"class Worker has no method 'ecko'; did you mean 'ec"
    ):
        Worker.ecko  # noqa: B018
    with pytest.raises(AttributeError, match=r"has no attribute '_methodes'"):
        Worker._methodes  # noqa: B018


def test_wait_splits_in_input_order(session, tmp_path):
    gate = tmp_path / "gate"
    slow, fast = Worker.remote(), Worker.remote()
    refs = [slow.wait_for_file.remote(str(gate)), fast.echo.remote(1), fast.fail.remote()]
    runtime.wait(refs, num_returns=2)
    ready, rest = runtime.wait(refs, num_returns=1)
    assert (ready, rest) == (refs[1:2], [refs[0], refs[2]])
    ready, rest = runtime.wait(refs, num_returns=3, timeout=0.05)
    assert (ready, rest) == (refs[1:], refs[:1])
    gate.touch()
    assert runtime.wait(refs, num_returns=3) == (refs, [])
    assert runtime.wait([]) == ([], [])


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"refs": "x"}, TypeError),
        ({"refs": [1]}, TypeError),
        ({"num_returns": 0}, ValueError),
        ({"num_returns": 3}, ValueError),
        ({"num_returns": True}, TypeError),
        ({"num_returns": 1.0}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"timeout": True}, TypeError),
        ({"twice": True}, ValueError),
    ],
)
def test_wait_checks_its_arguments(session, arguments, kind):
    one, two = runtime.put(1), runtime.put(2)
    arguments = dict(arguments)
    refs = arguments.pop("refs", [one, one] if arguments.pop("twice", False) else [one, two])
    with pytest.raises(kind):
        runtime.wait(refs, **arguments)


@pytest.mark.parametrize(
    ("timeout", "kind"),
    [(-2, ValueError), (float("nan"), ValueError), ("1", TypeError), (True, TypeError)],
)
def test_get_checks_its_timeout(session, timeout, kind):
    with pytest.raises(kind, match="timeout"):
        runtime.get(runtime.put(1), timeout=timeout)
    assert runtime.get(runtime.put(1), timeout=np.float32(1)) == 1


def test_put_checks_its_arguments(session):
    with pytest.raises(TypeError, match="reference already"):
        runtime.put(runtime.put(1))
    with pytest.raises(TypeError, match=r"value\.lock"):
        runtime.put(
            type("Holder", (), {"__init__": lambda s: setattr(s, "lock", threading.Lock())})()
        )
    with pytest.raises(ValueError, match="_owner"):
        runtime.put(1, _owner=object())
    with pytest.raises(NotImplementedError):
        runtime.put(1, _tensor_transport="nccl")


def test_threads_of_the_driver_may_call_at_once(session):
    worker = Worker.remote()
    results: list[int] = []

    def work():
        results.extend(runtime.get([worker.add.remote(1) for _ in range(200)]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(1, 801))


def test_runtime_works_inside_an_actor(session):
    assert runtime.get(runtime.get(Worker.remote().use_runtime.remote())) == 1


def test_special_methods(session):
    worker = Worker.remote(3)
    assert runtime.get(worker.__ray_ready__.remote()) is True
    assert runtime.get(worker.__ray_call__.remote(lambda self, more: self.value + more, 4)) == 7


def test_reprs_fit_a_log(session):
    worker = Worker.remote()
    ref = worker.echo.remote(1)
    runtime.get(ref)
    for text in (repr(worker), repr(ref), repr(worker.echo), repr(Worker)):
        assert "\n" not in text
        assert "Worker" in text
