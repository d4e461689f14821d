"""What NCCL sends from while methods go on: the buffers, and graphs over an imitated NCCL."""

from __future__ import annotations

import gc
import threading
from types import SimpleNamespace

import pytest
import torch

import runtime
from compiled_dag import InputNode, MemoryCapError, MultiOutputNode, TaskError
from compiled_dag.channel import layout as at
from compiled_dag.cuda.outbox import BUFFERS, Departure, Outbox
from tests.cuda.crew import UNSENDABLE, Elsewhere
from tests.cuda.fake import ASKED, DEFAULT, POISON, STILL, FakeDevice, Settings
from tests.cuda.graphs import after_a_death, edges, get, hop
from tests.live import LONG_S, wait_until

WORD = 16


class Rig:
    """A GPU, an outbox, and what stands for NCCL: it sends when it is let."""

    def __init__(self, cap_bytes: int | None = None) -> None:
        self._watch = memoryview(bytearray(16)).cast("Q")
        unwatched = memoryview(bytearray(16)).cast("Q")
        watch = lambda stream: self._watch if stream == DEFAULT else unwatched  # noqa: E731
        self.device = FakeDevice(Settings("pause_us=0"), watch)
        make = lambda: self.device.driver.make_event(is_shared=False)  # noqa: E731
        departure = Departure(self.device.make_stream(), make(), tuple(make() for _ in range(2)))
        self.words = [0] * 20
        place = SimpleNamespace(control=WORD * 8)
        graph = SimpleNamespace(
            words=self.words,
            layout=SimpleNamespace(channels=[place]),
            reserved_bytes=lambda: {0: 100},
            ring_bytes=lambda: {0: self.taken},
        )
        spec = SimpleNamespace(index=0, label="Stage.make#1")
        self.outbox = Outbox(self.device, departure, graph, spec, cap_bytes)
        self.sent: list[list[int]] = []

    @property
    def taken(self) -> int:
        return self.words[WORD + at.RING_BYTES]

    def made(self, *numbers: int) -> torch.Tensor:
        return self.device.from_host(bytes(numbers))

    def send(self, *found: torch.Tensor, behind: threading.Event | None = None) -> None:
        pieces = self.outbox.fill(found)
        with self.outbox.on():
            if behind is not None:
                self.device.launch(behind.wait)
            for one in pieces:
                self.device.launch(lambda one: self.sent.append(one.tolist()), one)
        self.outbox.sent()

    def methods_are_done(self) -> bool:
        """Tell whether the current stream comes to the end of what it has to do, or waits."""
        end = self.device.streams[DEFAULT].mark()
        self._watch[ASKED] = asked = self._watch[ASKED] + 1
        wait_until(lambda: self._watch[STILL] >= asked)
        return end.is_set()


@pytest.fixture
def gate():
    opened = threading.Event()
    yield opened
    opened.set()


def test_what_a_method_changes_meanwhile_is_sent_as_it_was(gate) -> None:
    rig = Rig()
    value, other = rig.made(1, 2, 3), rig.made(4)
    rig.send(value, other, behind=gate)
    rig.device.launch(lambda value: value.add_(100), value)
    assert rig.methods_are_done()
    gate.set()
    rig.device.synchronize()
    assert rig.sent == [[1, 2, 3], [4]]


def test_methods_wait_for_the_send_of_the_last_but_one_and_no_host_does(gate) -> None:
    rig = Rig()
    for number in range(BUFFERS):
        rig.send(rig.made(number), behind=gate)
        assert rig.methods_are_done()
    rig.send(rig.made(BUFFERS))
    assert not rig.methods_are_done()
    gate.set()
    rig.device.synchronize()
    assert rig.sent == [[0], [1], [2]]


def test_buffers_grow_and_what_is_on_its_way_is_still_sent(gate) -> None:
    rig = Rig()
    rig.send(rig.made(1, 2), behind=gate)
    first = rig.taken
    rig.send(rig.made(*[7] * 1000))
    assert rig.taken >= BUFFERS * 1000 > first > 0
    kept = [rig.device.new(("uint8", (256,))) for _ in range(8)]  # what the old ones could be
    for one in kept:
        rig.device.launch(lambda one: one.fill_(POISON), one)
    gate.set()
    rig.device.synchronize()
    assert rig.sent == [[1, 2], [7] * 1000]


def test_buffers_that_are_dropped_with_their_graph_are_sent_first(gate) -> None:
    rig = Rig()
    rig.send(rig.made(1, 2, 3), behind=gate)
    blocks = dict(rig.device.blocks)
    rig.outbox._buffers.clear()
    gc.collect()
    assert len(rig.device.blocks) < len(blocks)
    gate.set()
    rig.device.synchronize()
    assert rig.sent == [[1, 2, 3]]


def test_a_buffer_whose_value_was_not_sent_is_used_again_in_order() -> None:
    rig = Rig()
    for number in range(5):
        pieces = rig.outbox.fill([rig.made(number)])
        if number % 2:
            continue  # it could not be published
        with rig.outbox.on():
            rig.device.launch(lambda one: rig.sent.append(one.tolist()), *pieces)
        rig.outbox.sent()
    rig.device.synchronize()
    assert rig.sent == [[0], [2], [4]]


def test_what_the_cap_does_not_allow_is_refused_and_takes_nothing() -> None:
    rig = Rig(cap_bytes=4000)
    rig.send(rig.made(1))
    with pytest.raises(MemoryCapError, match=r"two buffers to send from, .*taken 100, .*=4000"):
        rig.outbox.fill([rig.device.new(("uint8", (2500,)))])
    assert rig.taken == 0
    rig.send(rig.made(2))
    rig.device.synchronize()
    assert (rig.sent, rig.taken) == ([[1], [2]], BUFFERS * 256)


def test_values_without_elements_take_no_memory() -> None:
    rig = Rig()
    empty = rig.device.new(("uint8", (0,)))
    rig.send(empty)
    rig.device.synchronize()
    assert (rig.taken, rig.sent) == (0, [[]])


# --- graphs ---------------------------------------------------------------------------------------


def compiled(output, **options):
    return output.experimental_compile(_overlap_gpu_communication=True, **options)


@pytest.mark.proc
@pytest.mark.parametrize("overlaps", [False, True])
def test_a_pipeline_to_and_fro_with_many_executions_under_way_is_right(start, overlaps) -> None:
    stages = start(3, num_gpus=3, settings="no_memory,nccl,pause_us=500")
    with InputNode() as inp:
        value = stages[0].make.bind(inp)
        for stage in (stages[1], stages[2], stages[1], stages[0]):
            value = stage.add.bind(value.with_tensor_transport("nccl"), 10)
        output = stages[1].show.bind(value.with_tensor_transport("nccl"))
    with output.experimental_compile(_overlap_gpu_communication=overlaps) as graph:
        explained = graph.explain()
        assert {edge.transport for edge in explained.edges} == {"shm", "nccl"}
        for first in range(0, 30, 10):
            refs = [graph.execute(n) for n in range(first, first + 10)]
            for n, found in zip(range(first, first + 10), map(get, refs), strict=True):
                assert found == ("gpu", [number + 40 for number in range(n)])
        assert ("two buffers to send tensors from, 512 bytes" in str(graph.explain())) == overlaps
        assert (graph.memory().ring_bytes > 0) == overlaps


@pytest.mark.proc
def test_a_tensor_that_is_changed_in_place_arrives_as_each_call_returned_it(start) -> None:
    first, *others = start(3, num_gpus=3, settings="no_memory,nccl,pause_us=2000")
    with hop(first, *others, method="count_up", then="keep").experimental_compile(
        _overlap_gpu_communication=True
    ) as graph:
        refs = [graph.execute(1000) for _ in range(10)]
        for ref in refs:
            get(ref)
    for other in others:
        found = get(other.show_kept.remote())
        assert [numbers for _, numbers in found] == [
            [(n + 101 + 128) % 256 - 128] * 1000 for n in range(10)
        ]


@pytest.mark.proc
@pytest.mark.parametrize("overlaps", [False, True])
def test_another_gpu_that_user_code_has_made_current_changes_nothing(start, overlaps) -> None:
    start(0, num_gpus=4, settings="no_memory,nccl")
    kind = runtime.remote(Elsewhere).options(num_gpus=2)
    first, second = kind.remote(), kind.remote()
    with InputNode() as inp:
        value = first.add.bind(first.make.bind(inp)).with_tensor_transport("accelerator")
        back = second.add.bind(value).with_tensor_transport("accelerator")
        output = first.show.bind(back)
    with output.experimental_compile(_overlap_gpu_communication=overlaps) as graph:
        assert edges(graph)["Elsewhere.add", "Elsewhere.add"].transport == "nccl"
        for n in (3, 1000, 0, 5):
            assert get(graph.execute(n)) == ("gpu", [number + 2 for number in range(n)])


@pytest.mark.proc
def test_what_is_played_again_arrives_as_it_was(start) -> None:
    first, second = start(2, num_gpus=2, settings="no_memory,nccl,pause_us=1000")
    with InputNode() as inp:
        value = first.make.bind(inp)
        value = first.add_counted.options(cuda_graph=True).bind(value, 5)
        output = second.show.bind(value.with_tensor_transport("accelerator"))
    with compiled(output) as graph:
        refs = [graph.execute(3) for _ in range(10)]
        assert list(map(get, refs)) == [("gpu", [5, 6, 7])] * 10
    assert get(first.count.remote()) < 10


@pytest.mark.proc
def test_the_cap_counts_what_is_sent_from_and_the_graph_goes_on(start) -> None:
    first, second = start(2, num_gpus=2, settings="no_memory,nccl")
    output = hop(first, second)
    with compiled(output, _max_memory_bytes=1 << 20, _buffer_size_bytes=4096) as graph:
        assert get(graph.execute(3)) == [("gpu", [0, 1, 2])]
        with pytest.raises(TaskError, match="two buffers to send from"):
            get(graph.execute(1_000_000))
        assert get(graph.execute(4)) == [("gpu", [0, 1, 2, 3])]


@pytest.mark.proc
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_death_breaks_the_graph_and_leaves_the_others_usable(start, victim, monkeypatch) -> None:
    monkeypatch.setenv("COMPILED_DAG_OVERLAP_GPU_COMMUNICATION", "1")
    stages = start(3, num_gpus=3, settings="no_memory,nccl")
    left = after_a_death(stages, victim)
    for one in left:
        runtime.get(one.show.remote(3), timeout=LONG_S)  # its GPU waits for nobody
    with hop(*left).experimental_compile() as again:
        assert edges(again)["Stage.make", "Stage.show"].transport == "nccl"
        assert get(again.execute(4)) == [("gpu", [0, 1, 2, 3])]


@pytest.mark.proc
def test_what_is_under_way_at_the_end_of_a_graph_arrives(start) -> None:
    """The driver has its results long before the GPUs are done."""
    first, second = start(2, num_gpus=2, settings="no_memory,nccl,pause_us=100000")
    with InputNode() as inp:
        value = first.make.bind(inp).with_tensor_transport("accelerator")
        output = MultiOutputNode([second.put_away.bind(value)])
    with compiled(output) as graph:
        for ref in [graph.execute(n) for n in range(4)]:
            get(ref)
    assert get(second.show_kept.remote()) == [("gpu", list(range(n))) for n in range(4)]


@pytest.mark.proc
@pytest.mark.parametrize("overlaps", [False, True])
def test_values_of_one_call_for_the_same_readers_are_one_operation(start, overlaps) -> None:
    writer, *readers = start(3, num_gpus=3, settings="no_memory,nccl,pause_us=1000")
    with InputNode() as inp:
        both = writer.make_two.options(num_returns=2).bind(inp)
        one, other = (value.with_tensor_transport("accelerator") for value in both)
        shown = [[r.show.bind(r.add.bind(one)), r.show.bind(other)] for r in readers]
        output = MultiOutputNode([node for nodes in shown for node in nodes])
    with output.experimental_compile(_overlap_gpu_communication=overlaps) as graph:
        found = edges(graph)
        together = [
            found[f"Stage.make_two[{n}]", to] for n, to in enumerate(("Stage.add", "Stage.show"))
        ]
        assert together[0].channel == together[1].channel
        before = get([actor.operations.remote() for actor in (writer, *readers)])
        refs = {n: graph.execute(n) for n in (3, 0, 40_000, 5)}
        for n, of in refs.items():
            value = ("gpu", [number + 1 for number in range(n)])
            beside = [("gpu", list(range(n + 1))), n]
            assert get(of) == [value, beside] * 2
        after = get([actor.operations.remote() for actor in (writer, *readers)])
        assert [now - then for now, then in zip(after, before, strict=True)] == [4] * 3

        for n, cause in ((-2, "no -2 numbers"), (UNSENDABLE, "lock")):
            for ref in graph.execute(n):
                with pytest.raises(TaskError, match=cause):
                    get(ref)
        assert get(graph.execute(1)) == [("gpu", [1]), [("gpu", [0, 1]), 1]] * 2
