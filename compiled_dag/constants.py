"""Checks of a graph's constants, before any process is asked for anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compiled_dag.channel import codec, pickling
from compiled_dag.class_node import ClassNode
from compiled_dag.ir import Call
from compiled_dag.tree import Const, leaves

if TYPE_CHECKING:
    from compiled_dag.capture import Captured


def check_constants(captured: Captured) -> None:
    """Check that every constant can be sent, naming node and argument if not.

    Raises:
        TypeError: A constant, or a function, cannot be pickled.
    """
    for number, function in captured.functions.items():
        _check_function(function, captured.graph.nodes[number].describe())
    for node in captured.graph.nodes:
        if not isinstance(node.op, Call):
            continue
        arguments = node.op.arguments
        named = [*((f"argument {i}", tree) for i, tree in enumerate(arguments.args)),
                 *((f"argument {name!r}", tree) for name, tree in arguments.kwargs)]  # fmt: skip
        for name, tree in named:
            for leaf in leaves(tree):
                if isinstance(leaf, Const) and not isinstance(
                    captured.constants[leaf.id], ClassNode
                ):
                    _check_constant(captured.constants[leaf.id], f"{name} of {node.describe()}")


def _check_constant(value: Any, where: str) -> None:
    try:
        codec.encode(value)
    except TypeError as error:
        msg = f"{where}: {error}"
        raise TypeError(msg) from error


def _check_function(function: Any, where: str) -> None:
    try:
        pickling.dumps_by_value(function)
    except Exception as error:
        msg = f"{where}: the function cannot be sent ({type(error).__name__}: {error})"
        raise TypeError(msg) from error
