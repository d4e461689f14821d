"""Environment variables that configure graphs: ``COMPILED_DAG_<NAME>``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from compiled_dag.keywords import near
from compiled_dag.notice import warn

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX: Final = "COMPILED_DAG_"
NAMES: Final = frozenset(
    {
        "BUFFER_SIZE_BYTES",
        "CAPACITY_POLICY",
        "COMPILE_TIMEOUT",
        "CUDA",
        "DEDUP_LOGS",
        "ENABLE_DETECT_DEADLOCK",
        "ENABLE_NVTX_PROFILING",
        "ENABLE_PROFILING",
        "ENABLE_TORCH_PROFILING",
        "FUNCTION_WORKERS",
        "GET_TIMEOUT",
        "GPU_VISIBILITY",
        "MAX_BUFFERED_RESULTS",
        "MAX_INFLIGHT_EXECUTIONS",
        "MAX_MEMORY_BYTES",
        "MAX_QUEUED_EXECUTIONS",
        "OVERLAP_GPU_COMMUNICATION",
        "RAY_ALIAS",
        "READ_ITERATION_TIMEOUT",
        "SUBMIT_TIMEOUT",
        "TEARDOWN_TIMEOUT",
        "VISUALIZE_SCHEDULE",
        "WAIT_MODE",
    }
)
"""All there are."""


class Variable(NamedTuple):
    """A variable that is set."""

    name: str
    text: str


class _Fallback:
    """Where to look for a setting whose own variable is not set."""

    read: Callable[[str], Variable | None] | None = None


def fall_back_on(read: Callable[[str], Variable | None] | None) -> None:
    """Have `read` asked for settings whose own variable is not set; None ends that.

    Args:
        read: Takes a setting (``GET_TIMEOUT``); returns the variable to use, or None.
    """
    _Fallback.read = read


def lookup(name: str) -> Variable | None:
    """Return the variable of a setting (``GET_TIMEOUT``), or None if it is not set."""
    text = os.environ.get(PREFIX + name)
    if text is not None:
        return Variable(PREFIX + name, text)
    return None if _Fallback.read is None else _Fallback.read(name)


def warn_of_misspelt() -> None:
    """Warn of variables that have no effect, and whose names are like those of ours."""
    for variable in os.environ:
        name = variable.removeprefix(PREFIX)
        if name == variable or name in NAMES:
            continue
        for meant in near(name, NAMES, 1):
            warn(f"environment variable {variable} has no effect; did you mean {PREFIX}{meant}?")
