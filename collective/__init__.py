"""Collective operations over actors, in compiled graphs, through torch.distributed groups."""

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
from collective.cpu_communicator import CPUCommunicator
from collective.ops import Operation, ReduceOp

__all__ = [
    "CPUCommunicator",
    "Operation",
    "ReduceOp",
    "all_to_all",
    "allgather",
    "allreduce",
    "barrier",
    "broadcast",
    "gather",
    "reduce",
    "reducescatter",
    "scatter",
]
