"""Pass: one total order over all nodes, and so over all communication.

A linear extension of the data dependencies and of each actor's bind order, with a collective's
ranks adjacent. Every participant works in this order; that no two of them can wait for each other
follows: the first unfinished operation in the order has no unfinished predecessor anywhere, so all
who take part in it arrive.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from typing import TYPE_CHECKING

from compiled_dag.errors import DeadlockError
from compiled_dag.ir import Call, Collective, Graph, Input, Node, NodeId, Output

if TYPE_CHECKING:
    from compiled_dag.host import ActorId


def total_order(graph: Graph) -> tuple[NodeId, ...]:
    """Return all nodes that do work, in the order everybody keeps.

    Choice among ready nodes: collectives first, then lowest (position on the actor, node number).

    Raises:
        DeadlockError: Bind order on some actor contradicts the data dependencies.
    """
    units = _units(graph)
    unit_of = {node: number for number, unit in enumerate(units) for node in unit}
    position = _positions(graph)
    after: dict[int, set[int]] = defaultdict(set)
    for before, later in _edges(graph, position):
        if unit_of[before] != unit_of[later]:
            after[unit_of[before]].add(unit_of[later])
    blocked = [0] * len(units)
    for targets in after.values():
        for target in targets:
            blocked[target] += 1
    heap = [_key(graph, units, position, n) for n in range(len(units)) if not blocked[n]]
    heapq.heapify(heap)
    order: list[NodeId] = []
    while heap:
        number = heapq.heappop(heap)[-1]
        order += units[number]
        for target in after[number]:
            blocked[target] -= 1
            if not blocked[target]:
                heapq.heappush(heap, _key(graph, units, position, target))
    stuck = {number for number in range(len(units)) if blocked[number]}
    if stuck:
        waits = [(unit_of[later], unit_of[before], before, later)
                 for before, later in _edges(graph, position)]  # fmt: skip
        among = [wait for wait in waits if {wait[0], wait[1]} <= stuck and wait[0] != wait[1]]
        raise DeadlockError(_cycle_message(graph, among))
    return tuple(order)


def _cycle_message(graph: Graph, waits: list[tuple[int, int, NodeId, NodeId]]) -> str:
    """Return a cycle among units, each of which waits for another one, a line per operation.

    Args:
        graph: The graph.
        waits: Unit, the unit it waits for, and the nodes of both that say so: before, later.
    """
    first = {unit: (other, before, later) for unit, other, before, later in reversed(waits)}
    path: list[int] = []
    unit = waits[0][0]
    while unit not in path:
        path.append(unit)
        unit = first[unit][0]
    labels = dict(zip(graph.actors, graph.labels, strict=True))
    lines = []
    for member in path[path.index(unit) :]:
        _, before, later = (first[member][0], *(graph.nodes[n] for n in first[member][1:]))
        why = "an argument of it" if before.id in later.uses() else "bound before it"
        where = f" on {labels[before.actor]}"
        lines.append(
            f"  {labels[later.actor]}: {later.describe()} waits for "
            f"{before.describe()}{where}, {why}"
        )
    note = ""
    if any(isinstance(graph.nodes[first[member][2]].op, Collective) for member in path):
        note = ", and a collective starts when all its ranks do"
    return (
        "the graph would wait for itself: an actor runs its nodes in the order they were bound"
        f"{note}. Bind in another order, or on other actors\n" + "\n".join(lines)
    )


def _units(graph: Graph) -> list[tuple[NodeId, ...]]:
    """Return what is ordered: single nodes, and all ranks of a collective as one."""
    units = [operation.nodes for operation in graph.operations]
    units += [
        (node.id,) for node in graph.nodes if not isinstance(node.op, Input | Collective | Output)
    ]
    return units


def _positions(graph: Graph) -> dict[NodeId, int]:
    """Return each node's place among its actor's nodes, in bind order."""
    by_actor: dict[ActorId, list[Node]] = defaultdict(list)
    for node in sorted(graph.nodes, key=lambda node: node.order):
        by_actor[node.actor].append(node)
    return {node.id: place for nodes in by_actor.values() for place, node in enumerate(nodes)}


def _edges(graph: Graph, position: dict[NodeId, int]) -> list[tuple[NodeId, NodeId]]:
    edges = [
        (use, node.id)
        for node in graph.nodes
        if not isinstance(node.op, Output)
        for use in node.uses()
        if not isinstance(graph.nodes[use].op, Input)
    ]
    last: dict[ActorId, NodeId] = {}
    working = [node for node in graph.nodes if isinstance(node.op, Call | Collective)]
    for node in sorted(working, key=lambda node: position[node.id]):
        if node.actor in last:
            edges.append((last[node.actor], node.id))
        last[node.actor] = node.id
    return edges


def _key(
    graph: Graph, units: list[tuple[NodeId, ...]], position: dict[NodeId, int], number: int
) -> tuple[bool, int, int, int]:
    nodes = units[number]
    collective = isinstance(graph.nodes[nodes[0]].op, Collective)
    return (not collective, min(position[node] for node in nodes), min(nodes), number)
