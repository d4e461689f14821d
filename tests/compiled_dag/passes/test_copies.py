from __future__ import annotations

import dataclasses

import pytest

from compiled_dag import InputNode, MultiOutputNode
from compiled_dag.capture import capture
from compiled_dag.compiler import compile_graph
from compiled_dag.ir import Pinning
from compiled_dag.options import CompileOptions
from compiled_dag.passes.copies import copying_actors, resolve_copies
from compiled_dag.passes.transports import resolve_transports
from compiled_dag.table import parse
from tests.communicators import PaperCommunicator
from tests.compiled_dag.passes.test_transports import FAKE, NONE, ONE, ZERO, actors_with, edge

HINTED = ("shm",)


def graph_of(output, **refused):
    """Return a graph whose actors were asked; by actor what refused them."""
    graph = dataclasses.replace(capture(output).graph, reach=())
    asked = copying_actors(graph, resolve_transports(graph))
    pinning = tuple(Pinning(actor=a, refused=refused.get(f"of_{a}", "")) for a in asked)
    return dataclasses.replace(graph, pinning=pinning)


def copies(output, **refused):
    """Return the participants that copy the value of `edge`, and why."""
    graph = graph_of(output, **refused)
    found = resolve_copies(graph, resolve_transports(graph)).of_value
    (transport,) = [one for one in found.values() if one.writer == "Worker(1)"]
    return transport.copying, transport.reason


@pytest.mark.parametrize(
    ("gpus", "hint", "copying", "reason"),
    [
        ((NONE, ZERO), ("shm", "cuda"), (2,),
         "hinted so; Worker(2) copies from pinned memory to its GPU"),
        ((ZERO, NONE), ("shm", "cpu"), (1,),
         "hinted so; Worker(1) copies from its GPU into pinned memory"),
        ((ZERO, ZERO), ("auto",), (1, 2),
         ("auto: all ends share GPU 0; Worker(1) copies from its GPU into pinned memory; "
          "Worker(2) copies from pinned memory to its GPU")),
        ((ZERO, ONE), ("shm", "cpu"), (1,),
         "hinted so; Worker(1) copies from its GPU into pinned memory"),
        ((NONE, NONE), HINTED, (), "hinted so"),
        ((FAKE, FAKE), HINTED, (), "hinted so"),
        ((ZERO, ONE), None, (), "no hint"),
    ],
)  # fmt: skip
def test_ends_with_gpus_copy_if_tensors_may_be_there(gpus, hint, copying, reason) -> None:
    output = edge(*actors_with(*gpus), hint=hint or ())
    if hint is None:
        output._bound_args[0]._bound_args[0]._hint = None
    assert copies(output) == (copying, reason)


def test_only_host_memory_is_copied_from() -> None:
    first, second = actors_with(ZERO, ONE)
    output = edge(first, second, hint=(PaperCommunicator([first, second]),))
    assert copies(output) == ((), "by PaperCommunicator")


def test_the_driver_feeds_and_reads() -> None:
    (worker,) = actors_with(ZERO)
    with InputNode() as inp:
        inp.with_tensor_transport(device="cuda")
        output = MultiOutputNode([worker.add.bind(inp).with_tensor_transport(device="cpu")])
    graph = graph_of(output)
    found = resolve_copies(graph, resolve_transports(graph)).of_value
    assert [(one.copying, one.device) for one in found.values()] == [((1,), "cuda"), ((1,), "cpu")]


def test_where_pinning_is_refused_torch_copies() -> None:
    output = edge(*actors_with(ZERO, ONE), hint=HINTED)
    copying, reason = copies(output, of_2="pinning memory: no")
    assert copying == (1,)
    assert reason == (
        "hinted so; Worker(1) copies from its GPU into pinned memory; torch copies for Worker(2), "
        "which failed at pinning memory: no"
    )


def test_nobody_copies_who_was_not_asked() -> None:
    graph = capture(edge(*actors_with(ZERO, ONE), hint=HINTED)).graph
    transports = resolve_transports(graph)
    assert copying_actors(graph, transports) == (1, 2)
    assert resolve_copies(graph, transports) == transports


def test_the_program_says_who_copies() -> None:
    graph = graph_of(edge(*actors_with(ZERO, ONE), hint=HINTED))
    program = compile_graph(graph, CompileOptions())
    assert "transport 1 host default copying=1,2 | hinted so; Worker(1) copies" in str(program)
    assert parse(str(program)).channels[1].transport.copying == (1, 2)
