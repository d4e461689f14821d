"""Graphs whose tensors, and collectives, go through a user's communicator. Actors are threads."""

from __future__ import annotations

import gc
import os
import re
import signal
from typing import Any

import pytest
import torch

import collective
import runtime
from collective import ReduceOp, allreduce
from compiled_dag import (
    AcceleratorContext,
    ChannelContext,
    ChannelError,
    GraphError,
    InputNode,
    MultiOutputNode,
    TaskError,
    register_accelerator_context,
)
from compiled_dag.channel import rendezvous
from tests.communicators import MadePipes, Pipes
from tests.gates import Gate
from tests.live import LONG_S, await_zygotes, died
from tests.remotes import FakeClass
from tests.runtime.actors import wait_until_dead


class Worker:
    """Makes what it is told, and shows what it gets."""

    def make(self, what: Any) -> Any:
        if isinstance(what, Exception):
            raise what
        return what

    def pid(self) -> int:
        return os.getpid()

    def unsendable(self, value: Any) -> Any:
        return [value, (part for part in value)]

    def twice(self, value: Any) -> Any:
        return value * 2

    def show(self, *values: Any) -> Any:
        return [value.tolist() if isinstance(value, torch.Tensor) else value for value in values]


@pytest.fixture
def workers(host):
    return [host.actor(Worker()) for _ in range(3)]


@pytest.fixture
def compiled():
    """Compiles graphs; ends them before the actors go."""
    graphs = []

    def make(output, **options):
        graphs.append(output.experimental_compile(**options))
        return graphs[-1]

    yield make
    while graphs:
        graphs.pop().teardown()


@pytest.fixture
def pipes(tmp_path):
    def make(actors, folder="", **options):
        (tmp_path / folder).mkdir(exist_ok=True)
        return Pipes(actors, tmp_path / folder, **options)

    return make


def hop(writer, *readers, by, hint=()):
    """Draw one value on its way from an actor to others."""
    with InputNode() as inp:
        value = writer.make.bind(inp).with_tensor_transport(by, *hint)
        return MultiOutputNode([reader.show.bind(value) for reader in readers])


def notes(tmp_path):
    return {path.name: path.read_text().split() for path in sorted(tmp_path.glob("rank *"))}


def error_of(ref) -> TaskError:
    with pytest.raises(TaskError) as raised:
        ref.get()
    return raised.value


# --- values ---------------------------------------------------------------------------------------


def test_tensors_at_any_depth_go_through_the_communicator(workers, compiled, pipes) -> None:
    first, second, _ = workers
    by = pipes([second, first])
    with InputNode() as inp:
        value = first.make.bind(inp).with_tensor_transport(by)
        graph = compiled(second.make.bind(value))
    same = torch.arange(6.0).reshape(2, 3)
    sent = {
        "nested": [torch.ones(2, dtype=torch.bfloat16), (same.t(), "text", same)],
        "empty": torch.empty(0, 3),
        "number": torch.tensor(5),
        "parameter": torch.nn.Parameter(torch.ones(1)),
        "grad": torch.ones(2, requires_grad=True) * 2,
        "sparse": "is refused",
        "large": torch.arange(100_000),
        7: None,
    }
    for _ in range(2):
        found = graph.execute(sent).get()
        assert found.keys() == sent.keys()
        assert found["nested"][0].dtype == torch.bfloat16
        assert torch.equal(found["nested"][1][0], same.t())
        assert found["empty"].shape == (0, 3)
        assert found["number"] == 5
        assert isinstance(found["parameter"], torch.nn.Parameter)
        assert found["grad"].tolist() == [2, 2]
        assert torch.equal(found["large"], sent["large"])
    for plain in (5, None, "text", [1, {"k": 2}]):
        assert graph.execute(plain).get() == plain
    assert graph.execute(torch.ones(3)).get().tolist() == [1, 1, 1]


def test_one_tensor_twice_in_a_value_is_sent_once_and_stays_one(workers, compiled, pipes) -> None:
    first, second, _ = workers
    with InputNode() as inp:
        value = first.make.bind(inp).with_tensor_transport(pipes([first, second]), "default", True)
        graph = compiled(second.make.bind(value))
    tensor = torch.ones(2)
    one, other = graph.execute([tensor, tensor]).get()
    assert one is other


def test_every_reader_gets_the_value_and_errors_travel_too(workers, compiled, pipes) -> None:
    first, second, third = workers
    graph = compiled(hop(first, second, third, by=pipes([third, first, second])))
    for number in range(3):
        refs = graph.execute([torch.tensor([number]), number])
        assert [ref.get() for ref in refs] == [[[torch.tensor([number]), number]]] * 2
        for ref in graph.execute(KeyError("k")):
            assert isinstance(error_of(ref), KeyError)


def test_promises_and_layouts_are_checked_as_on_any_edge(workers, compiled, pipes) -> None:
    first, second, _ = workers
    graph = compiled(hop(first, second, by=pipes([first, second]), hint=("default", True, True)))
    assert graph.execute(torch.ones(2))[0].get() == [[1, 1]]
    for value, kind, text in [
        (torch.ones(3), ValueError, r"_static_shape=True: expected 1 tensor"),
        ([torch.ones(2)], ValueError, r"_direct_return=True, which promises one torch.Tensor"),
        (torch.eye(2).to_sparse(), TypeError, r"a tensor of layout torch\.sparse_coo"),
    ]:
        error = error_of(graph.execute(value)[0])
        assert isinstance(error, kind)
        assert re.search(text, str(error))
    assert graph.execute(torch.zeros(2))[0].get() == [[0, 0]]


def test_what_cannot_be_sent_is_told_as_on_any_edge(workers, compiled, pipes) -> None:
    first, second, _ = workers
    with InputNode() as inp:
        value = first.unsendable.bind(inp).with_tensor_transport(pipes([first, second]))
        graph = compiled(second.show.bind(value))
    error = error_of(graph.execute(torch.ones(1)))
    assert re.search(
        r"Worker.unsendable .*cannot send value\[1\] of type builtins.generator", str(error)
    )


def test_readers_that_want_the_second_value_first_get_both(workers, compiled, pipes) -> None:
    """The writer would wait for ever, if readers took values only when they need them."""
    first, second, third = workers
    by = pipes([first, second, third])
    with InputNode() as inp:
        one = first.make.bind(inp[0]).with_tensor_transport(by)
        two = first.make.bind(inp[1]).with_tensor_transport(by)
        back = second.twice.bind(two).with_tensor_transport(by)
        third_got = third.show.bind(two, back)
        graph = compiled(MultiOutputNode([second.show.bind(one, back), third_got]))
    for number in range(3):
        refs = graph.execute(torch.tensor(number), torch.tensor([number, 1]))
        assert [ref.get() for ref in refs] == [
            [number, [2 * number, 2]],
            [[number, 1], [2 * number, 2]],
        ]


def test_accelerator_edges_go_through_the_default_communicator(workers, compiled, pipes) -> None:
    first, second, _ = workers
    graph = compiled(
        hop(first, second, by="accelerator"), _default_communicator=pipes([first, second])
    )
    assert graph.execute(torch.ones(1))[0].get() == [[1]]
    assert graph.program.channels[1].transport.mechanism == "communicator"


# --- life -----------------------------------------------------------------------------------------


@pytest.fixture
def registered(tmp_path):
    MadePipes.folder = tmp_path
    register_accelerator_context("cpu", MadePipes)
    yield
    AcceleratorContext.set(None)


def test_what_is_registered_carries_accelerator_edges_and_collectives(
    workers, compiled, registered, tmp_path
) -> None:
    first, second, _ = workers
    with InputNode() as inp:
        made = first.make.bind(inp).with_tensor_transport("accelerator")
        other = second.twice.bind(made)
        sums = allreduce.bind([first.make.bind(inp), other])
        graph = compiled(MultiOutputNode([first.show.bind(sums[0]), second.show.bind(sums[1])]))
    for number in range(3):
        refs = graph.execute(torch.tensor([float(number)]))
        assert [ref.get() for ref in refs] == [[[3.0 * number]]] * 2
    assert "by MadePipes" in str(graph.explain())
    names = sorted(ChannelContext.get_current().communicators)
    assert len(names) == 1  # its actors are threads of one process
    graph.teardown()
    told = ["initialize", "mine:True:False", "destroy"]
    assert notes(tmp_path) == {"rank 0": told, "rank 1": told}
    assert not ChannelContext.get_current().communicators


def test_a_registered_one_that_cannot_be_made_ends_the_compile(workers, compiled) -> None:
    register_accelerator_context("cpu", Pipes)  # it takes other arguments
    try:
        with pytest.raises(GraphError, match=r"Pipes.* failed on .*: TypeError: .*__init__"):
            compiled(hop(*workers[:2], by="accelerator"))
    finally:
        AcceleratorContext.set(None)


def test_a_registered_one_needs_actors_that_are_there(host, compiled, registered) -> None:
    node = FakeClass(host, Worker).bind()
    with InputNode() as inp:
        made = node.make.bind(inp).with_tensor_transport("accelerator")
        output = host.actor(Worker()).show.bind(made)
    with pytest.raises(GraphError, match=r"bound to a class.* Make it with \.remote\(\) first"):
        compiled(output)


def test_each_member_has_one_copy_for_the_life_of_a_graph(
    workers, compiled, pipes, tmp_path
) -> None:
    """Also the third, which has no node in the graph."""
    first, second, _ = workers
    by = pipes(workers)
    with InputNode() as inp:
        there = first.make.bind(inp).with_tensor_transport(by)
        back = second.make.bind(there).with_tensor_transport(by)
        output = first.show.bind(back)
    for graphs in range(1, 3):
        graph = compiled(output)
        assert graph.execute(torch.ones(2)).get() == [[1, 1]]
        graph.teardown()
        lives = ["initialize", "destroy"] * graphs
        assert notes(tmp_path) == {"rank 0": lives, "rank 1": lives, "rank 2": lives}


def test_a_default_communicator_that_is_for_nothing_is_left_alone(
    workers, compiled, pipes, tmp_path
) -> None:
    first, second, _ = workers
    graph = compiled(hop(first, second, by="shm"), _default_communicator=pipes([first, second]))
    assert graph.execute(3)[0].get() == [3]
    assert notes(tmp_path) == {}


def test_a_destroy_that_raises_is_logged(workers, compiled, pipes, caplog) -> None:
    first, second, _ = workers
    graph = compiled(hop(first, second, by=pipes([first, second], fails="destroy")))
    graph.teardown()
    assert [record.getMessage() for record in caplog.records] == ["Pipes.destroy() raised"] * 2
    assert "the pipes are rusty" in caplog.text
    caplog.clear()  # its tracebacks hold the actors


def test_an_initialize_that_raises_ends_the_compile_and_leaves_nothing(
    workers, compiled, pipes, monkeypatch
) -> None:
    first, second, _ = workers
    by = pipes([first, second], fails="initialize 0")
    monkeypatch.setattr(os, "open", lambda *_: os.dup(0))  # the second would wait for the first
    with pytest.raises(
        GraphError, match=r"Pipes.initialize failed on Worker\(1\): .*OSError: no pipes today"
    ):
        compiled(hop(first, second, by=by))
    assert first.make.remote(3).result() == 3


@pytest.fixture
def _short_notice(monkeypatch):
    """Nobody dies here: the news need not be awaited."""
    monkeypatch.setattr(rendezvous, "_DEATH_NOTICE_S", 0.1)


# --- failure --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_short_notice")
def test_a_failed_send_is_the_readers_error_and_the_communicator_is_not_used_again(
    workers, compiled, pipes
) -> None:
    first, second, _ = workers
    graph = compiled(hop(first, second, by=pipes([first, second], fails="send")))
    error = error_of(graph.execute(torch.ones(2))[0])
    assert isinstance(error, ChannelError)
    assert re.search(r"Pipes, rank 1: recv from rank 0 raised EOFError", str(error))
    error = error_of(graph.execute(torch.ones(2))[0])
    assert isinstance(error, ChannelError)
    assert re.search(r"rank 0: send to rank 1 raised OSError: the pipe burst", str(error))
    assert "compile the graph again" in str(error)


@pytest.mark.usefixtures("_short_notice")
def test_a_reader_that_has_failed_does_not_keep_the_writer_waiting(
    workers, compiled, pipes
) -> None:
    first, second, _ = workers
    graph = compiled(hop(first, second, by=pipes([first, second], fails="recv")))
    for _ in range(3):
        error = error_of(graph.execute(torch.ones(2, 2))[0])
        assert isinstance(error, ChannelError)
        assert re.search(r"it returned \('float32', \(4,\)\) for .*\(2, 2\)\)", str(error))


def test_a_writer_that_waits_for_its_reader_leaves_when_the_graph_ends(
    host, workers, compiled, pipes
) -> None:
    gate = Gate()
    holder = host.actor(gate)
    first = workers[0]
    try:
        with InputNode() as inp:
            held = holder.hold.bind(inp)
            value = first.make.bind(inp).with_tensor_transport(pipes([first, holder]))
            graph = compiled(holder.echo.bind([held, value]))
        graph.execute(torch.ones(2))
        gate.wait_entered()
        graph._deployment.end(2)  # what teardown begins with
        assert first.make.remote(5).result() == 5
    finally:
        gate.opened.set()


# --- collectives ----------------------------------------------------------------------------------


def reduced(workers, **options):
    with InputNode() as inp:
        parts = [worker.make.bind(inp[i]) for i, worker in enumerate(workers)]
        sums = allreduce.bind(parts, **options)
        return MultiOutputNode([w.show.bind(part) for w, part in zip(workers, sums, strict=True)])


@pytest.mark.parametrize(
    ("op", "result"), [(ReduceOp.SUM, 9.0), (ReduceOp.MAX, 4.0), (ReduceOp.AVG, 3.0)]
)
def test_a_communicator_reduces(workers, compiled, pipes, op, result) -> None:
    graph = compiled(reduced(workers, op=op, transport=pipes(workers[::-1])))
    for _ in range(2):
        refs = graph.execute(*(torch.full((2,), float(n)) for n in (2, 3, 4)))
        assert [ref.get() for ref in refs] == [[[result, result]]] * 3


def drawn(workers, operation, **options):
    """Draw an operation on all workers; every rank shows what it gets."""
    with InputNode() as inp:
        parts = [worker.make.bind(inp[i]) for i, worker in enumerate(workers)]
        got = operation.bind(parts, **options)
        ends = zip(workers, got, strict=True) if isinstance(got, list) else [(workers[2], got)]
        return MultiOutputNode([worker.show.bind(part) for worker, part in ends])


ALL = [[[n], [n + 1], [n + 2]] for n in (10, 20, 30)]
"""What the three ranks bring."""
SUMS = [[60], [63], [66]]


@pytest.mark.parametrize(
    ("operation", "options", "results"),
    [
        (collective.allreduce, {}, [SUMS] * 3),
        (collective.allgather, {}, [ALL[0] + ALL[1] + ALL[2]] * 3),
        (collective.reducescatter, {}, [[row] for row in SUMS]),
        (collective.broadcast, {"src_rank": 1}, [ALL[1]] * 3),
        (collective.reduce, {"dst_rank": 2}, [SUMS]),
        (collective.gather, {"dst_rank": 2}, [ALL[0] + ALL[1] + ALL[2]]),
        (collective.scatter, {"src_rank": 1}, [[row] for row in ALL[1]]),
        (collective.all_to_all, {}, [[rows[n] for rows in ALL] for n in range(3)]),
    ],
    ids=lambda value: value._kind.name if hasattr(value, "_kind") else "",
)
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]], ids=["same ranks", "other ranks"])
def test_every_operation_goes_by_position_whatever_the_communicators_ranks_are(
    workers, compiled, pipes, operation, options, results, order
) -> None:
    by = pipes([workers[n] for n in order])
    graph = compiled(drawn(workers, operation, transport=by, **options))
    for _ in range(2):
        refs = graph.execute(*map(torch.tensor, ALL))
        assert [ref.get() for ref in refs] == [[result] for result in results]


def test_a_barrier_needs_no_communicator(workers, compiled, pipes, tmp_path) -> None:
    graph = compiled(drawn(workers, collective.barrier), _default_communicator=pipes(workers))
    assert [ref.get() for ref in graph.execute(1, 2, 3)] == [[1], [2], [3]]
    assert notes(tmp_path) == {}


def test_errors_and_mismatches_never_reach_it(workers, compiled, pipes) -> None:
    first, second, _ = workers
    both = [first, second]
    graph = compiled(reduced(both), _default_communicator=pipes(both))
    for ref in graph.execute(torch.ones(2), KeyError("k")):
        assert isinstance(error_of(ref), KeyError)
    for ref in graph.execute(torch.ones(2), torch.ones(3)):
        assert "the ranks of allreduce(SUM) bring different tensors" in str(error_of(ref))
    refs = graph.execute(torch.ones(2), torch.ones(2))
    assert [ref.get() for ref in refs] == [[[2, 2]], [[2, 2]]]


def test_values_and_collectives_share_a_copy(workers, compiled, pipes, tmp_path) -> None:
    first, second, _ = workers
    by = pipes([first, second])
    with InputNode() as inp:
        parts = [first.make.bind(inp), second.make.bind(inp)]
        ours, theirs = allreduce.bind(parts, transport=by)
        moved = ours.with_tensor_transport(by)
        graph = compiled(second.show.bind(moved, theirs))
    assert graph.execute(torch.ones(1)).get() == [[2], [2]]
    graph.teardown()
    assert notes(tmp_path) == {"rank 0": ["initialize", "destroy"]} | {
        "rank 1": ["initialize", "destroy"]
    }


# --- with processes -------------------------------------------------------------------------------


@pytest.mark.proc
def test_between_processes_and_when_one_of_them_dies(session, compiled, pipes, tmp_path) -> None:
    await_zygotes()  # actors made before would import torch, each for itself
    first, second, third = actors = [runtime.remote(Worker).remote() for _ in range(3)]
    by = pipes(actors)
    with InputNode() as inp:
        made = first.make.bind(inp).with_tensor_transport(by)
        parts = [second.twice.bind(made), third.twice.bind(made), first.make.bind(inp)]
        sums = allreduce.bind(parts[:2], transport=pipes(actors[1:], folder="sums"))
        moved = sums[1].with_tensor_transport(by)
        output = MultiOutputNode([second.show.bind(sums[0], moved), first.show.bind(parts[2])])
    graph = compiled(output)
    for number in range(1, 4):
        refs = graph.execute(torch.full((1000,), float(number)))
        shown, _ = runtime.get(refs)
        assert {value for tensor in shown for value in tensor} == {4.0 * number}
    os.kill(runtime.get(third.pid.remote()), signal.SIGKILL)
    died(graph.execute(torch.ones(1000))[0])
    graph.teardown()
    assert runtime.get(first.make.remote(5)) == 5
    assert notes(tmp_path)["rank 0"][-1] == "destroy"


@pytest.mark.proc
def test_actors_end_with_their_last_handle_although_a_communicator_had_theirs(
    session, pipes
) -> None:
    await_zygotes()
    first, second = actors = [runtime.remote(Worker).remote() for _ in range(2)]
    pids = runtime.get([actor.pid.remote() for actor in actors])
    with InputNode() as inp:
        value = first.make.bind(inp).with_tensor_transport(pipes(actors))
        output = second.show.bind(value)
    with output.experimental_compile() as graph:
        assert graph.execute(torch.ones(1)).get() == [[1]]
    del first, second, actors, inp, value, output, graph
    gc.collect()
    assert wait_until_dead(pids, LONG_S) == []
