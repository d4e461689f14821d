"""Run a graph through ordinary calls, without compiling: what compiled graphs must agree with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compiled_dag.errors import GraphError, GraphUsageError
from compiled_dag.node import (
    ClassMethodNode,
    CollectiveOutputNode,
    DAGNode,
    ElementNode,
    InputAttributeNode,
    InputNode,
    MultiOutputNode,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class DAGInputData:
    """Several inputs: positional by int, keyword by str."""

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._args = tuple(args)
        self._kwargs = dict(kwargs)

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, int):
            return self._args[key]
        if isinstance(key, str):
            return self._kwargs[key]
        msg = f"inputs are positional (int) or keyword (str), not {key!r}"
        raise ValueError(msg)


def interpret(output: DAGNode, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call every node the output needs, once each; returns the output's ref, or a list of refs."""
    whole = args[0] if len(args) == 1 and not kwargs else DAGInputData(args, kwargs)
    results: dict[int, Any] = {}
    for node in _needed(output):
        results[id(node)] = _run(node, whole, results)
    return results[id(output)]


def _needed(output: DAGNode) -> list[DAGNode]:
    """Return the nodes `output` needs, in bind order, which is a legal order."""
    found = {id(output): output}
    todo = [output]
    while todo:
        for node in todo.pop()._upstream():
            if id(node) not in found:
                found[id(node)] = node
                todo.append(node)
    return sorted(found.values(), key=lambda node: node._order)


def _run(node: DAGNode, whole: Any, results: dict[int, Any]) -> Any:
    match node:
        case InputNode():
            if not node._entered:
                msg = f"the InputNode made at {node._source} was not entered: `with InputNode()`"
                raise GraphUsageError(msg)
            return whole
        case InputAttributeNode():
            if node._by_attribute and not isinstance(whole, DAGInputData):
                return getattr(whole, str(node._key))
            return whole[node._key]
        case ElementNode():
            return results[id(node._call)][node._index]
        case MultiOutputNode():
            return [_resolve(value, results) for value in node._args]
        case CollectiveOutputNode():
            msg = f"{node!r}: collectives exist only in compiled graphs; use experimental_compile()"
            raise NotImplementedError(msg)
        case ClassMethodNode():
            args = [_resolve(value, results) for value in node._args]
            kwargs = {name: _resolve(value, results) for name, value in node._kwargs.items()}
            return node._target.call_resolved(args, kwargs)
    msg = f"{node!r} cannot be executed"
    raise GraphError(msg)


def _resolve(value: Any, results: dict[int, Any]) -> Any:
    """Put results in place of the nodes in an argument."""
    if isinstance(value, DAGNode):
        return results[id(value)]
    if type(value) is list:
        return [_resolve(item, results) for item in value]
    if type(value) is tuple:
        return tuple(_resolve(item, results) for item in value)
    if type(value) is dict:
        return {key: _resolve(item, results) for key, item in value.items()}
    return value
