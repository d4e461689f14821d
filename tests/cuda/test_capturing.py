"""Methods recorded as CUDA graphs: when that is done, played and given up, on GPUs in host memory.

A recording of `fake` is the kernels that were launched, and keeps the memory they use; what CUDA
makes of it only `gpu_tests` can tell.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import runtime
from compiled_dag import InputNode, MultiOutputNode, table
from compiled_dag.cuda.capturing import WARM, Capturing
from compiled_dag.cuda.device import TorchDevice
from compiled_dag.program import Compute
from tests.cuda.fake import FakeDevice, Settings
from tests.cuda.graphs import get
from tests.graphs import paper, program_of


class Bench:
    """A method of a GPU's, and what records it."""

    def __init__(self, *, copies=True) -> None:
        self.device = FakeDevice(Settings("pause_us=100"))
        self.runs = self.settled = 0
        self.copies = copies

    def recorded(self, method):
        def counted(*args, **kwargs):
            self.runs += 1
            return method(*args, **kwargs)

        return Capturing(counted, self.device, "Stage.add", self.settle, copies=self.copies)

    def settle(self) -> None:
        self.settled += 1
        self.device.synchronize()

    def number(self, *values, dtype="int32"):
        made = self.device.new((dtype, (len(values),)))
        made.copy_(torch.tensor(values))
        return made

    def plus(self, value, more=1):
        made = self.device.new(("int32", tuple(value.shape)))
        self.device.launch(lambda one, two: torch.add(one, more, out=two), value, made)
        return made

    def shown(self, value):
        self.device.synchronize()
        return value.tolist()


@pytest.fixture
def bench():
    return Bench()


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_method_runs_a_few_times_then_is_recorded_and_from_then_on_only_played(bench) -> None:
    add = bench.recorded(bench.plus)
    for call in range(12):
        assert bench.shown(add(bench.number(call, 2 * call))) == [call + 1, 2 * call + 1]
        assert bench.runs == min(call + 1, WARM + 1)
        assert bench.settled == (call >= WARM)


def test_results_are_the_callers_own_unless_only_channels_use_them(bench) -> None:
    add = bench.recorded(bench.plus)
    kept = [add(bench.number(call)) for call in range(8)]
    assert [bench.shown(one) for one in kept] == [[call + 1] for call in range(8)]
    bare = Bench(copies=False)
    add = bare.recorded(bare.plus)
    last = [add(bare.number(call)) for call in range(8)][-2:]
    assert last[0] is last[1]
    assert bare.shown(last[0]) == [8]


@pytest.mark.parametrize(
    "other", [lambda b: b.number(1, 2, 3), lambda b: b.number(1, 2, dtype="int64")]
)
def test_arguments_that_look_different_run_the_method_and_that_is_told_once(
    bench, caplog, other
) -> None:
    def total(value):
        made = bench.device.new(("int64", ()))
        bench.device.launch(lambda one, two: two.copy_(one.sum()), value, made)
        return made

    add = bench.recorded(total)
    for _ in range(WARM + 2):
        add(bench.number(1, 2))
    for _ in range(3):
        expected = int(other(bench).sum())
        assert bench.shown(add(other(bench))) == expected
    assert bench.runs == WARM + 1 + 3
    assert bench.shown(add(bench.number(4, 5))) == 9
    assert bench.runs == WARM + 1 + 3
    (text,) = told(caplog)
    assert text.startswith("Stage.add was to be captured as a CUDA graph, and runs as it is: its ")


def test_numbers_and_texts_are_part_of_the_look(bench) -> None:
    add = bench.recorded(bench.plus)
    for call in range(6):
        assert bench.shown(add(bench.number(0), more=call)) == [call]
    assert bench.runs == 6
    for _ in range(6):
        assert bench.shown(add(bench.number(0), more=7)) == [7]
    assert bench.runs == 6 + WARM + 1


def test_tensors_are_found_and_given_back_in_containers(bench) -> None:
    def swap(pair, *, more):
        first, second = pair
        return {"sums": [bench.plus(second), (bench.plus(first, more["by"]),)], "n": 3}

    swapped = bench.recorded(swap)
    for call in range(6):
        found = swapped((bench.number(call), bench.number(10)), more={"by": 2})
        assert bench.shown(found["sums"][0]) == [11]
        assert bench.shown(found["sums"][1][0]) == [call + 2]
        assert found["n"] == 3
    assert bench.runs == WARM + 1


def test_what_cannot_be_recorded_runs_as_it_is(bench, caplog) -> None:
    def add(value):
        bench.device.synchronize()
        return bench.plus(value)

    added = bench.recorded(add)
    for call in range(8):
        assert bench.shown(added(bench.number(call))) == [call + 1]
    assert bench.runs == 8 + 1  # once more where recording it failed
    (text,) = told(caplog)
    assert "FakeCudaError" in text
    assert text.endswith("when stream is capturing while it was recorded")


@pytest.mark.parametrize(
    ("value", "what"), [(object(), "a builtins.object"), (torch.ones(2), "a tensor on cpu, not on")]
)
def test_values_no_recording_can_take_are_told_once(bench, caplog, value, what) -> None:
    echo = bench.recorded(lambda given: given)
    for _ in range(8):
        assert echo(value) is value
    assert bench.runs == 8
    (text,) = told(caplog)
    assert f"it is given {what}" in text


def test_results_that_cannot_be_copied_are_not_recorded(bench, caplog) -> None:
    made = bench.recorded(lambda value: SimpleNamespace(value=bench.plus(value)))
    for call in range(8):
        assert bench.shown(made(bench.number(call)).value) == [call + 1]
    (text,) = told(caplog)
    assert "it returned a types.SimpleNamespace, which cannot be copied" in text


def test_what_it_raises_is_raised(bench) -> None:
    def fail(_value):
        raise KeyError("told to")

    failing = bench.recorded(fail)
    for _ in range(8):
        with pytest.raises(KeyError):
            failing(bench.number(1))


def test_what_it_raises_has_nothing_to_do_with_the_recording_before(bench) -> None:
    def fails(value):
        if bench.runs > WARM:
            raise KeyError(bench.runs)
        return value

    add = bench.recorded(fails)
    for _ in range(WARM):
        add(bench.number(1))
    with pytest.raises(KeyError) as raised:
        add(bench.number(1))
    assert raised.value.args == (WARM + 2,)
    assert raised.value.__context__ is None


class Torch211:
    """What torch 2.11 does around captures, where CUDA refuses to end one that was invalidated."""

    def __init__(self) -> None:
        self.current = "main"
        self.open_pools: list[int] = []
        self.draws_into_capture = self.is_invalid = False
        self.cuda = SimpleNamespace(
            CUDAGraph=partial(Torch211Graph, self),
            Stream=lambda _device: "recorder",
            current_stream=lambda _device: self.current,
            graph=self.graph,
            graph_pool_handle=lambda: 7,
            stream=self.stream,
        )
        self._C = SimpleNamespace(_cuda_endAllocateToPool=self.end_allocate)

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        before, self.current = self.current, stream
        graph.capture_begin(pool, capture_error_mode)
        try:
            yield
        finally:
            graph.capture_end()
            self.current = before  # not where capture_end raises, as in torch

    def end_allocate(self, device, pool):
        assert device == 0
        if pool not in self.open_pools:
            raise RuntimeError("not currently recording to mempool_id")
        self.open_pools.remove(pool)

    def zeros(self, _count, *, device):
        assert device == torch.device("cuda", 0)
        assert self.current == "recorder"

    def item(self):
        """Wait for the GPU: that invalidates a capture."""
        self.is_invalid = True
        raise RuntimeError("operation not permitted when stream is capturing")


class Torch211Graph:
    replay = None

    def __init__(self, torch_211) -> None:
        self.torch = torch_211

    def capture_begin(self, pool=8, capture_error_mode="global") -> None:
        assert capture_error_mode == "thread_local"
        self.pool = pool
        self.torch.open_pools.append(pool)
        self.torch.draws_into_capture = True

    def capture_end(self) -> None:
        if self.torch.is_invalid:
            self.torch.is_invalid = False
            raise RuntimeError("operation failed due to a previous error during capture")
        self.torch.open_pools.remove(self.pool)
        self.torch.draws_into_capture = False


@pytest.mark.parametrize("why", ["", "raises", "waits"])
def test_a_capture_leaves_torch_as_it_was(why) -> None:
    library = Torch211()
    device = object.__new__(TorchDevice)
    device._torch, device._where, device._recorder = library, torch.device("cuda", 0), None

    def work() -> str:
        assert library.current == "recorder"
        if why:
            library.item() if why == "waits" else int("no number")
        return "done"

    if why:
        with pytest.raises((RuntimeError, ValueError)):
            device.record(work)
    else:
        assert device.record(work)[1] == "done"
    assert library.current == "main"
    assert not library.open_pools
    assert not library.draws_into_capture


def test_the_memory_of_a_recording_is_given_back_at_the_end(bench) -> None:
    add = bench.recorded(bench.plus)
    before = len(bench.device.blocks)
    for call in range(6):
        add(bench.number(call))
    assert len(bench.device.blocks) > before
    add.close()
    add.close()
    assert bench.shown(add(bench.number(1))) == [2]
    assert len(bench.device.blocks) == before


# --- in graphs ------------------------------------------------------------------------------------


@pytest.mark.proc
@pytest.mark.filterwarnings("ignore:num_gpus=")
def test_a_recorded_stage_between_channels_is_right(start) -> None:
    first, second = start(2)
    with InputNode() as inp:
        value = first.make.bind(inp).with_tensor_transport("accelerator")
        more = second.add_counted.options(cuda_graph=True).bind(value, 10)
        output = first.show.bind(more.with_tensor_transport("accelerator"))
    with output.experimental_compile() as graph:
        (found,) = graph.explain().cuda_graphs
        assert str(found).endswith("Stage.add_counted on Stage(2): recorded once, then played")
        assert "CUDA graphs:" in str(graph.explain())
        refs = [graph.execute(n) for n in (*[5] * 9, 4)]
        for ref in refs[:9]:
            assert get(ref) == ("gpu", [10, 11, 12, 13, 14])
        assert get(refs[9]) == ("gpu", [10, 11, 12, 13])
        assert get(graph.execute(5)) == ("gpu", [10, 11, 12, 13, 14])
    assert get(second.count.remote()) == WARM + 1 + 1


@pytest.mark.proc
@pytest.mark.filterwarnings("ignore:num_gpus=")
def test_a_stage_that_cannot_be_recorded_says_so_and_goes_on(start, capfd) -> None:
    first, second = start(2)
    with InputNode() as inp:
        value = first.make.bind(inp).with_tensor_transport("accelerator")
        more = second.add_and_look.options(cuda_graph=True).bind(value)
        output = MultiOutputNode([second.show.bind(more), second.show.bind(value)])
    with output.experimental_compile() as graph:
        for _ in range(7):
            assert get(graph.execute(2)) == [("gpu", [1, 2]), ("gpu", [0, 1])]
    assert get(second.count.remote()) == 8
    runtime.shutdown()
    assert capfd.readouterr().err.count("Stage.add_and_look") == 1


@pytest.mark.proc
def test_on_an_actor_without_gpu_nothing_is_recorded_and_explain_says_why(session) -> None:
    class Counter:
        runs = 0

        def run(self, value):
            self.runs += 1
            return self.runs + value

    counter = runtime.remote(Counter).remote()
    with InputNode() as inp:
        output = counter.run.options(cuda_graph=True).bind(inp)
    with output.experimental_compile() as graph:
        (found,) = graph.explain().cuda_graphs
        assert found.why_not == f"{found.actor} has no GPU"
        assert str(found).endswith(f"as it is, since {found.actor} has no GPU")
        assert [get(graph.execute(10)) for _ in range(6)] == [11, 12, 13, 14, 15, 16]


def test_what_is_recorded_is_decided_at_compile_and_printed() -> None:
    def drawn(**options):
        (worker,) = paper(1, **options)
        with InputNode() as inp:
            return program_of(worker.add.options(cuda_graph=True).bind(inp))

    def recorded(program):
        return [step.cuda_graph for step in program.steps[1] if isinstance(step, Compute)]

    assert recorded(drawn()) == [False]
    program = drawn(gpus=("0",))
    assert recorded(program) == [True]
    assert "add!(" in str(program)
    assert table.parse(str(program)) == program


def test_the_option_is_a_flag() -> None:
    class Worker:
        def run(self): ...

    with pytest.raises(TypeError, match="cuda_graph"):
        runtime.method(cuda_graph="yes")(Worker.run)
