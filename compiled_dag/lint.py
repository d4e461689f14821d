"""What a legal graph obeys. One rule, one function, one message.

The rules that need the user's live objects (two inputs, foreign actors) are checked by `capture`.
"""

from __future__ import annotations

from collections import defaultdict

from compiled_dag.errors import GraphError
from compiled_dag.ir import Call, Collective, Element, Graph, Input, Node, NodeId, Output
from compiled_dag.tree import Val, leaves


def lint(graph: Graph) -> None:
    """Raise `GraphError` for the first rule `graph` breaks."""
    check_cycles(graph)
    check_has_input(graph)
    check_fields_used(graph)
    check_leaves(graph)
    check_input_forms(graph)
    check_outputs(graph)
    check_overwritten(graph)


def contributing(graph: Graph) -> set[NodeId]:
    """Return the nodes whose values reach an output; what a collective makes does so together."""
    partners = {node: operation.nodes for operation in graph.operations for node in operation.nodes}
    for one in graph.nodes:
        if isinstance(one.op, Element) and one.op.source in partners:
            partners[one.op.source] += (one.id,)
    found: set[NodeId] = set()
    todo = [graph.output]
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += graph.nodes[node].uses()
            todo += partners.get(node, ())
    return found


def check_cycles(graph: Graph) -> None:
    """No node needs its own value."""
    done: set[NodeId] = set()
    for start in graph.nodes:
        path: dict[NodeId, None] = {}
        stack: list[tuple[NodeId, bool]] = [(start.id, False)]
        while stack:
            node, leaving = stack.pop()
            if leaving:
                done.add(node)
                path.pop(node)
            elif node in path:
                members = [*list(path)[list(path).index(node) :], node]
                names = " -> ".join(graph.nodes[member].describe() for member in members)
                msg = f"the graph's arguments form a cycle: {names}"
                raise GraphError(msg)
            elif node not in done:
                path[node] = None
                stack.append((node, True))
                stack += [(use, False) for use in graph.nodes[node].uses()]


def check_has_input(graph: Graph) -> None:
    """There is an input."""
    if any(isinstance(node.op, Input) for node in graph.nodes):
        return
    named = next((node.describe() for node in graph.nodes), "the output")
    msg = (
        f"the graph has no input: no InputNode is reachable from {named}. "
        "Bind inside `with InputNode() as inp:` and pass inp, or inp[...], to at least one node"
    )
    raise GraphError(msg)


def check_fields_used(graph: Graph) -> None:
    """Every field of the input that was asked for reaches the output."""
    useful = contributing(graph)
    fields = [
        node for node in graph.nodes if isinstance(node.op, Input) and node.op.key is not None
    ]
    unused = [node for node in fields if node.id not in useful]
    if unused:
        do = "do" if len(unused) > 1 else "does"
        msg = (
            f"of the input's fields ({_fields(fields)}) {_fields(unused)} {do} not reach the "
            "output. Use what is taken from the InputNode, or do not take it"
        )
        raise GraphError(msg)


def check_leaves(graph: Graph) -> None:
    """Every result is used, or is an output; of a collective, each rank's that gets one."""
    needed = {graph.output, *(node for one in graph.operations for node in one.without_result)}
    needed.update(use for node in graph.nodes for use in node.uses())
    unused = [
        node for node in graph.nodes if node.id not in needed and not isinstance(node.op, Input)
    ]
    if unused:
        names = ", ".join(_name(graph, node) for node in unused)
        msg = (
            f"nobody reads the result of {names}. Add it to the MultiOutputNode, have a method "
            "take it, or do not bind it"
        )
        raise GraphError(msg)


def check_input_forms(graph: Graph) -> None:
    """The input is used whole or by fields, not both."""
    inputs = [node for node in graph.nodes if isinstance(node.op, Input)]
    used = {use for node in graph.nodes for use in node.uses()}
    whole = [node for node in inputs if node.op == Input() and node.id in used]
    fields = [node for node in inputs if node.op != Input()]
    if whole and fields:
        by_whole, by_field = _reader(graph, whole[0]), _reader(graph, fields[0])
        msg = (
            f"the InputNode is used whole (by {by_whole}) and by field "
            f"({_fields(fields[:1])}, by {by_field}). Use one form in a graph"
        )
        raise GraphError(msg)


def check_outputs(graph: Graph) -> None:
    """Every output is one node's value, or a constant."""
    for position, tree in enumerate(graph.outputs):
        inside = [leaf.id for leaf in leaves(tree) if isinstance(leaf, Val)]
        if inside and not isinstance(tree, Val):
            msg = (
                f"output {position} of the MultiOutputNode is a container with "
                f"{graph.nodes[inside[0]].describe()} inside. Make each node an output of its own"
            )
            raise GraphError(msg)


def check_overwritten(graph: Graph) -> None:
    """Nobody else reads what a collective overwrites."""
    passing = {
        node for operation in graph.operations for node in operation.nodes
        if operation.method == "barrier"
    }  # fmt: skip

    def origin(value: NodeId) -> NodeId:
        """Return the node that made a value which barriers only pass on."""
        while value in passing:
            (value,) = graph.nodes[value].uses()
        return value

    readers: dict[NodeId, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        if node.id not in passing:
            used = node.op.sources if isinstance(node.op, Collective) else node.uses()
            for use in used:
                readers[origin(use)].append(node)
    for operation in graph.operations:
        for node in (graph.nodes[number] for number in operation.nodes if operation.inplace):
            for use in node.uses():
                others = [reader for reader in readers[origin(use)] if reader is not node]
                if others or len(readers[origin(use)]) > 1:
                    names = ", ".join(_name(graph, one) for one in others) or "it itself, twice"
                    msg = (
                        f"{node.describe()} overwrites its input (inplace=True), which others "
                        f"read: {graph.nodes[origin(use)].describe()} is read by {names}. Leave "
                        "inplace out, or give the others what comes out of the collective"
                    )
                    raise GraphError(msg)


def _fields(nodes: list[Node]) -> str:
    return ", ".join(f"inp[{node.op.key!r}]" for node in nodes if isinstance(node.op, Input))


def _reader(graph: Graph, value: Node) -> str:
    return next(node.describe() for node in graph.nodes if value.id in node.uses())


def _name(graph: Graph, node: Node) -> str:
    match node.op:
        case Element(index=index, source=source):
            return f"element {index} of {graph.nodes[source].describe()}"
        case Call() | Collective() | Input() | Output():
            return node.describe()
