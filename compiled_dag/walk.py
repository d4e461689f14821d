"""Ways through a graph of nodes."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from compiled_dag.containers import replaced
from compiled_dag.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from compiled_dag.node import DAGNode


def needed(output: DAGNode) -> list[DAGNode]:
    """Return the nodes `output` needs, and itself, in bind order; each uuid once."""
    found = {output._stable_uuid: output}
    todo = [output]
    while todo:
        for node in todo.pop()._upstream():
            if node._stable_uuid not in found:
                found[node._stable_uuid] = node
                todo.append(node)
    return sorted(found.values(), key=lambda node: node._order)


def component(start: DAGNode) -> list[DAGNode]:
    """Return every node connected with `start`, the nearest first."""
    found = {id(start): start}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for other in (*node._downstream, *node._upstream(), *node._partners()):
            if id(other) not in found:
                found[id(other)] = other
                queue.append(other)
    return list(found.values())


def resolved(kind: type[DAGNode], node: DAGNode, value: Any, results: Mapping[str, Any]) -> Any:
    """Return an argument of `node` with results, by uuid, in place of nodes.

    Raises:
        GraphError: There is no result yet: the node was bound after the one that needs it.
    """

    def result_of(other: DAGNode) -> Any:
        if other._stable_uuid not in results:
            msg = (
                f"{node!r} needs {other!r}, which was bound later: its arguments were changed "
                "after the bind, perhaps into a cycle"
            )
            raise GraphError(msg)
        return results[other._stable_uuid]

    return replaced(value, kind, result_of)


def apply_recursive(
    kind: type[DAGNode], output: DAGNode, function: Callable[[DAGNode], Any]
) -> Any:
    """See `DAGNode.apply_recursive`. Does not recurse: graphs may be deep."""
    results: dict[str, Any] = {}
    for node in needed(output):

        def put(value: Any, node: DAGNode = node) -> Any:
            return resolved(kind, node, value, results)

        copy = node._replaced(
            [put(value) for value in node._bound_args],
            {name: put(value) for name, value in node._bound_kwargs.items()},
            {
                name: put(value) if isinstance(value, kind) else value
                for name, value in node._bound_other_args_to_resolve.items()
            },
        )
        results[node._stable_uuid] = function(copy)
    return results[output._stable_uuid]


def apply_functional(
    kind: type[DAGNode],
    source: Any,
    predicate: Callable[[DAGNode], bool],
    function: Callable[[DAGNode], Any],
) -> Any:
    """See `DAGNode.apply_functional`."""
    made: dict[int, Any] = {}

    def replacement(node: DAGNode) -> Any:
        if not predicate(node):
            return node
        if id(node) not in made:
            made[id(node)] = function(node)
        return made[id(node)]

    return replaced(source, kind, replacement)
