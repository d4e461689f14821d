from __future__ import annotations

import threading
from functools import partial

import pytest

from collective import preflight
from collective import spread as spreading
from collective.preflight import Preflight
from collective.spread import BETWEEN, Spread, due
from compiled_dag.shm.waiter import Waiter
from tests.collective.parts import at_once

WORLD_SIZE = 4


@pytest.mark.parametrize(
    ("shown", "move"),
    [
        ([1, 1, 1, 2], (0, 1)),
        ([2, 1, 2, 2], (0, 0)),
        ([1, 3, 3, 3], (1, 0)),
        ([4, 1, 1, 4, 1, 1], (1, 3)),
        ([1, 1, 1, 2, 2, 2, 3], (0, 2)),
        ([1, 2, 1, 2], None),
        ([1, 2, 1], None),
        ([1, 1, 1, 1], None),
        ([1, 1, 1, 0], None),
    ],
)
def test_one_of_the_fullest_core_goes_to_the_emptiest_that_is_shown(shown, move) -> None:
    assert due(shown) == move


@pytest.fixture
def moves(monkeypatch):
    """Where ranks have gone; all that show a core say that they are on core 0."""
    went: list[int] = []
    monkeypatch.setattr(spreading.cores, "current", lambda: 0)
    monkeypatch.setattr(spreading.cores, "move", went.append)
    return went


def test_only_the_rank_that_is_to_moves(moves) -> None:
    words = memoryview(bytearray(8 * WORLD_SIZE)).cast("Q")
    ranks = [Spread(words, range(WORLD_SIZE), rank) for rank in range(WORLD_SIZE)]
    for rank in ranks:
        rank.show(yields=True)
    words[3] = 1 + 5
    for rank in ranks[1:]:
        rank.look()
    assert moves == []
    ranks[0].look()
    assert moves == [5]


def test_beside_a_rank_that_sleeps_nobody_moves(moves) -> None:
    words = memoryview(bytearray(8 * WORLD_SIZE)).cast("Q")
    ranks = [Spread(words, range(WORLD_SIZE), rank) for rank in range(WORLD_SIZE)]
    words[3] = 1 + 5
    for number, rank in enumerate(ranks):
        rank.show(yields=number != 3)
    for rank in ranks:
        rank.look()
    assert moves == []


def test_a_rank_that_may_not_move_stays(monkeypatch) -> None:
    def refuse(core: int) -> None:
        raise OSError("not there")

    monkeypatch.setattr(spreading.cores, "move", refuse)
    words = memoryview(bytearray(8 * WORLD_SIZE)).cast("Q")
    words[0] = words[1] = words[2] = 1
    words[3] = 2
    Spread(words, range(WORLD_SIZE), 0).look()


@pytest.mark.parametrize("num_cores", [1, 2, WORLD_SIZE])
def test_ranks_spread_where_they_outnumber_the_cores(ranks, moves, monkeypatch, num_cores) -> None:
    here = threading.local()
    monkeypatch.setattr(spreading.cores, "current", lambda: here.core)
    monkeypatch.setattr(preflight.cores, "count", lambda: num_cores)
    monkeypatch.setattr(Waiter, "yields", lambda self, site: True)
    group = ranks(WORLD_SIZE)

    def go(rank: int) -> None:
        here.core = 7 if rank == WORLD_SIZE - 1 else 3
        flight = Preflight(group.headers[rank], rank, group.waiters[rank])
        for _ in range(BETWEEN):
            flight.arrive(b"same", None)
            assert flight.meet() is None

    assert at_once(*(partial(go, rank) for rank in range(WORLD_SIZE))) == [None] * WORLD_SIZE
    assert moves == ([7] if 1 < num_cores < WORLD_SIZE else [])
