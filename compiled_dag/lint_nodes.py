"""Rules of a legal graph that take the user's live nodes to check; `lint` has the others."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from compiled_dag.class_node import ClassMethodNode, ClassNode
from compiled_dag.errors import GraphError, GraphUsageError
from compiled_dag.input_node import InputNode
from compiled_dag.notice import warn
from compiled_dag.output_node import MultiOutputNode
from compiled_dag.walk import component

if TYPE_CHECKING:
    from compiled_dag.containers import Found
    from compiled_dag.function_node import FunctionNode
    from compiled_dag.node import DAGNode


def one_input(members: list[DAGNode]) -> InputNode | None:
    """Return the input, if there is one.

    Raises:
        GraphUsageError: There are two, or it was not entered.
    """
    inputs = [node for node in members if isinstance(node, InputNode)]
    if len(inputs) > 1:
        msg = f"the graph has {len(inputs)} InputNodes, made at {_sources(inputs)}. Use one"
        raise GraphUsageError(msg)
    for node in inputs:
        if not node._entered:
            msg = (
                f"the InputNode made at {node._source} was not entered: `with InputNode() as inp:`"
            )
            raise GraphUsageError(msg)
    return inputs[0] if inputs else None


def one_output(members: list[DAGNode], output: DAGNode) -> None:
    """Refuse a second output.

    Raises:
        GraphUsageError: There is one.
    """
    others = [node for node in members if isinstance(node, MultiOutputNode) and node is not output]
    if others:
        which = "the MultiOutputNode" if len(others) == 1 else f"{len(others)} MultiOutputNodes"
        msg = (
            f"the graph has another output, {which} made at {_sources(others)}. Compile that one, "
            "or put all outputs into one MultiOutputNode, which cannot be inside another; to draw "
            "anew, begin with a new InputNode"
        )
        raise GraphUsageError(msg)


def _sources(nodes: list[Any]) -> str:
    return ", ".join(dict.fromkeys(node._source for node in nodes))


def check_open(what: str, found: Found[DAGNode]) -> list[DAGNode]:
    """Return the nodes in a value.

    Args:
        what: The value, for messages.
        found: What was found in it.

    Raises:
        GraphError: One is inside something that is no list, tuple or dict.
    """
    for hidden, whole in found.hidden:
        where = "a key of a dict" if type(whole) is dict else f"a {type(whole).__name__}"
        msg = (
            f"{what}, has {hidden!r} inside {where}. In a compiled graph nodes may stand in lists, "
            "tuples and values of dicts only: take the object apart"
        )
        raise GraphError(msg)
    return found.nodes


def check_constructor(node: ClassNode) -> None:
    """Refuse a class node whose actor cannot be made before the graph runs.

    Raises:
        GraphError: An argument needs a value of the graph, or the actor is not the graph's own.
    """
    for name, found in node._search():
        what = f"argument {name!r} of the constructor of {node._label}, bound at {node._source}"
        for other in check_open(what, found):
            if not isinstance(other, ClassNode):
                msg = (
                    f"{what}, is {other!r}, whose value is not known when the graph is compiled. "
                    "Give it to a method, or make the actor first"
                )
                raise GraphError(msg)
    if node._class.declared.get("get_if_exists"):
        msg = (
            f"{node!r}: with get_if_exists=True the actor may be another's, and teardown would end "
            "it. Get its handle first and bind its methods"
        )
        raise GraphError(msg)


def check_kind(node: ClassMethodNode | FunctionNode) -> None:
    """Refuse what returns before its work is done: a node's value is made in one go."""
    is_method = isinstance(node, ClassMethodNode)
    function = node._method.function if is_method else node._function.function
    what = "method" if is_method else "function"
    if inspect.iscoroutinefunction(function):
        kind, remedy = f"a coroutine {what}", "make it a plain one, which may call asyncio.run"
    elif inspect.isasyncgenfunction(function):
        kind, remedy = f"an async generator {what}", "return a list from a plain one"
    elif inspect.isgeneratorfunction(function):
        kind, remedy = f"a generator {what}", "return a list, or bind one call per value"
    else:
        return
    msg = f"{node._label}, bound at {node._source}, is {kind}. In a graph, {remedy}"
    raise GraphError(msg)


def check_arity(node: FunctionNode) -> None:
    """Refuse arguments that a function does not take; of methods `bind` has refused them.

    Raises:
        TypeError: They do not fit.
    """
    try:
        node._function.check(node._bound_args, node._bound_kwargs)
    except TypeError as error:
        msg = f"{node._label}, bound at {node._source}: {error}"
        raise TypeError(msg) from None


def warn_of_retries(output: DAGNode) -> None:
    """Say once what is not done again after a failure, though it was declared."""
    names = ("max_retries", "max_task_retries", "retry_exceptions")
    declared = {
        f"{node._label} ({name}={node._bound_options[name]!r}, bound at {node._source})"
        for node in component(output)
        for name in names
        if node._bound_options.get(name)
    }
    if declared:
        warn(
            "calls in a compiled graph are never made again, so these options have no effect: "
            + ", ".join(sorted(declared)),
            RuntimeWarning,
        )
