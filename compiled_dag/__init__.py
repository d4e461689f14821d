"""Compiled graphs of actor methods: draw with ``.bind()``, compile once, execute many times."""

from typing import TYPE_CHECKING, Any

from compiled_dag.call_node import IS_CLASS_METHOD_OUTPUT_KEY, ElementNode
from compiled_dag.class_node import (
    BIND_INDEX_KEY,
    PARENT_CLASS_NODE_KEY,
    PREV_CLASS_METHOD_CALL_KEY,
    ClassMethodNode,
    ClassNode,
)
from compiled_dag.collective_node import COLLECTIVE_OPERATION_KEY, CollectiveOutputNode
from compiled_dag.communicator import Communicator
from compiled_dag.errors import (
    ActorAlreadyExistsError,
    ActorClassInheritanceError,
    ActorDiedError,
    ActorError,
    ActorGoneError,
    ActorHandleNotFoundError,
    ActorSetupError,
    ActorUnavailableError,
    ActorUnschedulableError,
    CapacityExceededError,
    ChannelClosedError,
    ChannelError,
    ChannelTimeoutError,
    CollectiveError,
    CollectiveMismatchError,
    CollectiveTimeoutError,
    DeadlockError,
    DeserializationError,
    DeviceError,
    ExecutionDroppedError,
    ExecutorError,
    GetTimeoutError,
    GraphActorDiedError,
    GraphError,
    GraphUsageError,
    MemoryCapError,
    ObjectLostError,
    ObjectStoreFullError,
    OwnerDiedError,
    PendingCallsLimitError,
    RuntimeEnvSetupError,
    SubmitTimeoutError,
    SystemFaultError,
    TaskCancelledError,
    TaskError,
    TaskUnschedulableError,
    UnserializableError,
    WorkerCrashedError,
)
from compiled_dag.function_node import FunctionNode
from compiled_dag.hints import AutoTransportType, TorchTensorType
from compiled_dag.input_node import InputAttributeNode, InputNode
from compiled_dag.interpret import DAGInputData
from compiled_dag.node import DAGNODE_TYPE_KEY, DAGNode
from compiled_dag.operation import CollectiveOp
from compiled_dag.output_node import MultiOutputNode

if TYPE_CHECKING:
    from compiled_dag.accelerator import (
        AcceleratorContext,
        is_accelerator_context_registered,
        register_accelerator_context,
    )
    from compiled_dag.channel.interface import ChannelInterface
    from compiled_dag.channel_context import ChannelContext
    from compiled_dag.driver import CompiledDAG
    from compiled_dag.explain import Explanation
    from compiled_dag.future import CompiledDAGFuture
    from compiled_dag.memory import GraphMemory
    from compiled_dag.operation_future import DAGOperationFuture, GPUFuture
    from compiled_dag.options import CompileOptions, DAGContext
    from compiled_dag.picture.plot import plot
    from compiled_dag.program import Program
    from compiled_dag.ref import CompiledDAGRef
    from compiled_dag.schedule import Op, Schedule

_ON_FIRST_USE = {
    "register_accelerator_context": "compiled_dag.accelerator",
    "is_accelerator_context_registered": "compiled_dag.accelerator",
    "GPUFuture": "compiled_dag.operation_future",
    "DAGOperationFuture": "compiled_dag.operation_future",
    "ChannelInterface": "compiled_dag.channel.interface",
    "ChannelContext": "compiled_dag.channel_context",
    "AcceleratorContext": "compiled_dag.accelerator",
    "CompileOptions": "compiled_dag.options",
    "CompiledDAG": "compiled_dag.driver",
    "CompiledDAGFuture": "compiled_dag.future",
    "CompiledDAGRef": "compiled_dag.ref",
    "DAGContext": "compiled_dag.options",
    "Explanation": "compiled_dag.explain",
    "GraphMemory": "compiled_dag.memory",
    "Op": "compiled_dag.schedule",
    "Program": "compiled_dag.program",
    "Schedule": "compiled_dag.schedule",
    "plot": "compiled_dag.picture.plot",
}
"""What only compiling needs, or only looking into graphs: it would more than double the time that
every import of the package takes."""


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        from compiled_dag.keywords import nearest  # noqa: PLC0415  for a mistake only

        hint = "" if name.startswith("_") else nearest(name, __all__)
        msg = f"module {__name__!r} has no attribute {name!r}{hint}"
        raise AttributeError(msg)
    from importlib import import_module  # noqa: PLC0415  rarely needed

    return getattr(import_module(_ON_FIRST_USE[name]), name)


__all__ = [
    "BIND_INDEX_KEY",
    "COLLECTIVE_OPERATION_KEY",
    "DAGNODE_TYPE_KEY",
    "IS_CLASS_METHOD_OUTPUT_KEY",
    "PARENT_CLASS_NODE_KEY",
    "PREV_CLASS_METHOD_CALL_KEY",
    "AcceleratorContext",
    "ActorAlreadyExistsError",
    "ActorClassInheritanceError",
    "ActorDiedError",
    "ActorError",
    "ActorGoneError",
    "ActorHandleNotFoundError",
    "ActorSetupError",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "AutoTransportType",
    "CapacityExceededError",
    "ChannelClosedError",
    "ChannelContext",
    "ChannelError",
    "ChannelInterface",
    "ChannelTimeoutError",
    "ClassMethodNode",
    "ClassNode",
    "CollectiveError",
    "CollectiveMismatchError",
    "CollectiveOp",
    "CollectiveOutputNode",
    "CollectiveTimeoutError",
    "Communicator",
    "CompileOptions",
    "CompiledDAG",
    "CompiledDAGFuture",
    "CompiledDAGRef",
    "DAGContext",
    "DAGInputData",
    "DAGNode",
    "DAGOperationFuture",
    "DeadlockError",
    "DeserializationError",
    "DeviceError",
    "ElementNode",
    "ExecutionDroppedError",
    "ExecutorError",
    "Explanation",
    "FunctionNode",
    "GPUFuture",
    "GetTimeoutError",
    "GraphActorDiedError",
    "GraphError",
    "GraphMemory",
    "GraphUsageError",
    "InputAttributeNode",
    "InputNode",
    "MemoryCapError",
    "MultiOutputNode",
    "ObjectLostError",
    "ObjectStoreFullError",
    "Op",
    "OwnerDiedError",
    "PendingCallsLimitError",
    "Program",
    "RuntimeEnvSetupError",
    "Schedule",
    "SubmitTimeoutError",
    "SystemFaultError",
    "TaskCancelledError",
    "TaskError",
    "TaskUnschedulableError",
    "TorchTensorType",
    "UnserializableError",
    "WorkerCrashedError",
    "is_accelerator_context_registered",
    "plot",
    "register_accelerator_context",
]
