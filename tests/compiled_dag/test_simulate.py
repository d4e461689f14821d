from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collective import allreduce
from compiled_dag import DeadlockError, InputNode, MultiOutputNode
from compiled_dag.simulate import simulate
from compiled_dag.table import parse
from tests.communicators import PaperCommunicator
from tests.graphs import SAMPLES, chain, data_parallel, fan_out, paper, program_of
from tests.recipes import Machine, draw, recipes


def longest(program) -> int:
    """Return the number of ticks of the critical path."""
    return 1 + max(tick for ticks in simulate(program) for tick in ticks)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_step_of_the_samples_has_a_tick_after_the_one_before(name) -> None:
    build, num_actors = SAMPLES[name]
    program = program_of(build(paper(num_actors)))
    for ticks, steps in zip(simulate(program), program.steps, strict=True):
        assert len(ticks) == len(steps)
        assert all(before < after for before, after in pairwise(ticks))


@settings(max_examples=60)
@given(recipes(collectives=True))
def test_no_legal_graph_deadlocks(recipe) -> None:
    output = draw(recipe, paper(recipe.num_actors, kind=Machine))
    simulate(program_of(output, max_inflight=1))
    simulate(program_of(output, max_inflight=3))


@pytest.mark.parametrize("num_actors", [1, 2, 5])
def test_a_hop_of_a_chain_adds_three_steps_to_the_critical_path(num_actors) -> None:
    assert longest(program_of(chain(paper(num_actors)))) == 3 * num_actors + 2


@pytest.mark.parametrize("num_actors", [1, 2, 5])
def test_branches_of_a_fan_out_run_at_one_time(num_actors) -> None:
    last_read = 3 + num_actors
    assert longest(program_of(fan_out(paper(num_actors)))) == max(5, last_read + 1)


def test_ranks_run_at_one_time() -> None:
    ticks = simulate(program_of(data_parallel(paper(4))))
    assert len(set(ticks[1:])) == 1


# --- programs that wait for themselves ------------------------------------------------------------


def report_of(text: str) -> list[str]:
    with pytest.raises(DeadlockError) as raised:
        simulate(parse(text))
    first, *lines = str(raised.value).splitlines()
    assert first == "the program would wait for itself:"
    return [line.strip() for line in lines]


def test_two_actors_that_read_before_they_write() -> None:
    assert report_of("""
        program inflight=2 list
        participant 0 driver
        participant 1 A
        participant 2 B
        channel 0 1>2 1 A.f#1
        channel 1 2>1 2 B.g#2
        slots 0,2,2
        step | driver | A     | B
           0 |        | R1 v0 | R0 v0
           1 |        | W0 v1 | W1 v1
    """) == [
        "A (step 0): waits for B to write B.g#2",
        "B (step 0): waits for A to write A.f#1",
    ]


def test_two_ranks_in_opposite_collective_order() -> None:
    assert report_of("""
        program inflight=2 list
        participant 0 driver
        participant 1 A
        participant 2 B
        operation 0 1,2 3,4 allreduce(SUM)
        operation 1 1,2 5,6 allreduce(MAX)
        slots 0,2,2
        step | driver | A     | B
           0 |        | S0 v0 | S1 v0
           1 |        | J0 v1 | J1 v1
           2 |        | S1 v0 | S0 v0
           3 |        | J1 v1 | J0 v1
    """) == [
        "A, node 3 (step 1): waits in allreduce(SUM) for B",
        "B, node 6 (step 1): waits in allreduce(MAX) for A",
    ]


def test_a_rank_that_takes_no_part() -> None:
    assert report_of("""
        program inflight=2 list
        participant 0 driver
        participant 1 A
        participant 2 B
        participant 3 C
        operation 0 1,2,3 4,5,6 allreduce(SUM)
        slots 0,2,2,2
        step | driver | A     | B     | C
           0 |        | S0 v0 | S0 v0 |
           1 |        | J0 v1 | J0 v1 |
    """) == [
        "A, node 4 (step 1): waits in allreduce(SUM) for C",
        "and behind that:",
        "B, node 5 (step 1): waits in allreduce(SUM) for C",
    ]


def test_a_writer_ahead_of_a_full_channel() -> None:
    assert report_of("""
        program inflight=1 list
        participant 0 driver
        participant 1 A
        participant 2 B
        channel 0 1>2 1 A.f#1
        channel 1 1>2 2 A.g#2
        slots 0,1,1
        step | driver | A     | B
           0 |        | W0 v0 | R1 v0
           1 |        | W0 v0 | R0 v0
           2 |        | W1 v0 | R0 v0
    """) == [
        "A, node 1 (step 1): waits for B to read A.f#1",
        "B (step 0): waits for A to write A.g#2",
    ]


def test_a_driver_that_waits_for_a_result_nobody_makes() -> None:
    assert report_of("""
        program inflight=2 single
        participant 0 driver
        participant 1 A
        channel 0 0>1 0 input
        channel 1 1>0 1 A.f#1
        slots 2,1
        entry - v0
        output v1
        step | driver | A
           0 | W0 v0  | R0 v0
           1 | R1 v1  |
    """) == ["driver, output (step 1): waits for A to write A.f#1"]


def test_a_second_execution_meets_what_the_first_left_behind() -> None:
    assert report_of("""
        program inflight=2 list
        participant 0 driver
        participant 1 A
        participant 2 B
        channel 0 1>2 1 A.f#1
        slots 0,1,1
        step | driver | A     | B
           0 |        | W0 v0 | R0 v0
           1 |        | W0 v0 |
           2 |        | W0 v0 |
    """) == ["A, node 1 (step 1): waits for B to read A.f#1"]


# --- communicators: writer and readers meet -------------------------------------------------------


def two_values(*reads: str) -> str:
    """Return a program whose writer sends two values, and whose reader takes them as given."""
    return f"""
    program inflight=2 single
    participant 0 driver
    participant 1 Writer(1)
    participant 2 Reader(2)
    channel 0 0>1 0 input
    channel 1 1>2 1 Writer.f#1
    channel 2 1>2 2 Writer.g#2
    channel 3 2>0 3 Reader.h#3
    transport 1 communicator default communicator=0 | by Pipes
    transport 2 communicator default communicator=0 | by Pipes
    slots 2,3,3
    entry - v0
    output v1
    step | driver | Writer(1)   | Reader(2)
       0 | W0 v0  |             |
       1 |        | R0 v0       |
       2 |        | C1 v1=f(v0) |
       3 |        | W1 v1       | {reads[0]}
       4 |        | C2 v2=g(v0) |
       5 |        | W2 v2       | {reads[1]}
       6 |        |             | C3 v2=h(v0,v1)
       7 |        |             | W3 v2
       8 | R3 v1  |             |
    """


def test_a_value_that_a_communicator_carries_takes_all_its_ends_at_once() -> None:
    _, writer, reader = simulate(parse(two_values("R1 v0", "R2 v1")))
    assert (writer[2], writer[4]) == (reader[0], reader[1])


def test_a_reader_that_takes_the_second_value_first_is_a_deadlock() -> None:
    with pytest.raises(DeadlockError) as raised:
        simulate(parse(two_values("R2 v1", "R1 v0")))
    assert "waits for Reader(2) to take part in Writer.f#1" in str(raised.value)
    assert "waits for Writer(1) to take part in Writer.g#2" in str(raised.value)


@given(st.randoms(use_true_random=False))
def test_no_legal_graph_with_communicators_deadlocks(random) -> None:
    actors = paper(random.randint(2, 4))
    by = PaperCommunicator(actors)
    with InputNode() as inp:
        values = [(actor.add.bind(inp), actor) for actor in actors]
        for _ in range(random.randint(1, 12)):
            if random.random() < 0.25:
                ours = [[value for value, at in values if at is actor] for actor in actors]
                own = by if random.random() < 0.5 else None
                sums = allreduce.bind([random.choice(of_one) for of_one in ours], transport=own)
                values += zip(sums, actors, strict=True)
            else:
                actor = random.choice(actors)
                some = [random.choice(values)[0] for _ in range(random.randint(1, 3))]
                values.append((actor.join.bind(*some), actor))
        output = MultiOutputNode([a.join.bind(*(value for value, _ in values)) for a in actors])
    for value, _ in values:
        if random.random() < 0.7:
            value.with_tensor_transport(by)
    program_of(output, max_inflight=random.randint(1, 3))
