"""Graphs whose tensors a process group carries: GPUs in host memory that share none, and gloo.

The protocol is the one of NCCL edges; what NCCL itself does only `gpu_tests` can tell.
"""

from __future__ import annotations

import os
import signal
import threading
from types import SimpleNamespace

import pytest
import torch

import runtime
from collective import allreduce
from collective.edges import RankEdges, connect
from compiled_dag import GraphActorDiedError, InputNode, MultiOutputNode, TaskError
from compiled_dag.channel import codec
from compiled_dag.cuda.driver import Translating
from compiled_dag.cuda.group import Aside, GroupReader, Line
from tests.cuda.crew import Stage
from tests.cuda.fake import SETTINGS, FakeDevice, Settings
from tests.cuda.graphs import after_a_death, edges, get, hop
from tests.live import LONG_S, pids_of

SIZES = (5, 0, 3, 70_000, 4, 1_000_000, 2)


@pytest.mark.proc
def test_tensors_between_gpus_that_share_nothing_go_through_a_group(start) -> None:
    first, second, third = start(3, num_gpus=3, settings="no_memory")
    with hop(first, second, third).experimental_compile() as graph:
        edge = edges(graph)["Stage.make", "Stage.show"]
        assert edge.transport == "gloo"
        assert edge.why.endswith("operation not supported; every end has a GPU of its own")
        refs = [graph.execute(n) for n in SIZES]
        for n, found in zip(SIZES, map(get, refs), strict=True):
            assert found == [("gpu", list(range(n)))] * 2


@pytest.mark.proc
def test_tensors_anywhere_in_a_value_and_what_is_none_of_the_gpus(start) -> None:
    first, second = start(2, num_gpus=2, settings="no_memory")
    with hop(first, second, method="make_many").experimental_compile() as graph:
        for n in (3, 0, 5):
            (found,) = get(graph.execute(n))
            assert found == {
                "a": [("gpu", list(range(n))), "text"],
                "b": [("gpu", list(range(n + 1))), n],
                "cpu": ("cpu", [1.0] * 3),
            }


@pytest.mark.proc
@pytest.mark.filterwarnings("ignore:num_gpus=")
@pytest.mark.parametrize(
    ("num_gpus", "settings", "transport"),
    [(2, "no_memory", "pinned"), (3, "no_memory,backend=", "pinned")],
)
def test_ends_that_share_a_gpu_or_can_be_in_no_group_have_a_ring_in_host_memory(
    start, num_gpus, settings, transport
) -> None:
    first, second, third = start(3, num_gpus=num_gpus, settings=settings)
    with hop(first, second, third).experimental_compile() as graph:
        assert edges(graph)["Stage.make", "Stage.show"].transport == transport
        assert get(graph.execute(3)) == [("gpu", [0, 1, 2])] * 2


@pytest.mark.proc
def test_a_group_that_does_not_form_is_done_without_and_explained(start) -> None:
    first, second = start(2, num_gpus=2, settings="no_memory,backend=nccl")  # there is no NCCL
    with hop(first, second).experimental_compile() as graph:
        edge = edges(graph)["Stage.make", "Stage.show"]
        assert edge.transport == "pinned"
        assert "the nccl group of Stage(1), Stage(2) did not form: Stage(1): " in edge.why
        assert get(graph.execute(3)) == [("gpu", [0, 1, 2])]


@pytest.mark.proc
@pytest.mark.filterwarnings("ignore:num_gpus=")
@pytest.mark.parametrize("overlaps", [False, True])
def test_a_pipeline_to_and_fro_with_many_executions_under_way_is_right(start, overlaps) -> None:
    """The first and the last stage share a GPU, and no group: there is one for each set of ends."""
    stages = start(3, num_gpus=2, settings="no_memory,pause_us=500")
    with InputNode() as inp:
        value = stages[0].make.bind(inp)
        for stage in (stages[1], stages[2], stages[1], stages[0]):
            value = stage.add.bind(value.with_tensor_transport("nccl"), 10)
        output = stages[1].show.bind(value.with_tensor_transport("nccl"))
    with output.experimental_compile(_overlap_gpu_communication=overlaps) as graph:
        assert {edge.transport for edge in graph.explain().edges} == {"shm", "gloo"}
        refs = [graph.execute(n) for n in range(10)]
        for n, found in enumerate(map(get, refs)):
            assert found == ("gpu", [number + 40 for number in range(n)])


@pytest.mark.proc
def test_a_collective_and_edges_of_the_same_actors_keep_one_order(start) -> None:
    first, second = start(2, num_gpus=2, settings="no_memory")
    with InputNode() as inp:
        made = [first.make.bind(inp), second.make.bind(inp)]
        crossed = [second.add.bind(made[0].with_tensor_transport("nccl")),
                   first.add.bind(made[1].with_tensor_transport("nccl"))]  # fmt: skip
        settled = [first.settle.bind(crossed[1]), second.settle.bind(crossed[0])]
        sums = allreduce.bind(settled, transport="gloo")
        output = MultiOutputNode([first.tell.bind(sums[0]), second.tell.bind(sums[1])])
    with output.experimental_compile() as graph:
        for n in (3, 1, 5):
            assert get(graph.execute(n)) == [[2.0 * (number + 1) for number in range(n)]] * 2


@pytest.mark.proc
def test_errors_and_broken_promises_travel_and_the_graph_goes_on(start) -> None:
    first, second = start(2, num_gpus=2, settings="no_memory")
    with InputNode() as inp:
        value = first.make.bind(inp)
        value.with_tensor_transport("nccl", _static_shape=True, _direct_return=True)
        output = second.show.bind(value)
    with output.experimental_compile() as graph:
        assert get(graph.execute(3)) == ("gpu", [0, 1, 2])
        with pytest.raises(TypeError):
            get(graph.execute("no number"))
        with pytest.raises(TaskError, match="_static_shape=True: expected 1 tensor"):
            get(graph.execute(4))
        assert get(graph.execute(3)) == ("gpu", [0, 1, 2])


@pytest.mark.proc
def test_a_reader_without_memory_for_a_value_has_an_error_and_others_have_the_value(start) -> None:
    first, second = start(2, num_gpus=3, settings="no_memory")
    small = {"env_vars": {SETTINGS: "no_memory,memory=3000000"}}
    third = runtime.remote(Stage).options(num_gpus=1, runtime_env=small).remote()
    with hop(first, second, third).experimental_compile() as graph:
        assert edges(graph)["Stage.make", "Stage.show"].transport == "gloo"
        for n in (3, 1_000_000, 4):
            there, other = graph.execute(n)
            assert get(there) == ("gpu", list(range(n)))
            if n == 1_000_000:
                with pytest.raises(TaskError, match="has no memory left"):
                    get(other)
            else:
                assert get(other) == ("gpu", list(range(n)))


@pytest.mark.proc
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_death_breaks_the_graph_and_leaves_the_others_usable(start, victim) -> None:
    left = after_a_death(start(3, num_gpus=3, settings="no_memory"), victim)
    with hop(*left).experimental_compile() as again:
        assert edges(again)["Stage.make", "Stage.show"].transport == "gloo"
        assert get(again.execute(4)) == [("gpu", [0, 1, 2, 3])]


@pytest.mark.proc
def test_a_peer_that_is_stopped_and_killed_leaves_the_other_usable(start) -> None:
    actors = start(2, num_gpus=2, settings="no_memory")
    pid = pids_of(actors)[1]
    graph = hop(*actors).experimental_compile()
    assert get(graph.execute(3)) == [("gpu", [0, 1, 2])]
    os.kill(pid, signal.SIGSTOP)
    refs = graph.execute(4_000_000)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(GraphActorDiedError):
        get(refs)
    graph.teardown()
    assert runtime.get(actors[0].pid.remote(), timeout=LONG_S)


# --- the parts ------------------------------------------------------------------------------------


class _Mesh:
    """A process group that brings what was set for it."""

    in_host_memory = True

    def __init__(self, brings: int) -> None:
        self.brings = brings
        self.sent: list[tuple[list[int], int]] = []

    def marks(self, numbers):
        return torch.tensor(numbers, dtype=torch.uint8)

    def exchange(self, sends, receives):
        self.sent += [(one.tolist(), rank) for one, rank in sends]
        for one, _ in receives:
            one.fill_(self.brings)

    def settle(self):
        pass


def test_connecting_sends_from_each_to_each_and_checks_what_comes() -> None:
    group = _Mesh(0)
    connect(group, 1, 2)
    assert group.sent == [([1], 0)]
    with pytest.raises(RuntimeError, match=r"rank 0 received \[0\] from ranks \[1\]"):
        connect(_Mesh(0), 0, 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bool, torch.complex64, torch.int16])
def test_tensors_of_every_dtype_are_sent_as_bytes(dtype) -> None:
    group = _Mesh(1)
    target = torch.zeros(2, 3, dtype=dtype)
    RankEdges(group).exchange([(torch.ones((), dtype=torch.uint8), 5)], [(target, 0)])
    assert group.sent == [([1], 5)]
    assert target.view(-1).view(torch.uint8).unique().tolist() == [1]


class _Nccl:
    """Receives late, on the stream that is current."""

    in_host_memory = False

    def __init__(self, device: FakeDevice) -> None:
        self.device, self.gate = device, threading.Event()

    def exchange(self, sends, receives):
        self.device.launch(self.gate.wait)
        for one, _ in receives:
            self.device.launch(lambda one: one.fill_(7), one)


@pytest.mark.parametrize("is_aside", [False, True])
def test_what_nccl_brings_aside_is_awaited_where_it_is_used(monkeypatch, is_aside) -> None:
    device = FakeDevice(Settings("pause_us=0"))
    carrier = _Nccl(device)
    aside = Aside(device.make_stream(), device.driver.make_event(is_shared=False))
    peers = SimpleNamespace(end=SimpleNamespace(failure=None))
    reader = GroupReader.__new__(GroupReader)  # half of one: there is no writer to be met
    reader._line = Line(peers, carrier, device, aside if is_aside else None)
    reader._peers, reader._writer_rank = peers, 0
    reader._calling = Translating(device.driver, "reading")
    monkeypatch.setattr(GroupReader, "_say", lambda *_, comes: None)
    encoded, _ = codec.encode_apart([torch.ones(3), 5], [], lambda _: True)
    value, number = reader._rebuild(encoded.kind, encoded.head, encoded.buffers)
    found: list[list[float]] = []
    device.launch(lambda one: found.append(one.tolist()), value)
    if is_aside:  # the method before goes on meanwhile
        device.streams[device.current].synchronize()
        assert found.pop() != [7.0] * 3
        reader.arrive()
        device.launch(lambda one: found.append(one.tolist()), value)
    carrier.gate.set()
    device.synchronize()
    assert (found, number) == ([[7.0] * 3], 5)
    assert device.blocks[value.data_ptr()].lent_to == ({device.current} if is_aside else set())
