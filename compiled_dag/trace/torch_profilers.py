"""NVTX ranges and torch's profiler around an actor's steps, both asked for by environment.

Steps run on the actor's main thread, so either sees user code inside of them.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.host import ActorContext

Run: TypeAlias = "Callable[[list[Any]], None]"

FOLDER: Final = "compiled_graph_torch_profiles"
"""Where traces go, in the actor's working directory."""
_KEY: Final = "torch profiler"


def ranged(runs: Sequence[Run], names: Sequence[str | None], label: str) -> list[Run]:
    """Return `runs` in NVTX ranges; as they are, with a warning that says why, without CUDA.

    Args:
        runs: One closure per step.
        names: What the ranges are called; None for none.
        label: Of the actor.
    """
    why_not = _why_no_nvtx()
    if why_not:
        warnings.warn(
            f"COMPILED_DAG_ENABLE_NVTX_PROFILING=1: no NVTX ranges on actor {label}: {why_not}",
            RuntimeWarning,
            stacklevel=2,
        )
        return list(runs)
    from torch.cuda import nvtx  # noqa: PLC0415  torch is loaded only where it is asked for

    return [
        run if name is None else _in_range(run, name, nvtx.range_push, nvtx.range_pop)
        for run, name in zip(runs, names, strict=True)
    ]


def _why_no_nvtx() -> str:
    try:
        import torch  # noqa: PLC0415  torch is loaded only where it is asked for
    except ImportError:
        return "torch is not installed"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device here"
    return ""


def _in_range(
    inner: Run, name: str, push: Callable[[str], object], pop: Callable[[], object]
) -> Run:
    def run(slots: list[Any]) -> None:
        push(name)
        try:
            inner(slots)
        finally:
            pop()

    return run


class TorchProfiler:
    """The one profiler of a process, for as long as a graph wants it. Main thread only."""

    def __init__(self, worker_name: str) -> None:
        """Start it."""
        from torch import profiler  # noqa: PLC0415  torch is loaded only where it is asked for

        self.graphs = 0
        self._profile: Any = profiler.profile(
            with_stack=True,
            on_trace_ready=profiler.tensorboard_trace_handler(FOLDER, worker_name),
        )
        self._profile.start()

    def close(self) -> None:
        """Stop it and write its trace. Idempotent."""
        profile, self._profile = self._profile, None
        if profile is not None:
            profile.stop()


def start_profiler(context: ActorContext) -> None:
    """Have torch's profiler run in this process, for one graph more.

    Raises:
        ImportError: torch is not installed.
        OSError: The folder cannot be made.
    """
    profiler = context.resources.get(_KEY)
    if profiler is None:
        Path(FOLDER).mkdir(exist_ok=True)
        name = f"{type(context.instance).__name__}_{os.getpid()}"
        profiler = context.resources[_KEY] = TorchProfiler(name)
    profiler.graphs += 1


def stop_profiler(context: ActorContext) -> None:
    """Stop it if no graph wants it any more."""
    profiler = context.resources.get(_KEY)
    if profiler is not None:
        profiler.graphs -= 1
        if not profiler.graphs:
            del context.resources[_KEY]
            profiler.close()
