"""Checks of a graph's constants, before any process is asked for anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compiled_dag.channel import codec
from compiled_dag.ir import Call
from compiled_dag.tree import Const, leaves

if TYPE_CHECKING:
    from compiled_dag.capture import Captured


def check_constants(captured: Captured) -> None:
    """Check that every constant can be sent, naming node and argument if not.

    Raises:
        TypeError: A constant cannot be pickled.
    """
    for node in captured.graph.nodes:
        if not isinstance(node.op, Call):
            continue
        arguments = node.op.arguments
        named = [*((f"argument {i}", tree) for i, tree in enumerate(arguments.args)),
                 *((f"argument {name!r}", tree) for name, tree in arguments.kwargs)]  # fmt: skip
        for name, tree in named:
            for leaf in leaves(tree):
                if isinstance(leaf, Const):
                    _check_constant(captured.constants[leaf.id], f"{name} of {node.describe()}")


def _check_constant(value: Any, where: str) -> None:
    try:
        codec.encode(value)
    except TypeError as error:
        msg = f"{where}: {error}"
        raise TypeError(msg) from error
