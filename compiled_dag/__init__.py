"""Compiled graphs of actor methods: draw with ``.bind()``, compile once, execute many times."""

from compiled_dag.driver import CompiledDAG
from compiled_dag.errors import *  # noqa: F403
from compiled_dag.errors import __all__ as _errors
from compiled_dag.interpret import DAGInputData
from compiled_dag.node import (
    ClassMethodNode,
    CollectiveOutputNode,
    DAGNode,
    ElementNode,
    InputAttributeNode,
    InputNode,
    MultiOutputNode,
)
from compiled_dag.operation import CollectiveOp
from compiled_dag.options import CompileOptions, DAGContext
from compiled_dag.program import Program
from compiled_dag.ref import CompiledDAGRef

__all__ = sorted(
    [
        "ClassMethodNode",
        "CollectiveOp",
        "CollectiveOutputNode",
        "CompileOptions",
        "CompiledDAG",
        "CompiledDAGRef",
        "DAGContext",
        "DAGInputData",
        "DAGNode",
        "ElementNode",
        "InputAttributeNode",
        "InputNode",
        "MultiOutputNode",
        "Program",
        *_errors,
    ]
)
