"""Every operation over actors on threads, on shared memory, against gloo."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

import numpy as np
import pytest
import torch

import collective
from collective import ReduceOp
from collective import group as groups
from collective.group import DriverGroup
from collective.slots import memory_bytes
from compiled_dag import (
    CollectiveMismatchError,
    CompiledDAGRef,
    InputNode,
    MemoryCapError,
    MultiOutputNode,
    TaskError,
)
from tests.graphs import Worker

W = 3
SHAPES = [(3,), (6, 2), (3, 0, 2), (33, 5), (999, 1001)]
GLOO_REDUCES = ["float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64"]


class Rank:
    def bring(self, tensors, rank):
        value = tensors[rank]
        if isinstance(value, Exception):
            raise value
        return value


def draw(host, name, transport, actors=None, **options):
    """Compile one operation over three ranks, which bring what they are given."""
    actors = actors or [host.actor(Rank()) for _ in range(W)]
    with InputNode() as inp:
        brought = [actor.bring.bind(inp, rank) for rank, actor in enumerate(actors)]
        nodes = getattr(collective, name).bind(brought, transport=transport, **options)
        return MultiOutputNode(nodes if isinstance(nodes, list) else [nodes])


def both(host, stack, name, **options):
    """Compile an operation on shared memory and on gloo, on the same actors."""
    actors = [host.actor(Rank()) for _ in range(W)]
    return [
        stack.enter_context(draw(host, name, transport, actors, **options).experimental_compile())
        for transport in ("shm", "gloo")
    ]


def results(graph, tensors) -> list:
    return CompiledDAGRef.get_many(graph.execute(tensors), 30)


def errors(graph, tensors) -> list:
    found = []
    for ref in graph.execute(tensors):
        with pytest.raises(TaskError) as raised:
            ref.get(30)
        found.append(raised.value)
    return found


def of(shape, dtype, seed=0) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    return [(torch.randn(shape) * 3).to(getattr(torch, dtype)) for _ in range(W)]


@pytest.mark.parametrize("op", ["SUM", "PRODUCT", "MAX", "MIN", "AVG"])
@pytest.mark.parametrize("name", ["allreduce", "reduce", "reducescatter"])
def test_what_reduces_is_gloos(host, name, op) -> None:
    with ExitStack() as stack:
        ours, theirs = both(host, stack, name, op=ReduceOp[op])
        for dtype in GLOO_REDUCES:
            if op == "AVG" and "int" in dtype:
                continue
            exact = dtype not in ("float16", "bfloat16")
            for shape in SHAPES if dtype == "float32" else SHAPES[:-1]:
                tensors = of(shape, dtype)
                results(ours, tensors)  # the second time may be another way
                pairs = zip(results(ours, tensors), results(theirs, tensors), strict=True)
                for found, expected in pairs:
                    # gloo adds in another order.
                    tolerance = 1e-4 if exact else 5e-2
                    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["allgather", "gather", "broadcast", "scatter", "all_to_all"])
def test_what_only_moves_is_gloos(host, name) -> None:
    with ExitStack() as stack:
        ours, theirs = both(host, stack, name)
        for dtype in ("float32", "bfloat16", "bool", "complex64", "uint16", "float8_e4m3fn"):
            for shape in SHAPES if dtype == "float32" else SHAPES[:-1]:
                tensors = of(shape, dtype)
                results(ours, tensors)
                pairs = zip(results(ours, tensors), results(theirs, tensors), strict=True)
                for found, expected in pairs:
                    assert found.dtype == expected.dtype
                    assert found.shape == expected.shape
                    assert torch.equal(found.view(torch.uint8), expected.view(torch.uint8))


def test_what_gloo_cannot_reduce(host) -> None:
    with draw(host, "allreduce", "shm").experimental_compile() as graph:
        for dtype in ("int16", "uint16", "uint32", "uint64"):
            tensors = [torch.tensor([5, 60000 % 30000]).to(getattr(torch, dtype))] * W
            assert results(graph, tensors)[1].tolist() == [15, 0]
        for error in errors(graph, of((3,), "float8_e4m3fn")):
            assert isinstance(error, TypeError)
            assert "allreduce(SUM): shm cannot reduce torch.float8_e4m3fn" in str(error)


def test_ranks_that_differ_or_fail_are_told_so_and_the_graph_goes_on(host) -> None:
    good = of((2_000_000,), "float32")
    with draw(host, "allreduce", "shm").experimental_compile() as graph:
        for _ in range(3):
            for error in errors(graph, [good[0], good[1][1:], good[2]]):
                assert isinstance(error, CollectiveMismatchError)
                assert str(error).count("<-- differs") == 1
            for error in errors(graph, [good[0], good[1], KeyError("gradient")]):
                assert isinstance(error, KeyError)
                assert error.rank == 2
            for found in results(graph, good):
                assert torch.equal(found, good[0] + good[1] + good[2])


class Strict(Rank):
    """An actor whose code wants to know of every infinity."""

    def bring(self, tensors, rank):
        np.seterr(all="raise")
        return super().bring(tensors, rank)


@pytest.mark.parametrize("length", [3, 600_000])
@pytest.mark.parametrize("name", ["SUM", "PRODUCT", "AVG", "MAX"])
def test_infinities_are_no_errors_whatever_numpy_is_told_in_the_actor(host, name, length) -> None:
    actors = [host.actor(Strict()) for _ in range(W)]
    tensors = [torch.full((length,), float(value)) for value in ("inf", "-inf", "3e-45")]
    tensors[2][0], tensors[1][0] = float("nan"), 1e38
    right = {"SUM": sum(tensors), "PRODUCT": tensors[0] * tensors[1] * tensors[2]}
    right |= {"AVG": sum(tensors) / W, "MAX": torch.stack(tensors).amax(0)}
    dag = draw(host, "allreduce", "shm", actors, op=ReduceOp[name])
    with dag.experimental_compile() as graph:
        for result in results(graph, tensors):
            assert torch.equal(result.nan_to_num(7), right[name].nan_to_num(7))


def test_several_operations_of_one_group_in_one_graph(host) -> None:
    actors = [host.actor(Rank()) for _ in range(W)]
    with InputNode() as inp:
        brought = [actor.bring.bind(inp, rank) for rank, actor in enumerate(actors)]
        total = collective.reduce.bind(brought, 0, transport="shm")
        spread = collective.broadcast.bind([total, *brought[1:]], 0, transport="shm")
        joined = collective.gather.bind(spread, 2, transport="shm")
        output = MultiOutputNode([*spread, joined])
    with output.experimental_compile() as graph:
        for length in (1, 10, 1_000_000, 2):
            *three, last = results(graph, [torch.full((length,), float(length))] * W)
            assert all(torch.equal(one, torch.full((length,), 3.0 * length)) for one in three)
            assert torch.equal(last, torch.full((3 * length,), 3.0 * length))


def test_large_results_take_the_memory_that_was_let_go_of(host) -> None:
    graph = draw(host, "allreduce", "shm").experimental_compile()
    tensors = of((500_000,), "float32")
    expected = tensors[0] + tensors[1] + tensors[2]
    held = [results(graph, tensors) for _ in range(3)]
    graph.teardown()
    del graph
    assert all(torch.equal(one, expected) for several in held for one in several)


def test_memory_that_is_not_there_is_refused_when_compiling(host, monkeypatch) -> None:
    def refuse(nbytes, what) -> None:
        assert nbytes == memory_bytes(W)
        raise MemoryCapError(what)

    monkeypatch.setattr(groups, "require_memory", refuse)
    with pytest.raises(MemoryCapError, match=r"the shm group of Rank\(1\), Rank\(2\), Rank\(3\)"):
        draw(host, "allreduce", "shm").experimental_compile()


def test_memory_is_touched_as_far_as_tensors_reach(host) -> None:
    actors = [host.actor(Worker()) for _ in range(2)]
    deadline = time.monotonic() + 120
    group = DriverGroup(host, actors, "shm")
    group.open(deadline)
    size = os.fstat(group.memory_fd).st_size
    assert size > memory_bytes(2)
    assert os.fstat(group.memory_fd).st_blocks * 512 < 1 << 20
    group.close(deadline)
