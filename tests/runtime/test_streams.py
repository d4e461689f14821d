"""Generators: results one by one."""

from __future__ import annotations

import asyncio
import gc

import pytest

import runtime
from tests.live import LONG_S, wait_until
from tests.runtime import subjects
from tests.runtime.subjects import Async, Plain, Threaded, events

pytestmark = pytest.mark.proc


def get(refs):
    return runtime.get(refs, timeout=LONG_S)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "path")


def test_items_come_in_order(session):
    assert get(list(subjects.items.remote(100))) == list(range(100))


def test_the_generator_itself_is_returned_by_get(session):
    generator = subjects.items.remote(3)
    assert runtime.get(generator) is generator
    assert isinstance(generator, runtime.ObjectRefGenerator)
    assert get(list(generator)) == [0, 1, 2]
    assert list(generator) == []


def test_no_items_at_all(session):
    assert list(subjects.items.remote(0)) == []
    assert list(Plain.remote().items.remote(0)) == []


def test_completed_tells_the_end(session):
    generator = subjects.items.remote(7)
    assert get(generator.completed()) == 7
    assert get(list(generator)) == list(range(7))


@pytest.mark.parametrize("kind", [Plain, Threaded, Async])
def test_methods_yield(session, kind):
    actor = kind.remote()
    assert get(list(actor.items.remote(50))) == list(range(50))
    assert get(actor.echo.remote(1)) == 1


@pytest.mark.parametrize("kind", [Plain, Threaded, Async])
def test_items_come_as_soon_as_they_are_yielded(session, kind, tmp_path):
    prefix = str(tmp_path / "item")
    actor = kind.remote()
    generator = actor.items_slowly.remote(3, prefix)
    for number in range(3):
        (tmp_path / f"item{number}").touch()
        assert get(next(generator)) == number
    with pytest.raises(StopIteration):
        next(generator)


def test_an_error_in_the_middle_is_the_last_item(session):
    for generator in (
        subjects.items_then_fail.remote(3),
        Plain.remote().items_then_fail.remote(3),
        Threaded.remote().items_then_fail.remote(3),
    ):
        refs = list(generator)
        assert get(refs[:3]) == [0, 1, 2]
        assert len(refs) == 4
        with pytest.raises(ValueError, match="after the items"):
            get(refs[3])


def test_large_items(session):
    actor = Plain.remote()
    refs = list(actor.echo.options(num_returns="streaming").remote([b"x" * 300_000] * 5))
    assert get(refs) == [b"x" * 300_000] * 5


def test_tasks_and_actors_consume_generators(session):
    assert get(subjects.consume.remote(20)) == list(range(20))
    actor, other = Plain.remote(), Plain.remote()
    assert get(actor.consume.remote([other], 20)) == list(range(20))


def test_coroutines_consume_generators(session):
    assert get(Async.remote().consume_async.remote([Plain.remote()], 20)) == list(range(20))


def test_async_for_in_the_driver(session):
    async def consume():
        return [await ref async for ref in subjects.items.remote(20)]

    assert asyncio.run(consume()) == list(range(20))


def test_dropped_half_way(session, path):
    generator = subjects.items_for_ever.remote(path)
    assert get([next(generator), next(generator)]) == [0, 1]
    wait_until(lambda: events(path))
    runtime.cancel(generator.completed())
    del generator
    gc.collect()
    assert get(subjects.echo_task.remote(1)) == 1


def test_items_outlive_their_generator(session):
    refs = [next(subjects.items.remote(3)) for _ in range(3)]
    gc.collect()
    assert get(refs) == [0, 0, 0]


def test_no_item_comes_twice_after_a_workers_death(session, path):
    refs = list(subjects.items_then_die.remote(20, path))
    assert get(refs) == list(range(20))
    assert events(path) == 1


@pytest.mark.parametrize("kind", [Plain, Threaded, Async])
def test_no_item_comes_twice_after_an_actors_death(session, kind, path):
    actor = kind.options(max_restarts=1, max_task_retries=1).remote()
    assert get(list(actor.items_then_die.remote(20, path))) == list(range(20))


def test_a_death_without_retries_is_the_last_item(session, path):
    refs = list(Plain.remote().items_then_die.remote(20, path))
    assert get(refs[:10]) == list(range(10))
    assert len(refs) == 11
    with pytest.raises(runtime.exceptions.ActorDiedError):
        get(refs[10])


def test_a_waiting_consumer_learns_of_the_death(session, tmp_path):
    actor = Plain.remote()
    generator = actor.items_slowly.remote(3, str(tmp_path / "item"))
    runtime.kill(actor)
    with pytest.raises(runtime.exceptions.ActorDiedError):
        get(next(generator))
    assert list(generator) == []


def test_wait_takes_generators(session, path):
    generator, ref = subjects.items_for_ever.remote(path), subjects.echo_task.remote(1)
    assert runtime.wait([generator, ref], num_returns=2, timeout=LONG_S) == ([generator, ref], [])
    assert get(next(generator)) == 0
    runtime.cancel(generator)


@pytest.mark.parametrize("make", [lambda: subjects.items, lambda: Plain.remote().items])
def test_a_generator_is_ready_when_its_next_step_does_not_wait(session, make):
    generator = make().remote(2)
    for value in range(2):
        assert runtime.wait([generator], timeout=LONG_S) == ([generator], [])
        assert generator.next_ready()
        assert not generator.is_finished()
        assert get(next(generator)) == value
    assert runtime.wait([generator], timeout=LONG_S) == ([generator], [])
    assert generator.next_ready()
    assert generator.is_finished()
    assert list(generator) == []


def test_wait_for_a_generator_that_yields_nothing_yet(session, path):
    generator = Plain.remote().items_slowly.remote(1, path)
    assert runtime.wait([generator], timeout=0.01) == ([], [generator])
    assert not generator.next_ready()
    assert not generator.is_finished()
    subjects.count(f"{path}0")
    assert runtime.wait([generator], timeout=LONG_S) == ([generator], [])
    assert get(list(generator)) == [0]


def test_a_task_waits_for_generators(session):
    assert get(subjects.consume_ready.remote([3, 5, 0])) == [0, 0, 1, 1, 2, 2, 3, 4]


def test_a_generator_is_not_sent(session):
    with pytest.raises(TypeError, match="only one place takes its items"):
        subjects.echo_task.remote(subjects.items.remote(1))
