"""Names of Ray's graphs, their transports and their collectives."""

from __future__ import annotations

from typing import Final

from runtime.alias.entries import Entry, Here, Rows, missing, same

_DIRECT: Final = "channels are made by compiling, never directly"
_INTERNAL: Final = "it is one of Ray's internals, and nothing here corresponds to it"
_STAND_INS: Final = "runtime.alias.stand_ins"

_NODES: Final[Rows] = same(
    "compiled_dag",
    "ClassMethodNode",
    "ClassNode",
    "CollectiveOutputNode",
    "DAGInputData",
    "DAGNode",
    "FunctionNode",
    "InputAttributeNode",
    "InputNode",
    "MultiOutputNode",
)
_KEYS: Final = {
    **same(
        "compiled_dag",
        "BIND_INDEX_KEY",
        "COLLECTIVE_OPERATION_KEY",
        "DAGNODE_TYPE_KEY",
        "IS_CLASS_METHOD_OUTPUT_KEY",
        "PARENT_CLASS_NODE_KEY",
        "PREV_CLASS_METHOD_CALL_KEY",
    ),
}
_FUTURES: Final = same("compiled_dag", "DAGOperationFuture", "GPUFuture")
_PLOT: Final = same("compiled_dag", "plot")
_CONTEXT: Final = {
    **same("compiled_dag", "DAGContext"),
    **same(
        _STAND_INS,
        "DEFAULT_BUFFER_SIZE_BYTES",
        "DEFAULT_GET_TIMEOUT_S",
        "DEFAULT_MAX_BUFFERED_RESULTS",
        "DEFAULT_MAX_INFLIGHT_EXECUTIONS",
        "DEFAULT_OVERLAP_GPU_COMMUNICATION",
        "DEFAULT_READ_ITERATION_TIMEOUT_S",
        "DEFAULT_SUBMIT_TIMEOUT_S",
        "DEFAULT_TEARDOWN_TIMEOUT_S",
    ),
}
_SWITCHES: Final = same(
    _STAND_INS,
    "RAY_CGRAPH_ENABLE_DETECT_DEADLOCK",
    "RAY_CGRAPH_ENABLE_NVTX_PROFILING",
    "RAY_CGRAPH_ENABLE_PROFILING",
    "RAY_CGRAPH_ENABLE_TORCH_PROFILING",
    "RAY_CGRAPH_VISUALIZE_SCHEDULE",
)
_FUTURE_REF: Final = same("compiled_dag", "CompiledDAGFuture")


def _pick(rows: Rows, *names: str) -> dict[str, Entry]:
    return {name: rows[name] for name in names}


_DAG: Final[dict[str, Rows]] = {
    "ray.dag": {
        **_NODES,
        **_KEYS,
        **_FUTURES,
        **_PLOT,
        "DAGContext": _CONTEXT["DAGContext"],
        **missing("experimental", why=_INTERNAL),
    },
    "ray.dag.base": {"DAGNodeBase": Here("compiled_dag:DAGNode")},
    "ray.dag.class_node": _pick(_NODES, "ClassMethodNode", "ClassNode"),
    "ray.dag.collective_node": _pick(_NODES, "CollectiveOutputNode"),
    "ray.dag.compiled_dag_node": {
        **same("compiled_dag", "CompiledDAG", "CompiledDAGRef"),
        **_FUTURE_REF,
        **missing(
            "CompiledTask",
            "ExecutableTask",
            "do_allocate_channel",
            "do_cancel_executable_tasks",
            "do_exec_tasks",
            "do_profile_tasks",
            "build_compiled_dag_from_ray_dag",
            why=_INTERNAL,
            instead="compiled.program is the compiled graph as plain data",
        ),
    },
    "ray.dag.constants": {**_KEYS, **_SWITCHES},
    "ray.dag.context": _CONTEXT,
    "ray.dag.dag_node": _pick(_NODES, "DAGNode"),
    "ray.dag.dag_node_operation": {},
    "ray.dag.dag_operation_future": {
        **_FUTURES,
        "ResolvedFuture": Here("compiled_dag.operation_future:ResolvedFuture"),
    },
    "ray.dag.format_utils": missing("get_dag_node_str", why=_INTERNAL, instead="use str(node)"),
    "ray.dag.function_node": _pick(_NODES, "FunctionNode"),
    "ray.dag.input_node": {
        **_pick(_NODES, "DAGInputData", "InputAttributeNode", "InputNode"),
        **missing("IN_CONTEXT_MANAGER", why=_INTERNAL),
    },
    "ray.dag.output_node": _pick(_NODES, "MultiOutputNode"),
    "ray.dag.py_obj_scanner": missing("SourceType", "TransformedType", why=_INTERNAL),
    "ray.dag.utils": {},
    "ray.dag.vis_utils": _PLOT,
}

_CHANNELS: Final = missing(
    "AwaitableBackgroundReader",
    "AwaitableBackgroundWriter",
    "BufferedSharedMemoryChannel",
    "CachedChannel",
    "Channel",
    "CompositeChannel",
    "IntraProcessChannel",
    "ReaderInterface",
    "SharedMemoryType",
    "SynchronousReader",
    "SynchronousWriter",
    "TorchTensorAcceleratorChannel",
    "WriterInterface",
    why=_DIRECT,
    instead="compile a graph; ray.util.queue.Queue connects any processes",
)
_CHANNEL_TYPES: Final = {
    "ChannelOutputType": Here("compiled_dag:TorchTensorType"),
    **same("compiled_dag", "Communicator"),
    **same("collective", "CPUCommunicator"),
    **same("compiled_dag", "ChannelContext", "ChannelInterface"),
    **same(_STAND_INS, "CompiledDAGArgs"),
}

_CHANNEL: Final[dict[str, Rows]] = {
    "ray.experimental.channel": {
        **{name: row for name, row in _CHANNELS.items() if name != "SharedMemoryType"},
        **_CHANNEL_TYPES,
        **missing(
            "cached_channel",
            "intra_process_channel",
            "nccl_group",
            "shared_memory_channel",
            "torch_tensor_accelerator_channel",
            "utils",
            why=_DIRECT,
            instead="compile a graph",
        ),
    },
    "ray.experimental.channel.accelerator_context": same(
        "compiled_dag",
        "AcceleratorContext",
        "is_accelerator_context_registered",
        "register_accelerator_context",
    ),
    "ray.experimental.channel.auto_transport_type": {
        **same("compiled_dag", "AutoTransportType"),
        **missing("TypeHintResolver", why=_INTERNAL),
    },
    "ray.experimental.channel.common": {
        **_pick(
            {**_CHANNELS, **_CHANNEL_TYPES},
            "AwaitableBackgroundReader",
            "AwaitableBackgroundWriter",
            "ChannelContext",
            "ChannelInterface",
            "ChannelOutputType",
            "CompiledDAGArgs",
            "ReaderInterface",
            "SynchronousReader",
            "SynchronousWriter",
            "WriterInterface",
        ),
        **missing("retry_and_check_interpreter_exit", why=_INTERNAL),
    },
    "ray.experimental.channel.communicator": {
        **_pick(_CHANNEL_TYPES, "Communicator"),
        "ReduceOp": Here(f"{_STAND_INS}:GraphReduceOp"),
        "TorchTensorAllocator": Here("compiled_dag.communicator:TensorAllocator"),
    },
    "ray.experimental.channel.communicator_handle": same("collective", "CommunicatorHandle"),
    "ray.experimental.channel.cpu_communicator": {
        **_pick(_CHANNEL_TYPES, "CPUCommunicator"),
        **missing("CPUCommBarrier", why=_INTERNAL),
    },
    "ray.experimental.channel.serialization_context": {},
    "ray.experimental.channel.torch_tensor_type": same("compiled_dag", "TorchTensorType"),
}

_GROUPS: Final = same(
    "collective",
    "create_collective_group",
    "destroy_all_collective_groups",
    "destroy_collective_group",
    "get_collective_groups",
)
_BINDS: Final = {
    **same("collective", "allgather", "allreduce", "reducescatter"),
}
_MULTI_GPU: Final = missing(
    *(
        f"{name}_multigpu"
        for name in (
            "allgather",
            "allreduce",
            "broadcast",
            "recv",
            "reduce",
            "reducescatter",
            "send",
        )
    ),
    why="an actor takes part with one device",
    instead="use one actor per GPU",
)
_EAGER_ROWS: Final = {
    # In a module of the alias: some take gloo_timeout in milliseconds, where ours take timeout_s.
    **same(
        "runtime.alias.eager_collectives",
        "allgather",
        "allreduce",
        "barrier",
        "broadcast",
        "create_collective_group",
        "destroy_collective_group",
        "get_collective_group_size",
        "get_group_handle",
        "get_rank",
        "gloo_available",
        "init_collective_group",
        "is_backend_available",
        "is_group_initialized",
        "nccl_available",
        "recv",
        "reduce",
        "reducescatter",
        "register_collective_backend",
        "send",
    ),
    **_MULTI_GPU,
}

_COLLECTIVE: Final[dict[str, Rows]] = {
    "ray.experimental.collective": {**_BINDS, **_GROUPS},
    "ray.experimental.collective.operations": {
        **_BINDS,
        "ReduceOp": Here(f"{_STAND_INS}:GraphReduceOp"),
        **same(_STAND_INS, "AllGatherOp", "AllReduceOp", "ReduceScatterOp"),
        **missing(
            "AllGatherWrapper",
            "AllReduceWrapper",
            "ReduceScatterWrapper",
            why=_INTERNAL,
            instead="use allreduce.bind(...)",
        ),
    },
    "ray.experimental.util": {},
    "ray.experimental.util.types": {
        "ReduceOp": Here(f"{_STAND_INS}:GraphReduceOp"),
        "Device": Here(f"{_STAND_INS}:Device"),
        **same(_STAND_INS, "AllGatherOp", "AllReduceOp", "ReduceScatterOp"),
    },
    "ray.util.collective": {
        **_EAGER_ROWS,
        **missing("backend_registry", "collective_group", why=_INTERNAL),
    },
    "ray.util.collective.collective": {
        **_EAGER_ROWS,
        **missing(
            "GroupManager",
            "TorchGLOOGroup",
            "get_address_and_port",
            "synchronize",
            why=_INTERNAL,
        ),
    },
    "ray.util.collective.types": {
        "ReduceOp": Here(f"{_STAND_INS}:EagerReduceOp"),
        **same(_STAND_INS, "Backend"),
        **missing(
            "AllGatherOptions",
            "AllReduceOptions",
            "BarrierOptions",
            "BroadcastOptions",
            "RecvOptions",
            "ReduceOptions",
            "ReduceScatterOptions",
            "SendOptions",
            "cupy_available",
            "torch_available",
            why=_INTERNAL,
        ),
    },
}

_TRANSPORTS: Final = "direct tensor transport of ordinary references is not offered"

GRAPHS: Final[dict[str, Rows]] = {
    **_DAG,
    "ray.experimental": {
        **missing(
            "CommunicatorMetadata",
            "RDTManager",
            "TensorTransportManager",
            "TensorTransportMetadata",
            "deregister_nixl_memory",
            "rdt",
            "register_nixl_memory",
            "register_nixl_memory_pool",
            "register_tensor_transport",
            "set_nixl_cuda_stream",
            "set_target_device_for_ref",
            "set_target_for_ref",
            "wait_tensor_freed",
            why=_TRANSPORTS,
            instead="in a graph use .with_tensor_transport()",
        ),
        **missing(
            "dynamic_resources",
            "get_local_object_locations",
            "get_object_locations",
            "locations",
            "set_resource",
            why="there is one machine, whose resources init() fixes",
        ),
        **missing(
            "gradio_utils",
            "internal_kv",
            "job",
            "multiprocessing",
            "queue",
            "sandbox",
            "shuffle",
            "state",
            "tf_utils",
            "tqdm_ray",
            why=_INTERNAL,
        ),
    },
    "ray.experimental.compiled_dag_ref": {
        **same("compiled_dag", "CompiledDAGRef"),
        **_FUTURE_REF,
    },
    **_CHANNEL,
    **_COLLECTIVE,
}
