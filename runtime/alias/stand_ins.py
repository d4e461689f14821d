"""Values that exist for scripts written for Ray only: nothing here has an effect of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from compiled_dag.options import DAGContext, Profiling

if TYPE_CHECKING:
    from collections.abc import Sequence

RAY_VERSION: Final = "2.60.0"
"""The version whose names the alias has."""

SCRIPT_MODE: Final = 0
WORKER_MODE: Final = 1


@dataclass(frozen=True, slots=True)
class LoggingConfig:
    """What ``init(logging_config=...)`` takes, and ignores: logging is the script's own matter."""

    encoding: str = "TEXT"
    log_level: str = "INFO"
    additional_log_standard_attrs: Sequence[str] = field(default_factory=list)


class CompiledDAGArgs(NamedTuple):
    """Arguments of an execution as a value; `execute` takes them as they are."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class GraphReduceOp(Enum):
    """``ReduceOp`` of graphs, with the numbers it has there. Ours compare by name only."""

    SUM = 0
    PRODUCT = 1
    MAX = 2
    MIN = 3
    AVG = 4

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class AllReduceOp:
    """An allreduce as a value; `bind` takes only how to reduce."""

    reduceOp: GraphReduceOp = GraphReduceOp.SUM  # noqa: N815  its name there


@dataclass(frozen=True, slots=True)
class ReduceScatterOp:
    """A reducescatter as a value."""

    reduceOp: GraphReduceOp = GraphReduceOp.SUM  # noqa: N815  its name there


@dataclass(frozen=True, slots=True)
class AllGatherOp:
    """An allgather as a value."""


class EagerReduceOp(Enum):
    """``ReduceOp`` of eager collectives, which numbers two of them the other way round."""

    SUM = 0
    PRODUCT = 1
    MIN = 2
    MAX = 3


class Backend:
    """Names of backends; ``Backend("gloo")`` is a string."""

    NCCL = "NCCL"
    GLOO = "GLOO"
    UNRECOGNIZED = "unrecognized"

    def __new__(cls, name: str) -> Any:
        """Return a backend's name as it is written there.

        Raises:
            ValueError: It has none of that name.
        """
        known = {"NCCL": cls.NCCL, "GLOO": cls.GLOO, "TORCH_GLOO": cls.GLOO}
        if name.upper() not in known:
            raise ValueError(f"Backend({name!r}): only 'nccl' and 'gloo' are known")
        return known[name.upper()]


class Device(str, Enum):
    """Where a tensor is to arrive; equal to the names that hints take."""

    DEFAULT = "default"
    CPU = "cpu"
    GPU = "gpu"
    CUDA = "cuda"


_FIELDS: Final = {
    "DEFAULT_SUBMIT_TIMEOUT_S": "submit_timeout",
    "DEFAULT_GET_TIMEOUT_S": "get_timeout",
    "DEFAULT_TEARDOWN_TIMEOUT_S": "teardown_timeout",
    "DEFAULT_BUFFER_SIZE_BYTES": "buffer_size_bytes",
    "DEFAULT_MAX_INFLIGHT_EXECUTIONS": "max_inflight_executions",
    "DEFAULT_MAX_BUFFERED_RESULTS": "max_buffered_results",
    "DEFAULT_OVERLAP_GPU_COMMUNICATION": "overlap_gpu_communication",
    "DEFAULT_READ_ITERATION_TIMEOUT_S": "read_iteration_timeout",
    "RAY_CGRAPH_ENABLE_DETECT_DEADLOCK": "enable_detect_deadlock",
    "RAY_CGRAPH_VISUALIZE_SCHEDULE": "visualize_schedule",
}
"""Constants that are what a context made from the environment has."""
_PROFILING: Final = {
    "RAY_CGRAPH_ENABLE_PROFILING": "records",
    "RAY_CGRAPH_ENABLE_NVTX_PROFILING": "nvtx",
    "RAY_CGRAPH_ENABLE_TORCH_PROFILING": "torch",
}
"""The same for `Profiling`."""


def __getattr__(name: str) -> Any:
    """Return one of the constants above: the environment is read when it is asked for."""
    if name in _PROFILING:
        return getattr(Profiling.from_environment(), _PROFILING[name])
    if name not in _FIELDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(DAGContext.from_environment(), _FIELDS[name])
