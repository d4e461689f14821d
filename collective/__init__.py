"""Collective operations over actors, in compiled graphs and in methods, on several backends."""

from typing import TYPE_CHECKING, Any

from collective.bind import (
    all_to_all,
    allgather,
    allreduce,
    barrier,
    broadcast,
    gather,
    reduce,
    reducescatter,
    scatter,
)
from collective.calls import recv, send
from collective.ops import Operation, ReduceOp

if TYPE_CHECKING:
    from collective.backends import (
        gloo_available,
        is_backend_available,
        nccl_available,
        register_collective_backend,
    )
    from collective.cpu_communicator import CPUCommunicator
    from collective.eager import (
        create_collective_group,
        destroy_all_collective_groups,
        destroy_collective_group,
        get_collective_group_size,
        get_collective_groups,
        get_group_handle,
        get_rank,
        init_collective_group,
        is_group_initialized,
    )
    from collective.handle import CommunicatorHandle
    from collective.lane import Work

_ON_FIRST_USE = {
    "CPUCommunicator": "collective.cpu_communicator",
    "CommunicatorHandle": "collective.handle",
    "Work": "collective.lane",
    "create_collective_group": "collective.eager",
    "destroy_all_collective_groups": "collective.eager",
    "destroy_collective_group": "collective.eager",
    "get_collective_group_size": "collective.eager",
    "get_collective_groups": "collective.eager",
    "get_group_handle": "collective.eager",
    "get_rank": "collective.eager",
    "gloo_available": "collective.backends",
    "init_collective_group": "collective.eager",
    "is_backend_available": "collective.backends",
    "is_group_initialized": "collective.eager",
    "nccl_available": "collective.backends",
    "register_collective_backend": "collective.backends",
}
"""What graphs do not need."""


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        from compiled_dag.keywords import nearest  # noqa: PLC0415  for a mistake only

        hint = "" if name.startswith("_") else nearest(name, __all__)
        msg = f"module {__name__!r} has no attribute {name!r}{hint}"
        raise AttributeError(msg)
    from importlib import import_module  # noqa: PLC0415  rarely needed

    return getattr(import_module(_ON_FIRST_USE[name]), name)


__all__ = [
    "CPUCommunicator",
    "CommunicatorHandle",
    "Operation",
    "ReduceOp",
    "Work",
    "all_to_all",
    "allgather",
    "allreduce",
    "barrier",
    "broadcast",
    "create_collective_group",
    "destroy_all_collective_groups",
    "destroy_collective_group",
    "gather",
    "get_collective_group_size",
    "get_collective_groups",
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
    "scatter",
    "send",
]
