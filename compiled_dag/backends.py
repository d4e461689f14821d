"""Checks of what a graph's collectives run on, before any process is asked for anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compiled_dag.capture import Captured
    from compiled_dag.program import Program


def check_backends(captured: Captured, program: Program) -> None:
    """Check that every collective has a backend for its actors.

    Raises:
        GraphError: The backend that was asked for cannot serve them.
    """
    for spec, op in zip(program.operations, captured.operations, strict=True):
        if spec.communicator is None:
            op.backend([captured.actors[member - 1] for member in spec.members])
