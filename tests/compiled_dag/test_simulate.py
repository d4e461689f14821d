from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings

from compiled_dag import DeadlockError
from compiled_dag.simulate import simulate
from compiled_dag.table import parse
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
