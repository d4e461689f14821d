"""Several graphs of one driver on the same actors: every actor takes its turns in one order."""

from __future__ import annotations

import gc
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiled_dag import CapacityExceededError, InputNode, MultiOutputNode
from compiled_dag.channel import ticket_ring
from compiled_dag.channel.ticket_ring import TicketReader, TicketRing
from compiled_dag.tickets import Tickets
from compiled_dag.turns import TicketPart, Turns
from tests.gates import interrupt_once, soon
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
    ring = TicketRing()
    yield ring
    ring.close()


def reader_of(ring):
    return TicketReader(os.dup(ring.segment.fd))


def test_tickets_come_in_the_order_written(ring) -> None:
    reader = reader_of(ring)
    assert ring.holder == 0
    assert reader.next() is None
    tickets = [(1, 0), (2, 5), (ticket_ring.MAX_KEY, 2**44 - 1)]
    for ticket in tickets:
        ring.issue(*ticket)
        assert ring.holder == ticket[0]
    for ticket in tickets:
        assert reader.next() == ticket
        reader.take()
    assert reader.next() is None


def test_a_ring_is_full_until_the_actor_has_done_with_a_ticket(ring) -> None:
    reader = reader_of(ring)
    for number in range(ticket_ring.SLOTS):
        assert not ring.is_full
        ring.issue(1, number)
    assert ring.is_full
    reader.take()
    assert ring.is_full  # it is at that one
    reader.take()
    assert not ring.is_full
    ring.issue(2, 7)
    assert ring.holder == 2
    for _ in range(ticket_ring.SLOTS - 2):
        reader.take()
    assert reader.next() == (2, 7)


# --- an actor's turns ---


class Input:
    """Its message i is there once i + 1 executions were shown."""

    sequence_word = 0

    def __init__(self, program, shown: int) -> None:
        self.words = [shown]
        self._program = program

    @property
    def sequence(self) -> int:
        return self._program.execution


class Program:
    """One whose executions are there as soon as they were shown."""

    def __init__(self, key: int, shown: int = 0, execution: int = 0) -> None:
        self.number = key
        self.execution = execution
        self.ended = False
        self.first = Input(self, shown)

    @property
    def shown(self) -> int:
        return self.first.words[0]

    @shown.setter
    def shown(self, count: int) -> None:
        self.first.words[0] = count

    def run(self) -> bool:
        self.execution += 1
        return not self.ended


def turns_of(ring, *programs):
    turns = Turns(7, os.dup(ring.segment.fd))
    keys = {program.number: program.number for program in programs}
    turns.add(TicketPart(ring_id=7, keys=keys), programs)
    return turns


def take(turns, *programs):
    """Run what is ready; return the keys in order."""
    done = []
    before = {program.number: program.execution for program in programs}
    while turns.ready():
        if not turns.run():
            assert not turns.leave()
        for program in programs:
            if program.execution != before[program.number]:
                done.append(program.number)
                before[program.number] = program.execution
    return done


def test_a_graph_has_the_turns_until_the_next_ticket(ring) -> None:
    one, two = Program(1), Program(2)
    turns = turns_of(ring, one, two)
    assert not turns.ready()
    one.shown = two.shown = 1
    assert not turns.ready()  # no ticket, no turn
    ring.issue(2, 0)
    assert take(turns, one, two) == [2]
    two.shown = 4
    assert take(turns, one, two) == [2, 2, 2]
    ring.issue(1, 4)
    ring.issue(2, 1)
    two.shown = 5
    assert take(turns, one, two) == [1, 2]


def test_turns_end_with_the_execution_that_the_next_ticket_names(ring) -> None:
    one, two = Program(1, shown=3), Program(2, shown=1)
    turns = turns_of(ring, one, two)
    for ticket in [(1, 0), (2, 2), (1, 1)]:
        ring.issue(*ticket)
    assert take(turns, one, two) == [1, 1, 2, 1]


def test_a_turn_waits_for_the_ones_before_it(ring) -> None:
    one, two = Program(1), Program(2, shown=1)
    turns = turns_of(ring, one, two)
    ring.issue(1, 0)
    ring.issue(2, 1)
    assert not turns.ready()
    assert turns.sources() == ()  # the graph may end, which is in other words
    one.shown = 1
    assert take(turns, one, two) == [1, 2]


def test_what_is_waited_for_is_the_holders_input_or_a_ticket(ring) -> None:
    one = Program(1)
    turns = turns_of(ring, one)
    assert not turns.ready()
    (ticket,) = turns.sources()
    assert ticket[0][ticket[1]] == ticket[2]
    ring.issue(1, 0)
    assert ticket[0][ticket[1]] != ticket[2]
    assert not turns.ready()
    mine, ticket = turns.sources()
    assert mine == (one.first.words, 0, 0)
    assert ticket[0][ticket[1]] == ticket[2]


def test_an_input_counts_only_if_no_ticket_came_with_it(ring) -> None:
    one, two = Program(1), Program(2)
    turns = turns_of(ring, one, two)
    ring.issue(1, 0)
    assert not turns.ready()
    shown = one.first.words

    class Late:
        def __getitem__(self, index: int) -> int:
            """Have the driver give the turns to two and back while the actor looks."""
            one.first.words = shown
            ring.issue(2, 0)
            ring.issue(1, 1)
            one.shown = two.shown = 1
            return shown[index]

    turns.remove(1)
    one.first.words = Late()
    turns.add(TicketPart(ring_id=7, keys={1: 1}), [one])
    assert take(turns, one, two) == [2, 1]


@pytest.mark.parametrize("how", ["ended", "removed", "nothing shown"])
def test_a_graph_that_has_ended_has_no_turn(ring, how) -> None:
    one, two = Program(1), Program(2, shown=1)
    turns = turns_of(ring, one, two)
    ring.issue(1, 0)
    ring.issue(2, 0 if how == "nothing shown" else 1)
    if how == "ended":
        assert not turns.ready()
        one.ended = True
    elif how == "removed":
        assert not turns.ready()
        turns.remove(1)
    assert take(turns, one, two) == [2]


def test_executions_from_before_the_second_graph_came_are_the_first_ones(ring) -> None:
    one, two = Program(1, shown=5, execution=3), Program(2, shown=1)
    turns = turns_of(ring, one, two)
    for ticket in [(1, 0), (2, 5), (1, 1)]:
        ring.issue(*ticket)
    assert take(turns, one, two) == [1, 1, 2]
    one.shown = 6
    assert take(turns, one, two) == [1]


def test_a_graph_that_comes_later_has_the_turns_of_its_ticket(ring) -> None:
    one, two = Program(1, shown=1), Program(2, shown=1)
    turns = turns_of(ring, one)
    for ticket in [(1, 0), (2, 1)]:
        ring.issue(*ticket)
    assert take(turns, one) == [1]
    turns.add(TicketPart(ring_id=7, keys={1: 1, 2: 2}), [one, two])
    assert take(turns, one, two) == [2]


def test_a_graph_that_ended_while_it_ran_leaves(ring) -> None:
    one, two = Program(1, shown=2), Program(2, shown=1)
    turns = turns_of(ring, one, two)
    ring.issue(1, 0)
    ring.issue(2, 2)
    assert turns.ready()
    one.ended = True
    assert not turns.run()
    assert not turns.leave()
    assert take(turns, one, two) == [2]
    assert not turns.is_empty
    turns.remove(2)
    assert turns.is_empty


class Replay:
    """Two actors that share three graphs, and what they ran."""

    def __init__(self) -> None:
        self.rings = [TicketRing(), TicketRing()]
        self.programs = [[Program(key) for key in (1, 2, 3)] for _ in self.rings]
        pairs = zip(self.rings, self.programs, strict=True)
        self.turns = [turns_of(ring, *programs) for ring, programs in pairs]
        self.shown = {0: 0, 1: 0, 2: 0, 3: 0}
        self.issued: list[int] = []
        self.ran: list[list[int]] = [[], []]

    def act(self, actor: int, times: int = 1) -> None:
        for _ in range(times):
            self.ran[actor] += take_one(self.turns[actor], self.programs[actor])

    def issue(self, key: int, events) -> None:
        """Issue an execution; before each thing it does, actors may look, or Ctrl-C may come."""
        for ring in self.rings:
            if ring.holder != key:
                ring.issue(key, self.shown[ring.holder])
            event = next(events)
            if event == "interrupt":
                return
            self.act(0, event == 0)
            self.act(1, event == 1)
        self.shown[key] += 1
        self.issued.append(key)
        for actor in (0, 1) if next(events) == 0 else (1, 0):
            self.programs[actor][key - 1].shown += 1
            self.act(actor, next(events) == 0)


def take_one(turns, programs):
    before = [program.execution for program in programs]
    if turns.ready():
        turns.run()
    return [p.number for p, old in zip(programs, before, strict=True) if p.execution != old]


@given(st.data())
def test_all_actors_take_all_turns_in_the_order_of_the_driver(data) -> None:
    replay = Replay()
    draw = st.sampled_from([0, 0, 1, 1, 2, "interrupt"])
    events = iter(lambda: data.draw(draw), None)
    for key in data.draw(st.lists(st.sampled_from([1, 1, 1, 2, 3]), max_size=25)):
        replay.issue(key, events)
    for actor, ran in enumerate(replay.ran):
        replay.act(actor, len(replay.issued))
        assert ran == replay.issued
    for ring in replay.rings:
        ring.close()


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
        thread.join(200)
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


@pytest.mark.parametrize("after", [0, 1])
def test_an_execution_that_was_broken_off_holds_no_other_graph_up(pair, monkeypatch, after) -> None:
    """Broken off before any of its inputs was shown, or between them."""
    left, right = pair
    with InputNode() as inp:
        one, other = left.first.bind(inp[0]), right.first.bind(inp[1])
        several = MultiOutputNode([left.meet.bind(one, other), right.meet.bind(other, one)])
    with (
        several.experimental_compile() as graph,
        crossing(right, left).experimental_compile() as second,
    ):
        (*_, last) = [writer for writer, _ in graph._submission.inlet.writers]
        first = graph._submission.inlet.writers[0][0]
        interrupt_once(monkeypatch, (first, last)[after], "publish", after=False)
        with pytest.raises(KeyboardInterrupt):
            graph.execute(1, 2)
        assert get_all(second.execute(2)) == [(2, 2)] * 2
        assert get_all(graph.execute(3, 4)) == [(3, 4), (4, 3)]
        assert get_all(second.execute(5)) == [(5, 5)] * 2


def test_a_full_ring_is_said_and_nothing_was_started(pair, monkeypatch) -> None:
    left, right = pair
    with (
        crossing(left, right).experimental_compile() as one,
        crossing(right, left).experimental_compile() as other,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(TicketRing, "is_full", True)
            assert get_all(one.execute(1)) == [(1, 1)] * 2  # whose turns it is needs no ticket
            with pytest.raises(CapacityExceededError, match=r"share actor Meeting\(\d\) took"):
                other.execute(1)
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
            thread.join(120)
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
