"""Pass: which worker runs which call of a function.

Calls of which one needs the other's value, however indirectly, cannot run at the same time: a
worker can have all of them and delays none. So a pool's calls are split into as few such chains as
possible, which by Dilworth's theorem is as many as there are calls that can run at once; a chain
is a worker. The fewest chains are found as a largest matching of calls with calls they need; those
whose value they are given are tried first, because it then stays in its process.

Where that makes more workers than may be, chains share one: the longest come first, each goes to
the worker with the fewest calls.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict, deque
from typing import TYPE_CHECKING

from compiled_dag.host import ActorId
from compiled_dag.ir import DRIVER, Call, Element, Graph, Node, NodeId, Pool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def assign_workers(
    graph: Graph, pools: Sequence[Pool], limit: int
) -> tuple[Graph, dict[ActorId, ActorId]]:
    """Return the graph with a worker for each call of a function, and the pool of each worker.

    Args:
        graph: Calls of functions are on the actor that stands for their pool.
        pools: Those there are.
        limit: Workers in all; more if there are more pools, and besides those of pools that are
            `alone`.
    """
    pooled = frozenset(pool.id for pool in pools)
    chains = {pool.id: _chains(graph, pool, pooled) for pool in pools}
    sizes = _sizes({pool: len(chains[pool.id]) for pool in pools}, limit)
    lowest = min([DRIVER, *graph.actors, *chains])
    worker_of: dict[NodeId, ActorId] = {}
    pool_of: dict[ActorId, ActorId] = {}
    for pool in pools:
        for members in _shared(chains[pool.id], sizes[pool.id]):
            worker = ActorId(lowest - len(pool_of) - 1)
            pool_of[worker] = pool.id
            worker_of |= dict.fromkeys(members, worker)
    return _moved(graph, worker_of, pool_of, {pool.id: pool for pool in pools}), pool_of


def _moved(
    graph: Graph,
    worker_of: Mapping[NodeId, ActorId],
    pool_of: Mapping[ActorId, ActorId],
    pools: Mapping[ActorId, Pool],
) -> Graph:
    def where(node: Node) -> ActorId:
        number = node.op.source if isinstance(node.op, Element) else node.id
        return worker_of.get(number, node.actor)

    nodes = tuple(dataclasses.replace(node, actor=where(node)) for node in graph.nodes)
    return dataclasses.replace(
        graph,
        nodes=nodes,
        actors=(*graph.actors, *pool_of),
        labels=(*graph.labels, *(pools[pool].label for pool in pool_of.values())),
    )


def _sizes(wanted: Mapping[Pool, int], limit: int) -> dict[ActorId, int]:
    """Return how many workers each pool gets: one, then one more where most are missing."""
    sizes = {pool.id: min(count, 1) for pool, count in wanted.items()}
    sharing = {pool.id: min(count, pool.most) for pool, count in wanted.items() if not pool.alone}
    left = limit - sum(sizes[pool] for pool in sharing)
    while left > 0 and sharing:
        pool = max(sharing, key=lambda one: sharing[one] - sizes[one])
        if sizes[pool] >= sharing[pool]:
            break
        sizes[pool] += 1
        left -= 1
    return sizes


def _shared(chains: list[list[NodeId]], size: int) -> list[list[NodeId]]:
    """Return the nodes of each of `size` workers."""
    workers: list[list[NodeId]] = [[] for _ in range(size)]
    for chain in sorted(chains, key=len, reverse=True):
        min(workers, key=len).extend(chain)
    return workers


def _chains(graph: Graph, pool: Pool, pools: frozenset[ActorId]) -> list[list[NodeId]]:
    """Split a pool's calls into the fewest chains; each call needs the one before it."""
    calls = sorted(
        (node for node in graph.nodes if node.actor == pool.id and isinstance(node.op, Call)),
        key=lambda node: node.order,
    )
    chains: list[list[NodeId]] = []
    chain_of: dict[int, list[NodeId]] = {}
    for number, leader in enumerate(_leaders(*_needs(graph, calls, pools))):
        if leader is None:
            chains.append([])
        chain = chain_of[number] = chains[-1] if leader is None else chain_of[leader]
        chain.append(calls[number].id)
    return chains


def _needs(
    graph: Graph, calls: Sequence[Node], pools: frozenset[ActorId]
) -> tuple[list[int], list[int]]:
    """Return, for each call, the calls whose value it is given, and all that it needs.

    Both as bits by position in `calls`.
    """
    position = {node.id: number for number, node in enumerate(calls)}
    direct, needed = [0] * len(calls), [0] * len(calls)
    before: dict[NodeId, int] = defaultdict(int)
    last: dict[ActorId, int] = defaultdict(int)
    for node in sorted(graph.nodes, key=lambda node: node.order):
        uses = node.uses()
        bits = 0
        for use in uses:
            bits |= before[use]
        if isinstance(node.op, Call) and node.actor not in pools:
            # An actor's calls run one after the other, whether they need each other or not.
            bits = last[node.actor] = last[node.actor] | bits
        number = position.get(node.id)
        if number is not None:
            given = {_maker(graph, use) for use in uses}
            direct[number] = sum(1 << position[use] for use in given if use in position)
            needed[number] = bits
            bits |= 1 << number
        before[node.id] = bits
    return direct, needed


def _maker(graph: Graph, value: NodeId) -> NodeId:
    """Return the call that makes a value, if it is one of several of a call."""
    op = graph.nodes[value].op
    return op.source if isinstance(op, Element) else value


def _leaders(direct: Sequence[int], needed: Sequence[int]) -> list[int | None]:
    """Match as many calls as possible with one that they need; nobody twice.

    Returns:
        By call, the one before it in its chain.
    """
    leader: list[int | None] = [None] * len(needed)
    follower: dict[int, int] = {}
    for number, given in enumerate(direct):
        free = next((one for one in _bits(given) if one not in follower), None)
        if free is not None:
            leader[number], follower[free] = free, number
    for number in range(len(needed)):
        if leader[number] is None:
            _augment(number, needed, leader, follower)
    return leader


def _augment(
    number: int, needed: Sequence[int], leader: list[int | None], follower: dict[int, int]
) -> None:
    """Find a call its leader, if others can take another one."""
    found_by: dict[int, int] = {}
    unseen = ~0
    queue = deque([number])
    while queue:
        at = queue.popleft()
        for one in _bits(needed[at] & unseen):
            unseen &= ~(1 << one)
            found_by[one] = at
            if one not in follower:
                _exchange(one, found_by, leader, follower)
                return
            queue.append(follower[one])


def _exchange(
    free: int, found_by: Mapping[int, int], leader: list[int | None], follower: dict[int, int]
) -> None:
    """Give a free call to who found it, whose own goes to who found that, and so on."""
    one: int | None = free
    while one is not None:
        taker = found_by[one]
        follower[one] = taker
        one, leader[taker] = leader[taker], one


def _bits(number: int) -> list[int]:
    found = []
    while number:
        lowest = number & -number
        found.append(lowest.bit_length() - 1)
        number ^= lowest
    return found
