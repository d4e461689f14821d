"""A pool gives each actor one call at a time and hands results out in either order."""

from __future__ import annotations

import threading

import pytest

import runtime
from runtime.exceptions import ActorDiedError, TaskError
from runtime.util import ActorPool

pytestmark = [pytest.mark.proc, pytest.mark.usefixtures("session")]


@runtime.remote
class Gate:
    """Opened by the test, from another actor's point of view."""

    def __init__(self):
        self.opened = False

    def open(self):
        self.opened = True

    def is_open(self):
        return self.opened


@runtime.remote
class Doubler:
    def double(self, value):
        if value == "bad":
            raise ValueError(value)
        return 2 * value

    def double_behind(self, gate, value):
        """Return once the gate is open."""
        pause = threading.Event()
        while not runtime.get(gate.is_open.remote()):
            pause.wait(0.01)
        return 2 * value

    def pair(self, value):
        return value, 2 * value


def double(actor, value):
    return actor.double.remote(value)


def make_pool(count=2):
    return ActorPool([Doubler.remote() for _ in range(count)])


def test_map_keeps_the_order_and_takes_more_values_than_actors():
    assert list(make_pool().map(double, range(7))) == [0, 2, 4, 6, 8, 10, 12]


def test_map_unordered_returns_all():
    assert sorted(make_pool().map_unordered(double, range(7))) == [0, 2, 4, 6, 8, 10, 12]


def test_unordered_returns_what_is_ready():
    pool, gate = make_pool(), Gate.remote()
    pool.submit(lambda actor, value: actor.double_behind.remote(gate, value), 1)
    pool.submit(double, 2)
    assert pool.get_next_unordered() == 4
    with pytest.raises(TimeoutError, match="can still be taken"):
        pool.get_next_unordered(timeout=0.01)
    gate.open.remote()
    assert pool.get_next_unordered() == 2
    assert not pool.has_next()


def test_a_late_result_stays_or_is_dropped():
    pool, gate = make_pool(1), Gate.remote()
    pool.submit(lambda actor, value: actor.double_behind.remote(gate, value), 1)
    with pytest.raises(TimeoutError, match="can still be taken"):
        pool.get_next(timeout=0.01)
    assert pool.has_next()
    with pytest.raises(TimeoutError, match="dropped"):
        pool.get_next(timeout=0.01, ignore_if_timedout=True)
    assert not pool.has_next()
    assert pool.has_free()
    pool.submit(double, 5)
    gate.open.remote()
    assert pool.get_next() == 10


def test_map_drops_what_was_submitted_before():
    pool = make_pool()
    pool.submit(double, 100)
    assert list(pool.map(double, [1, 2])) == [2, 4]
    pool.submit(double, 100)
    assert sorted(pool.map_unordered(double, [1, 2])) == [2, 4]


def test_an_empty_pool_has_no_next():
    pool = make_pool(1)
    with pytest.raises(StopIteration):
        pool.get_next()
    with pytest.raises(StopIteration):
        pool.get_next_unordered()


def test_get_next_after_unordered_is_refused():
    pool, gate = make_pool(), Gate.remote()
    pool.submit(lambda actor, value: actor.double_behind.remote(gate, value), 1)
    pool.submit(double, 2)
    pool.get_next_unordered()
    with pytest.raises(ValueError, match="get_next_unordered"):
        pool.get_next()
    gate.open.remote()
    assert pool.get_next_unordered() == 2


def test_an_actor_that_raised_goes_on():
    pool = make_pool(1)
    for value in ("bad", 3):
        pool.submit(double, value)
    with pytest.raises(TaskError, match="bad"):
        pool.get_next()
    assert pool.get_next() == 6


def test_a_dead_actor_leaves_the_pool():
    first, second = Doubler.remote(), Doubler.remote()
    pool = ActorPool([second, first])  # the last is taken first
    runtime.kill(first)
    for value in (1, 2, 3):
        pool.submit(double, value)
    with pytest.raises(ActorDiedError):
        pool.get_next()
    assert [pool.get_next(), pool.get_next()] == [4, 6]
    assert pool.pop_idle() == second
    assert pool.pop_idle() is None


def test_actors_come_and_go():
    actor = Doubler.remote()
    pool = ActorPool([actor])
    with pytest.raises(ValueError, match="already"):
        pool.push(actor)
    pool.submit(double, 1)
    assert not pool.has_free()
    with pytest.raises(ValueError, match="already"):
        pool.push(actor)
    pool.submit(double, 2)
    pool.push(Doubler.remote())  # takes what waits
    assert [pool.get_next(), pool.get_next()] == [2, 4]
    assert pool.has_free()


def test_methods_with_several_results():
    pool = make_pool()

    def pair(actor, value):
        return actor.pair.options(num_returns=2).remote(value)

    assert list(pool.map(pair, [1, 2, 3])) == [[1, 2], [2, 4], [3, 6]]
    assert sorted(pool.map_unordered(pair, [1, 2, 3])) == [[1, 2], [2, 4], [3, 6]]


def test_a_pool_works_inside_a_task():
    @runtime.remote
    def total(actors):
        return sum(ActorPool(actors).map(double, range(4)))

    assert runtime.get(total.remote([Doubler.remote(), Doubler.remote()])) == 12
