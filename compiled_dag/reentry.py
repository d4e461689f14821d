"""Execution inside of an execution: by a signal handler, or a destructor that the collector runs.

Both run on top of whatever this thread is in, and may find it in the middle of sending one. Locks
do not help: the thread has them. What is half done looks the same as what Ctrl-C broke off; the
difference is that the frame which is at it is still there.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from compiled_dag.errors import GraphUsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from types import CodeType, FrameType


def refuse_inside(
    codes: Container[CodeType], is_same: Callable[[Any], bool], graph: str, above: int
) -> None:
    """Refuse to go on if this thread is in one of `codes` further up.

    Args:
        codes: Of methods.
        is_same: Tells whether such a method's `self` is what matters.
        graph: What messages call the graph.
        above: How many frames above the caller to begin.

    Raises:
        GraphUsageError: It is.
    """
    frame: FrameType | None = sys._getframe(above + 1)  # noqa: SLF001  there is no other way to a frame
    while frame is not None:
        if frame.f_code in codes and is_same(frame.f_locals.get("self")):
            msg = (
                f"execute() of graph {graph} in the middle of another execute() of this thread: a "
                "signal handler, or a __del__, has interrupted it. Set a flag there, and execute "
                "where the program comes by"
            )
            raise GraphUsageError(msg)
        frame = frame.f_back
