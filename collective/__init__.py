"""Collective operations over actors, in compiled graphs, through torch.distributed groups."""

from collective.bind import allreduce
from collective.ops import AllReduce, ReduceOp

__all__ = ["AllReduce", "ReduceOp", "allreduce"]
