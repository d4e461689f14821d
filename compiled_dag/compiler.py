"""The pipeline: from a captured graph to a program, a line per pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiled_dag.lint import lint
from compiled_dag.passes.channels import plan_channels
from compiled_dag.passes.copies import resolve_copies
from compiled_dag.passes.order import total_order
from compiled_dag.passes.overlap import overlap
from compiled_dag.passes.prefetch import prefetch_reads
from compiled_dag.passes.steps import build_steps
from compiled_dag.passes.transports import resolve_transports
from compiled_dag.simulate import simulate

if TYPE_CHECKING:
    from compiled_dag.ir import Graph
    from compiled_dag.options import CompileOptions
    from compiled_dag.program import Program


def compile_graph(graph: Graph, options: CompileOptions) -> Program:
    """Turn a graph into one fixed program per participant.

    Raises:
        GraphError: The graph breaks a rule; names nodes and lines.
        DeadlockError: The program would wait for itself.
    """
    lint(graph)
    order = total_order(graph)
    transports = resolve_copies(graph, resolve_transports(graph))
    channels = plan_channels(graph, order, transports, options.max_inflight)
    program = overlap(graph, build_steps(graph, order, channels, transports))
    if options.overlap_gpu_communication:
        program = prefetch_reads(program)
    if options.enable_detect_deadlock:
        simulate(program)
    return program
