from __future__ import annotations

import dataclasses
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_dag.host import ActorId
from compiled_dag.ir import DRIVER, Call, Graph, Input, Node, NodeId, Output, Pool
from compiled_dag.passes.workers import assign_workers
from compiled_dag.tree import Arguments, Val

ACTOR = ActorId(1)
POOL = Pool(id=ActorId(-2), label="functions", most=100)
OTHER = Pool(id=ActorId(-3), label="others", most=100)


def graph_of(*calls, actors=()):
    """Return a graph of calls: ``(place, *needs)``, needs by position from 1; 0 is the input."""
    nodes = [Node(id=NodeId(0), actor=DRIVER, op=Input(), order=0, label="input")]
    for number, (place, *needs) in enumerate(calls, 1):
        op = Call(method="f", arguments=Arguments(tuple(map(Val, needs))))
        nodes.append(Node(id=NodeId(number), actor=place, op=op, order=number, label="f"))
    used = {use for node in nodes for use in node.uses()}
    ends = tuple(Val(node.id) for node in nodes[1:] if node.id not in used)
    number = NodeId(len(nodes))
    nodes.append(
        Node(id=number, actor=DRIVER, op=Output(values=ends), order=number, label="output")
    )
    return Graph(
        nodes=tuple(nodes),
        operations=(),
        output=number,
        single_output=False,
        actors=tuple(actors),
        labels=tuple(f"A({actor})" for actor in actors),
    )


def workers(graph, pools=(POOL,), limit=100):
    """Return the nodes of each worker."""
    assigned, pool_of = assign_workers(graph, pools, limit)
    assert assigned.actors == (*graph.actors, *pool_of)
    return [[node.id for node in assigned.nodes if node.actor == worker] for worker in pool_of]


def test_a_chain_has_one_worker() -> None:
    p = POOL.id
    assert workers(graph_of((p, 0), (p, 1), (p, 2))) == [[1, 2, 3]]


def test_calls_that_can_run_at_once_have_a_worker_each() -> None:
    p = POOL.id
    assert workers(graph_of((p, 0), (p, 0), (p, 0))) == [[1], [2], [3]]


def test_a_diamond_has_two_and_values_stay_where_they_can() -> None:
    p = POOL.id
    assert workers(graph_of((p, 0), (p, 1), (p, 1), (p, 2, 3))) == [[1, 2, 4], [3]]


def test_the_first_choice_is_changed_where_that_saves_a_worker() -> None:
    p = POOL.id
    # 3 takes 1, which 4 needs: 3 can have 2 instead.
    assert workers(graph_of((p, 0), (p, 0), (p, 1, 2), (p, 1))) == [[1, 4], [2, 3]]


def test_needing_through_actors_and_their_order_counts() -> None:
    p = POOL.id
    through = graph_of((p, 0), (ACTOR, 1), (p, 2), actors=[ACTOR])
    assert workers(through) == [[1, 3]]
    # Call 5 is made after call 4, on one actor, so 3 and 6 cannot run at once either.
    by_order = graph_of((p, 0), (ACTOR, 1), (ACTOR, 0), (p, 3), actors=[ACTOR])
    assert workers(by_order) == [[1, 4]]


def test_a_limit_joins_chains_evenly() -> None:
    p = POOL.id
    graph = graph_of((p, 0), (p, 1), (p, 2), (p, 0), (p, 4), (p, 0))
    assert workers(graph, limit=2) == [[1, 2, 3], [4, 5, 6]]
    assert workers(graph, limit=1) == [[1, 2, 3, 4, 5, 6]]
    assert workers(graph, [dataclasses.replace(POOL, most=2)]) == [[1, 2, 3], [4, 5, 6]]


def test_pools_share_the_limit_and_each_has_a_worker() -> None:
    p, q = POOL.id, OTHER.id
    graph = graph_of((p, 0), (p, 0), (p, 0), (q, 0), (q, 0))
    assert workers(graph, [POOL, OTHER], limit=3) == [[1, 3], [2], [4, 5]]
    assert workers(graph, [POOL, OTHER], limit=1) == [[1, 2, 3], [4, 5]]


def test_a_function_that_is_alone_has_one_worker_beside_the_limit() -> None:
    p, q = POOL.id, OTHER.id
    graph = graph_of((q, 0), (q, 0), (p, 0), (p, 0))
    alone = dataclasses.replace(OTHER, alone=True)
    assert workers(graph, [POOL, alone], limit=2) == [[3], [4], [1, 2]]


def test_workers_are_new_actors_with_the_label_of_their_pool() -> None:
    graph = graph_of((POOL.id, 0), (ACTOR, 1), (POOL.id, 0), actors=[ACTOR])
    assigned, pool_of = assign_workers(graph, [POOL], 100)
    assert assigned.labels == ("A(1)", "functions", "functions")
    assert set(pool_of.values()) == {POOL.id}
    assert not set(pool_of) & {DRIVER, POOL.id, ACTOR}
    assert assigned.nodes[2].actor == ACTOR


def test_a_graph_without_functions_stays() -> None:
    graph = graph_of((ACTOR, 0), actors=[ACTOR])
    assert assign_workers(graph, [], 1) == (graph, {})


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 9))
    calls = []
    for number in range(1, count + 1):
        place = draw(st.sampled_from([POOL.id, POOL.id, ACTOR]))
        calls.append((place, *draw(st.sets(st.integers(0, number - 1), min_size=1, max_size=3))))
    return graph_of(*calls, actors=[ACTOR])


def needs_of(graph):
    """Return all that each call needs, an actor's calls in order."""
    found = {node.id: set() for node in graph.nodes}
    last = None
    for node in graph.nodes:
        before = list(node.uses())
        if node.actor == ACTOR:
            before += [] if last is None else [last]
            last = node.id
        for one in before:
            found[node.id] |= {one, *found[one]}
    return found


@settings(max_examples=60)
@given(graphs())
def test_there_are_as_many_workers_as_calls_that_can_run_at_once(graph) -> None:
    needs = needs_of(graph)
    calls = [node.id for node in graph.nodes if node.actor == POOL.id]

    def at_once(some) -> bool:
        return not any(a in needs[b] or b in needs[a] for a, b in combinations(some, 2))

    most = max(size for size in range(len(calls) + 1)
               for some in combinations(calls, size) if at_once(some))  # fmt: skip
    found = workers(graph)
    assert len(found) == most
    assert sorted(node for worker in found for node in worker) == sorted(calls)
    assert all(a in needs[b] for worker in found for a, b in pairwise(worker))


@pytest.mark.parametrize("wide", [False, True])
def test_large_graphs_are_quick(wide) -> None:
    """A thousand calls: nothing quadratic in Python, nothing recursive."""
    calls = [(POOL.id, 0 if wide else number) for number in range(1000)]
    assert len(workers(graph_of(*calls), limit=4)) == (4 if wide else 1)
