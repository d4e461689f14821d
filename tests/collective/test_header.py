from __future__ import annotations

import dataclasses
import os
import threading
from itertools import pairwise

import pytest

from collective import header as head
from collective.header import POISON, RECORD, GroupHeader
from collective.meetings import Meetings
from collective.preflight import Preflight
from compiled_dag import ChannelClosedError
from compiled_dag.outcome import Error, Place
from compiled_dag.shm.board import Board
from compiled_dag.shm.segment import Segment
from tests.collective.parts import at_once

PLACE = Place(method="Worker.grad", actor="Worker(2)", node=3, source="train.py:7")
BAD = Error.capture(ValueError("bad"), PLACE)


def preflights(ranks):
    return [
        Preflight(header, rank, waiter)
        for rank, (header, waiter) in enumerate(zip(ranks.headers, ranks.waiters, strict=True))
    ]


def meet_others(flight, brought):
    """Arrive with a record, or an error, and wait for the other ranks."""
    if isinstance(brought, Error):
        flight.arrive(b"", brought)
    else:
        flight.arrive(brought, None)
    return flight.meet()


def meet(flights, *brought):
    """Let all ranks meet; each brings a record, or an error."""
    return at_once(
        *(
            lambda flight=flight, it=it: meet_others(flight, it)
            for flight, it in zip(flights, brought, strict=True)
        )
    )


# --- the memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 17, 300])
def test_areas_of_ranks_do_not_overlap_and_the_log_comes_last(count) -> None:
    made = Segment(-1)
    GroupHeader.allocate(made, count, backend_bytes=0)
    segment = Board.create()
    header = GroupHeader(made, count, Board(segment.fd), range(1, count + 1))
    areas = [(0, 4096)]
    for rank in range(count):
        areas.append((header.line(rank) * 8, header.line(rank) * 8 + 128))
        for turn in (0, 1):
            areas.append((header.record(rank, turn), header.record(rank, turn) + RECORD))
            areas.append((header.poison(rank, turn), header.poison(rank, turn) + POISON))
    areas.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(areas))
    assert areas[-1][1] <= header.log
    assert os.fstat(header.segment.fd).st_size == header.log + head.LOG_BYTES
    segment.close()
    header.close()


def test_a_new_group_is_open(ranks) -> None:
    (header,) = ranks(1).headers
    assert header.state == head.OPEN
    assert not header.stopped()
    header.guard()


@pytest.mark.parametrize("state", [head.CLOSED, head.BROKEN])
def test_an_end_by_the_driver_is_seen_by_every_rank(ranks, state) -> None:
    first, second = ranks(2).headers
    first.end(state)
    assert second.stopped()
    with pytest.raises(ChannelClosedError, match="the collective group was ended"):
        second.guard()


def test_a_fault_of_a_backend_is_no_end(ranks) -> None:
    first, second = ranks(2).headers
    first.end(head.FAULTED)
    assert second.state == head.FAULTED
    assert not second.stopped()
    second.guard()


def test_the_first_failure_is_told_and_cut(ranks) -> None:
    first, second = ranks(2).headers
    assert first.failure() == ""
    second.fail(1, "\N{EURO SIGN}" * head.FAILURE)
    first.fail(0, "because of the other")
    assert first.failure() == "\N{EURO SIGN}" * ((head.FAILURE - 8) // 3)
    assert first.state == head.FAULTED


def test_a_fault_does_not_undo_an_end(ranks) -> None:
    first, second = ranks(2).headers
    first.end(head.BROKEN)
    second.end(head.FAULTED)
    assert first.state == head.BROKEN


def test_an_end_rings_every_rank(ranks) -> None:
    group = ranks(2)
    bells, board = group.board.bells, group.board
    for line in (1, 2):
        bells[board.bell_index(line)] = 1
    group.headers[0].end(head.BROKEN)
    assert [bells[board.bell_index(line)] for line in (1, 2)] == [0, 0]


# --- preflight ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5])
def test_ranks_that_bring_the_same_agree(ranks, count) -> None:
    flights = preflights(ranks(count))
    for turn in range(10):
        assert meet(flights, *[b"same %d" % turn] * count) == [None] * count


def test_ranks_that_differ_all_see_what_everybody_brought(ranks) -> None:
    flights = preflights(ranks(3))
    results = meet(flights, b"a", b"b", b"a")
    assert results[0] == results[1] == results[2]
    assert [record[:2] for record in results[0]] == [b"\0a", b"\0b", b"\0a"]
    assert meet(flights, b"a", b"a", b"a") == [None] * 3


@pytest.mark.parametrize("poisoned", [0, 1, 2])
def test_an_error_of_one_rank_is_what_every_rank_gets(ranks, poisoned) -> None:
    flights = preflights(ranks(3))
    brought = [b"a", b"a", b"a"]
    brought[poisoned] = BAD
    assert meet(flights, *brought) == [dataclasses.replace(BAD, rank=poisoned)] * 3
    assert meet(flights, b"b", b"b", b"b") == [None] * 3


def test_the_first_ranks_error_counts_and_goes_before_a_mismatch(ranks) -> None:
    flights = preflights(ranks(3))
    other = Error.capture(ValueError("other"), PLACE)
    assert meet(flights, b"a", other, BAD) == [dataclasses.replace(other, rank=1)] * 3
    assert meet(flights, BAD, BAD, BAD) == [dataclasses.replace(BAD, rank=0)] * 3


def test_an_error_that_knows_its_rank_keeps_it(ranks) -> None:
    flights = preflights(ranks(2))
    known = dataclasses.replace(BAD, rank=7)
    assert meet(flights, b"a", known) == [known] * 2


def large_errors(text):
    """Return errors that are too large in one part or another."""
    long = text * 50_000
    plain = Error(cause=None, summary="ValueError", traceback_text="", place=PLACE)
    return {
        "cause": dataclasses.replace(plain, cause=b"x" * 50_000),
        "summary": dataclasses.replace(plain, summary=f"ValueError: {long}"),
        "traceback": dataclasses.replace(plain, traceback_text=long),
        "everything": Error.capture(ValueError(long), PLACE),
        "names": dataclasses.replace(plain, place=dataclasses.replace(PLACE, method=long)),
    }


@pytest.mark.parametrize("text", ["x", "é", "漢", "🙂"], ids=["1 byte", "2", "3", "4"])
@pytest.mark.parametrize("part", large_errors("x"))
def test_errors_too_large_for_their_places_arrive_shortened_and_disturb_nobody(
    ranks, text, part
) -> None:
    group = ranks(3)
    log = group.headers[0].view[group.headers[0].log :]
    large = large_errors(text)[part]
    flights = preflights(group)
    for _ in range(2):
        results = meet(flights, large, large, large)
        assert results[0] == results[1] == results[2]
        assert results[0].rank == 0
        assert "raised ValueError" in str(results[0].exception())
        results = meet(flights, b"a", b"a", large)
        assert results[0] == results[1] == results[2]
        assert results[0].rank == 2
    assert not any(log)
    assert meet(flights, BAD, b"a", b"a") == [dataclasses.replace(BAD, rank=0)] * 3


def test_an_error_of_before_is_not_taken_for_one_of_now(ranks) -> None:
    flights = preflights(ranks(2))
    for _ in range(3):
        assert meet(flights, BAD, b"a") == [dataclasses.replace(BAD, rank=0)] * 2
        assert meet(flights, b"a", b"a") == [None] * 2
        assert meet(flights, b"a", b"a") == [None] * 2


def test_ranks_run_through_thousands_of_preflights(ranks) -> None:
    flights = preflights(ranks(3))

    def run(flight) -> bool:
        return all(meet_others(flight, b"%d" % turn) is None for turn in range(1500))

    assert at_once(*(lambda flight=flight: run(flight) for flight in flights)) == [True] * 3


@pytest.mark.parametrize("state", [head.CLOSED, head.BROKEN])
def test_a_rank_that_waits_is_woken_by_the_end(ranks, state) -> None:
    group = ranks(2)
    first, _ = preflights(group)
    waiting = threading.Event()

    def end() -> None:
        waiting.wait(120)
        group.headers[1].end(state)

    guard = group.headers[0].guard
    group.headers[0].guard = lambda: (waiting.set(), guard())
    result, _ = at_once(lambda: meet_others(first, b"a"), end)
    assert isinstance(result, ChannelClosedError)


class ChangingWords:
    """A rank's count that changes between any two looks at it."""

    def __init__(self, words, index, values) -> None:
        self.words = words
        self.index = index
        self.values = list(values)

    def __getitem__(self, index):
        if index == self.index and len(self.values) > 1:
            return self.values.pop(0)
        return self.values[0] if index == self.index else self.words[index]

    def __setitem__(self, index, value) -> None:
        self.words[index] = value


def test_an_arrival_between_two_looks_is_not_waited_for_again(ranks) -> None:
    group = ranks(2)
    header, waiter = group.headers[0], group.waiters[0]
    header.words = ChangingWords(header.words, header.line(1), [0, 1])
    flight = Preflight(header, 0, waiter)
    record = b"\0a".ljust(RECORD, b"\0")
    place = header.record(1, 1)
    header.view[place : place + RECORD] = record
    assert at_once(lambda: meet_others(flight, b"a")) == [None]


@pytest.fixture
def woken(monkeypatch):
    """Who was woken, in a list for each time that somebody looked for sleepers."""
    found: list[list[int]] = []
    monkeypatch.setattr(Board, "wake_each", lambda _self, lines: found.append(list(lines)))
    return found


def test_only_the_last_rank_that_comes_wakes_the_others(woken, ranks) -> None:
    flights = preflights(ranks(3))
    for flight in flights:
        assert woken == []
        flight.arrive(b"a", None)
    assert woken == [[1, 2]]  # by their lines of the board
    assert [flight.meet() for flight in flights] == [None] * 3


@pytest.mark.parametrize("others_came", [True, False])
def test_only_the_last_rank_at_a_further_meeting_wakes_the_others(
    woken, ranks, others_came
) -> None:
    group = ranks(3)
    header = group.headers[0]
    for rank in (1, 2):
        header.words[header.line(rank) + head.MEETINGS] = others_came
    header.end(head.CLOSED)  # so that a wait ends
    del woken[:]
    (result,) = at_once(Meetings(header, 0, group.waiters[0]).meet)
    assert woken == ([[2, 3]] if others_came else [])
    assert isinstance(result, ChannelClosedError) is not others_came
