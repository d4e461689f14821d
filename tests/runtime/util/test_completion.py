"""Results in the order in which they come."""

from __future__ import annotations

import gc
import itertools
import weakref

import pytest

import runtime
from runtime.util import as_completed, map_unordered
from tests.gates import Background
from tests.live import LONG_S, wait_until
from tests.runtime import subjects

pytestmark = pytest.mark.proc


def test_each_comes_once(session):
    refs = [subjects.echo_task.remote(i) for i in range(25)]
    assert sorted(as_completed(refs, chunk_size=4)) == list(range(25))


def test_nothing_to_wait_for(session):
    assert list(as_completed([])) == []
    assert list(map_unordered(subjects.echo_task, [])) == []


def test_what_is_ready_comes_before_what_is_not(session, tmp_path):
    gate = tmp_path / "gate"
    late, early = (
        subjects.wait_task.remote(str(tmp_path / "begun"), str(gate)),
        subjects.echo_task.remote("early"),
    )
    found = as_completed([late, early], chunk_size=1, yield_obj_refs=True)
    assert next(found) is early
    gate.touch()
    assert list(found) == [late]


def test_what_nobody_else_holds_is_no_garbage(session, tmp_path):
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    results = as_completed([subjects.wait_task.remote(str(begun), str(gate))])
    taken = Background(list, results)
    wait_until(begun.exists)
    wait_until(lambda: results.gi_frame is None or "arrivals" in results.gi_frame.f_locals)
    gc.collect()
    gate.touch()
    assert taken.result() == ["waited"]


def test_a_chunk_keeps_the_order_given(session):
    refs = [runtime.put(i) for i in range(20)]
    assert list(as_completed(refs, chunk_size=7)) == list(range(20))


def test_a_late_chunk(session, tmp_path):
    gate = tmp_path / "gate"
    late = subjects.wait_task.remote(str(tmp_path / "begun"), str(gate))
    with pytest.raises(runtime.exceptions.GetTimeoutError, match="of 2 results 1 were ready"):
        list(as_completed([late, runtime.put(1)], timeout=0.05))
    gate.touch()
    runtime.get(late, timeout=LONG_S)


def test_an_error_is_raised_at_its_turn(session):
    with pytest.raises(ValueError, match="after the items"):
        list(as_completed(list(subjects.items_then_fail.remote(1)), chunk_size=1))


def test_from_endless_items(session):
    found = map_unordered(subjects.echo_task, itertools.count(), backpressure_size=3, chunk_size=2)
    taken = list(itertools.islice(found, 20))
    assert len(set(taken)) == 20
    assert min(taken) >= 0


def test_no_more_are_under_way_than_allowed(session):
    taken = []
    found = map_unordered(
        subjects.echo_task, map(note(taken), range(20)), backpressure_size=4, chunk_size=1
    )
    for number in range(16):
        next(found)
        assert len(taken) <= number + 4
    assert len(list(found)) == 4


def note(taken):
    return lambda value: (taken.append(value), value)[1]


def test_in_a_task(session):
    assert runtime.get(complete_in_a_task.remote(), timeout=LONG_S) == [0, 1, 4, 9, 0, 1, 2, 3]


@runtime.remote
def square(value):
    return value * value


@runtime.remote
def complete_in_a_task():
    refs = [square.remote(i) for i in range(4)]
    return sorted(as_completed(refs)) + sorted(map_unordered(subjects.echo_task, range(4)))


def test_values_are_freed_once_they_are_consumed(session):
    found = as_completed([runtime.put(bytes(300_000)) for _ in range(3)], yield_obj_refs=True)
    seen = weakref.ref(next(found))
    wait_until(lambda: gc.collect() >= 0 and seen() is None)
    assert len(list(found)) == 2


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: as_completed([1]), TypeError, "item 0 is no ObjectRef but int"),
        (lambda: as_completed([], chunk_size=0), ValueError, "at least 1"),
        (lambda: as_completed([], timeout=-1), ValueError, "give seconds"),
        (lambda: map_unordered(print, []), TypeError, "takes a remote function"),
        (
            lambda: map_unordered(subjects.echo_task, [], backpressure_size=2),
            ValueError,
            "can never be ready",
        ),
    ],
)
def test_bad_input_is_refused_at_once(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_a_reference_given_twice(session):
    ref = runtime.put(1)
    with pytest.raises(ValueError, match="twice"):
        as_completed([ref, ref])
