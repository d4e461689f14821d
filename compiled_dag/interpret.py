"""Run a graph through ordinary calls, without compiling: what compiled graphs must agree with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from compiled_dag.call_node import ElementNode
from compiled_dag.class_node import ClassMethodNode, ClassNode
from compiled_dag.collective_node import CollectiveOutputNode
from compiled_dag.errors import GraphError, GraphUsageError
from compiled_dag.function_node import FunctionNode
from compiled_dag.input_node import InputAttributeNode, InputNode
from compiled_dag.node import DAGNode
from compiled_dag.output_node import MultiOutputNode
from compiled_dag.walk import needed, resolved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compiled_dag.bindable import ClassMethod, Target


class DAGInputData:
    """Several inputs: positional by int, keyword by str."""

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        self._args = args
        self._kwargs = kwargs

    def __getitem__(self, key: int | str) -> Any:
        try:
            if isinstance(key, int):
                return self._args[key]
            if isinstance(key, str):
                return self._kwargs[key]
        except LookupError as error:
            msg = f"there is no input {key!r}: execute got {self._given()}"
            raise type(error)(msg) from None
        msg = f"inputs are positional (int) or keyword (str), not {key!r}"
        raise ValueError(msg)

    def _given(self) -> str:
        """Say what there is."""
        count = len(self._args)
        names = ", ".join(map(repr, self._kwargs)) or "no keywords"
        return f"{count} positional input{'s' * (count != 1)} and {names}"


def interpret(output: DAGNode, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Call every node `output` needs, once each; returns what each gave, by uuid.

    That is a ref or several, a handle for a class node, and a list for a `MultiOutputNode`.
    """
    whole = args[0] if len(args) == 1 and not kwargs else DAGInputData(*args, **kwargs)
    nodes = needed(output)
    _check_inputs(nodes)
    results: dict[str, Any] = {}
    for node in nodes:
        results[node._stable_uuid] = _run(node, whole, results)
    return results


def _check_inputs(nodes: Sequence[DAGNode]) -> None:
    inputs = [node for node in nodes if isinstance(node, InputNode)]
    if len(inputs) > 1:
        places = ", ".join(node._source for node in inputs)
        msg = f"the graph has {len(inputs)} InputNodes, made at {places}. Use one"
        raise GraphUsageError(msg)
    for node in inputs:
        if not node._entered:
            msg = f"the InputNode made at {node._source} was not entered: `with InputNode()`"
            raise GraphUsageError(msg)


def _run(node: DAGNode, whole: Any, results: dict[str, Any]) -> Any:
    match node:
        case InputNode():
            return whole
        case InputAttributeNode():
            return _field(node, whole)
        case ElementNode():
            return results[node._call._stable_uuid][node._index]
        case CollectiveOutputNode():
            msg = f"{node!r}: collectives exist only in compiled graphs; use experimental_compile()"
            raise NotImplementedError(msg)
    args = [resolved(DAGNode, node, value, results) for value in node._bound_args]
    kwargs = {
        name: resolved(DAGNode, node, value, results) for name, value in node._bound_kwargs.items()
    }
    if isinstance(node, MultiOutputNode):
        return args
    return _remote(node, results)(*args, **kwargs)


def _field(node: InputAttributeNode, whole: Any) -> Any:
    """Return an input of several, or an item or attribute of the one; names it if it is missing."""
    if isinstance(whole, DAGInputData):
        return whole[node._key]
    try:
        return getattr(whole, str(node._key)) if node._by_attribute else whole[node._key]
    except (KeyError, IndexError, AttributeError) as error:
        if type(error) not in (KeyError, IndexError, AttributeError):
            raise  # of the user's own class
        how = f"inp.{node._key}" if node._by_attribute else f"inp[{node._key!r}]"
        msg = (
            f"{how}, bound at {node._source}, is not in the one value that execute got, "
            f"of type {type(whole).__name__}: {error}"
        )
        raise type(error)(msg) from error


def _remote(node: DAGNode, results: dict[str, Any]) -> Callable[..., Any]:
    """Return the ordinary call that `node` stands for."""
    match node:
        case FunctionNode():
            return node._function.remote
        case ClassNode():
            return node._class.remote
        case ClassMethodNode(_parent=ClassNode() as parent):
            method = cast("ClassMethod", node._method)
            return method.of(results[parent._stable_uuid]).remote
        case ClassMethodNode():
            return cast("Target", node._method).remote
    msg = f"{node!r} cannot be executed"
    raise GraphError(msg)
