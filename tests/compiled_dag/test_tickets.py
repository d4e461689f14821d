"""Several graphs of one driver on the same actors: every actor takes its turns in one order."""

from __future__ import annotations

import gc
import threading

import pytest

from compiled_dag import CapacityExceededError, InputNode, MultiOutputNode
from compiled_dag.channel import ticket_ring
from compiled_dag.channel.ticket_ring import TicketReader, TicketRing
from compiled_dag.shm.board import Board
from compiled_dag.tickets import Tickets
from compiled_dag.turns import TicketPart, Turns
from tests.gates import soon
from tests.graphs import Worker, chain


class Meeting(Worker):
    """Both actors of a graph wait for each other's value."""

    def first(self, value):
        return value

    def meet(self, mine, theirs):
        return mine, theirs


def crossing(left, right):
    """A graph in which each of two actors needs a value of the other in the middle of its turn."""
    with InputNode() as value:
        one, other = left.first.bind(value), right.first.bind(value)
        return MultiOutputNode([left.meet.bind(one, other), right.meet.bind(other, one)])


@pytest.fixture
def pair(host):
    return host.actor(Meeting(1)), host.actor(Meeting(2))


def get_all(refs):
    return [ref.get(30) for ref in refs]


# --- the ring ---


@pytest.fixture
def ring():
    segment = Board.create()
    board = Board(segment.fd)
    segment.close()
    ring = TicketRing(board, 1)
    yield ring
    ring.close()


def reader_of(ring):
    import os

    return TicketReader(os.dup(ring.segment.fd))


def test_tickets_come_in_the_order_written(ring) -> None:
    reader = reader_of(ring)
    assert reader.next() is None
    tickets = [(1, 0), (2, 5), (ticket_ring.MAX_KEY, 2**44 - 1)]
    for ticket in tickets:
        ring.issue(*ticket)
    for ticket in tickets:
        assert reader.next() == ticket
        reader.pass_over()
    assert reader.next() is None


def test_a_ring_is_full_until_the_actor_has_passed_something(ring) -> None:
    reader = reader_of(ring)
    for number in range(ticket_ring.SLOTS):
        assert not ring.is_full
        ring.issue(1, number)
    assert ring.is_full
    reader.pass_over()
    assert not ring.is_full
    ring.issue(2, 7)
    for _ in range(ticket_ring.SLOTS - 1):
        reader.pass_over()
    assert reader.next() == (2, 7)


def test_a_ticket_taken_back_is_nobodys(ring) -> None:
    reader = reader_of(ring)
    ring.issue(1, 0)
    ring.take_back(0)
    ring.take_back(1)  # not written yet
    ring.issue(1, 1)
    assert reader.next() == (0, 0)
    reader.pass_over()
    assert reader.next() == (1, 1)


# --- an actor's turns ---


class Program:
    def __init__(self, key: int, execution: int = 0) -> None:
        self.key = key
        self.execution = execution
        self.ended = False
        self.is_ready = True

    def ready(self) -> bool:
        return self.is_ready

    def run(self) -> bool:
        self.execution += 1
        return not self.ended


def turns_of(ring, *programs, bases=None):
    import os

    turns = Turns(7, os.dup(ring.segment.fd))
    keys = {program.key: program.key for program in programs}
    turns.add(TicketPart(ring_id=7, keys=keys, bases=bases or {}), programs)
    return turns


def take(turns, *programs):
    """Run what is ready; return the keys in order."""
    done = []
    before = {program.key: program.execution for program in programs}
    while turns.ready():
        turns.run()
        for program in programs:
            if program.execution != before[program.key]:
                done.append(program.key)
                before[program.key] = program.execution
    return done


def test_turns_are_taken_in_the_order_of_the_tickets(ring) -> None:
    one, two = Program(1), Program(2)
    turns = turns_of(ring, one, two)
    assert not turns.ready()
    for key, execution in [(2, 0), (1, 0), (1, 1), (2, 1)]:
        ring.issue(key, execution)
    assert take(turns, one, two) == [2, 1, 1, 2]


def test_a_turn_waits_for_the_one_before_it(ring) -> None:
    one, two = Program(1), Program(2)
    turns = turns_of(ring, one, two)
    one.is_ready = False
    ring.issue(1, 0)
    ring.issue(2, 0)
    assert not turns.ready()
    one.is_ready = True
    assert take(turns, one, two) == [1, 2]


@pytest.mark.parametrize("how", ["ended", "removed", "taken back"])
def test_a_graph_that_has_ended_has_no_turn(ring, how) -> None:
    one, two = Program(1), Program(2)
    one.is_ready = False
    turns = turns_of(ring, one, two)
    ring.issue(1, 0)
    ring.issue(2, 0)
    assert not turns.ready()
    if how == "ended":
        one.ended = True
    elif how == "removed":
        turns.remove(1)
    else:
        ring.take_back(0)
    assert take(turns, one, two) == [2]


def test_executions_from_before_the_tickets_come_first(ring) -> None:
    one, two = Program(1, execution=3), Program(2)
    turns = turns_of(ring, one, two, bases={1: 5})
    ring.issue(2, 0)
    ring.issue(1, 5)
    assert take(turns, one, two) == [1, 1, 2, 1]


def test_what_ran_before_the_tickets_were_known_is_passed_over(ring) -> None:
    one, two = Program(1, execution=7), Program(2)
    turns = turns_of(ring, one, two, bases={1: 5})
    for key, execution in [(1, 5), (1, 6), (2, 0), (1, 7)]:
        ring.issue(key, execution)
    assert take(turns, one, two) == [2, 1]


def test_a_graph_that_ended_while_it_ran_leaves(ring) -> None:
    one, two = Program(1), Program(2)
    turns = turns_of(ring, one, two)
    ring.issue(1, 0)
    ring.issue(1, 1)
    ring.issue(2, 0)
    assert turns.ready()
    one.ended = True
    assert turns.run()
    assert take(turns, one, two) == [2]
    assert not turns.is_empty
    turns.remove(2)
    assert turns.is_empty


# --- graphs ---


def test_two_graphs_that_need_both_actors_at_once_never_wait_for_each_other(pair) -> None:
    left, right = pair
    with (
        crossing(left, right).experimental_compile() as one,
        crossing(right, left).experimental_compile() as other,
    ):
        for number in range(200):
            refs = [*one.execute(number), *other.execute(-number), *one.execute(number)]
            assert get_all(refs) == [(number,) * 2] * 2 + [(-number,) * 2] * 2 + [(number,) * 2] * 2


def test_threads_that_execute_several_graphs_at_once(pair, host) -> None:
    left, right = pair
    third = host.actor(Meeting(3))
    drawn = [crossing(left, right), crossing(right, third), crossing(third, left)]
    graphs = [output.experimental_compile() for output in (*drawn, chain([left, right, third]))]
    failed = []

    def drive(graph, offset) -> None:
        try:
            for number in range(100):
                ref = graph.execute(number)
                if isinstance(ref, list):
                    assert get_all(ref) == [(number, number)] * 2
                else:
                    assert ref.get(30) == number + 6
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=drive, args=(g, n)) for n, g in enumerate(graphs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for graph in graphs:
        graph.teardown()
    assert failed == []


def test_a_graph_joins_while_another_is_in_flight(pair) -> None:
    left, right = pair
    with crossing(left, right).experimental_compile() as one:
        for turn in range(20):
            before = [one.execute(turn) for _ in range(5)]
            with crossing(right, left).experimental_compile() as other:
                mixed = [other.execute(-turn), one.execute(turn), other.execute(-turn)]
                assert [get_all(refs) for refs in before] == [[(turn, turn)] * 2] * 5
                assert [get_all(refs)[0][0] for refs in mixed] == [-turn, turn, -turn]
        assert get_all(one.execute(9)) == [(9, 9)] * 2


def test_a_graph_that_breaks_or_ends_in_flight_holds_nobody_up(pair, host, gate) -> None:
    left, right = pair
    stuck = host.actor(gate)
    with InputNode() as value:
        held = left.meet.bind(left.first.bind(value), stuck.hold.bind(value))
        broken = right.meet.bind(held, value)
    with (
        broken.experimental_compile() as one,
        crossing(left, right).experimental_compile() as other,
    ):
        waiting = one.execute(1)
        gate.wait_entered()
        refs = other.execute(5)
        host.report_death(stuck.actor_id)
        assert get_all(refs) == [(5, 5)] * 2
        with pytest.raises(Exception, match="lost actor"):
            waiting.get(30)
        gate.opened.set()


def test_an_execution_that_was_broken_off_before_it_was_shown_leaves_no_ticket(pair) -> None:
    left, right = pair
    with (
        crossing(left, right).experimental_compile() as one,
        crossing(right, left).experimental_compile() as other,
    ):
        inlet = one._submission.inlet
        publish = inlet._publish

        def interrupted() -> None:
            inlet._publish = publish
            raise KeyboardInterrupt

        inlet._publish = interrupted
        with pytest.raises(KeyboardInterrupt):
            one.execute(1)
        assert get_all(other.execute(2)) == [(2, 2)] * 2
        assert get_all(one.execute(3)) == [(3, 3)] * 2
        assert get_all(other.execute(4)) == [(4, 4)] * 2


def test_a_full_ring_is_said_and_nothing_was_started(pair, monkeypatch) -> None:
    left, right = pair
    with (
        crossing(left, right).experimental_compile() as one,
        crossing(right, left).experimental_compile() as other,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(TicketRing, "is_full", True)
            with pytest.raises(CapacityExceededError, match=r"share actor Meeting\(\d\) wait"):
                one.execute(1)
        assert get_all(one.execute(2) + other.execute(3)) == [(2, 2)] * 2 + [(3, 3)] * 2


def test_the_last_graph_of_an_actor_takes_the_ring_with_it(pair, host) -> None:
    left, right = pair
    tickets = Tickets.of(host)
    one = crossing(left, right).experimental_compile()
    assert not tickets._shared
    other = crossing(left, right).experimental_compile()
    assert len(tickets._shared) == 2
    one.teardown()
    assert get_all(other.execute(1)) == [(1, 1)] * 2
    del other
    gc.collect()
    pending = left.echo.remote(1)  # after the unload of the collected graph
    assert pending.result(soon()) == 1
    for thread in threading.enumerate():
        if thread.name == "supervisor":
            thread.join(30)
    assert not tickets._shared
    assert not tickets._members
    with crossing(left, right).experimental_compile() as again:
        assert get_all(again.execute(1)) == [(1, 1)] * 2
        assert not tickets._shared


def test_a_failed_compile_leaves_no_member(pair, host, monkeypatch) -> None:
    left, right = pair
    tickets = Tickets.of(host)
    with crossing(left, right).experimental_compile() as one:
        with monkeypatch.context() as patch:
            patch.setattr(Meeting, "first", None)
            with pytest.raises(TypeError):
                crossing(left, right).experimental_compile()
        assert all(len(members) == 1 for members in tickets._members.values())
        assert get_all(one.execute(1)) == [(1, 1)] * 2
