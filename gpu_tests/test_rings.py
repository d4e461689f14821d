"""Tensors that stay on the GPU between actors that share one: what must hold on a real device."""

from __future__ import annotations

import random
import re
import time

import pytest

import runtime
from compiled_dag import GraphActorDiedError, InputNode, MultiOutputNode, TaskError
from compiled_dag.cuda.flow import AHEAD
from gpu_tests.crew import DEVICE, ON_GPU, Captured, waits_in
from tests.live import LONG_S, pids_of, wait_until

pytestmark = [
    pytest.mark.proc,
    pytest.mark.filterwarnings("ignore:num_gpus=", "ignore:the GPUs are fake"),
]
LAPS = 100_000 if ON_GPU else 500
LONG_KERNEL_MS = 100.0


def hop(writer, *readers, method="make", then="show", hint="accelerator"):
    with InputNode() as inp:
        value = getattr(writer, method).bind(inp).with_tensor_transport(hint)
        return MultiOutputNode([getattr(reader, then).bind(value) for reader in readers])


def expect(graph, transport="cuda_ipc", why=""):
    """Check how the tensors travel."""
    found = [edge for edge in graph.explain().edges if edge.channel and "hinted" in edge.why]
    assert found
    for edge in found:
        assert edge.transport == (transport if ON_GPU else "fake"), str(edge)
        assert not ON_GPU or re.search(why, edge.why), edge.why


def get(refs):
    return runtime.get(refs, timeout=LONG_S)


def flat(n):
    return (DEVICE, [float(number) for number in range(n)])


# --- rows 1, 4, 5: right, growing, several readers -----------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize("readers", [1, 2])
def test_a_hundred_thousand_laps_of_random_sizes_are_right(start, readers) -> None:
    writer, *others = start(1 + readers)
    draw = random.Random(7)
    with hop(writer, *others, then="check").experimental_compile() as graph:
        expect(graph)
        pending = []
        for lap in range(LAPS):
            most = 1 << min(20, 4 + lap * 20 // LAPS)  # grows by and by
            pending.append(graph.execute(draw.randrange(most)))
            if len(pending) == 8:
                get(pending.pop(0))
        for refs in pending:
            get(refs)
    assert get([other.num_wrong.remote() for other in others]) == [0] * readers


def test_tensors_anywhere_in_a_value_arrive(start) -> None:
    expect_anywhere(*start(2))


def expect_anywhere(writer, reader) -> None:
    with hop(writer, reader, method="make_many").experimental_compile() as graph:
        for n in (3, 0, 5):
            (found,) = get(graph.execute(n))
            assert found == {
                "a": [flat(n), "text"], "b": [flat(n + 1), n], "cpu": ("cpu", [1.0] * 3)
            }  # fmt: skip


def test_what_readers_get_is_their_own(start) -> None:
    writer, *readers = start(3)
    with hop(writer, *readers, then="keep").experimental_compile() as graph:
        for _ in range(20):
            get(graph.execute(4))
    kept = get([reader.show_kept.remote() for reader in readers])
    assert kept == [[(DEVICE, [100.0, 101.0, 102.0, 103.0])] * 20] * 2


def test_slow_kernels_on_either_side_are_waited_for(start) -> None:
    writer, reader = start(2)
    with InputNode() as inp:
        value = writer.make_slowly.bind(inp[0], inp[1]).with_tensor_transport("accelerator")
        output = reader.check_slowly.bind(value, inp[2])
    with output.experimental_compile() as graph:
        for slow_writer, slow_reader in ((5, 0), (0, 5), (3, 3)):
            refs = [graph.execute(100_000, slow_writer, slow_reader) for _ in range(10)]
            get(refs)
    assert get(reader.num_wrong.remote()) == 0


# --- views ----------------------------------------------------------------------------------------


def viewed(node):
    return node.with_tensor_transport("accelerator", views=True)


@pytest.mark.parametrize("overlaps", [False, True])
def test_views_are_right_while_many_executions_are_under_way(start, overlaps) -> None:
    writer, *readers = start(3)
    draw = random.Random(8)
    with InputNode() as inp:
        value = viewed(writer.make_slowly.bind(inp, 1))
        passed = viewed(readers[0].same.bind(value))
        output = MultiOutputNode([readers[1].check_slowly.bind(one, 1) for one in (value, passed)])
    with output.experimental_compile(_overlap_gpu_communication=overlaps) as graph:
        expect(graph, why="views=True: readers get no copies")
        for _ in range(LAPS // 500):
            for refs in [graph.execute(draw.randrange(1 << 18)) for _ in range(8)]:
                get(refs)
    assert get(readers[1].num_wrong.remote()) == 0


@pytest.mark.skipif(not ON_GPU, reason="there are no CUDA calls to look at")
def test_views_take_no_copies(start) -> None:
    writer, reader = start(2)
    with InputNode() as inp:
        output = reader.check.bind(viewed(writer.make.bind(inp)))
    with output.experimental_compile() as graph:
        for _ in range(10):
            get(graph.execute(1000))  # everything is open by now
        get(reader.profile.remote())
        get([graph.execute(1000) for _ in range(8)])
        calls = get(reader.calls.remote())
    assert not [name for name in calls if "memcpy" in name.lower()], calls


def test_views_that_are_kept_stay_as_they_are(start) -> None:
    writer, reader, last = start(3)
    sizes = [3, 5, 4, 100_000, 7, 8, 9, 10]
    with InputNode() as inp:
        value = viewed(reader.keep_last.bind(viewed(writer.make.bind(inp))))
        output = last.show.bind(value)
    with output.experimental_compile() as graph:
        for ref in [graph.execute(n) for n in sizes]:
            get(ref)
    expected = [(DEVICE, [float(n - 2), float(n - 1)]) for n in sizes]
    assert get(reader.show_kept.remote()) == expected


def test_what_autograd_keeps_of_views_stays_as_it_is(start) -> None:
    import torch

    writer, reader = start(2)
    with InputNode() as inp:
        output = reader.learn.bind(viewed(writer.make.bind(inp)))
    with output.experimental_compile() as graph:
        found = [get(graph.execute(n)) for n in (10, 20, 30, 40, 50)]
    expected = [0.0, *(float(torch.arange(n).float().sin().sum()) for n in (10, 20, 30, 40))]
    assert found == pytest.approx(expected, abs=1e-3)


# --- row 2: nobody's host waits -------------------------------------------------------------------


@pytest.mark.skipif(not ON_GPU, reason="there are no CUDA calls to look at")
def test_no_host_waits_for_the_gpu(start) -> None:
    writer, reader = actors = start(2)
    with InputNode() as inp:
        value = writer.make_slowly.bind(inp[0], inp[1]).with_tensor_transport("accelerator")
        output = reader.check.bind(value)
    with output.experimental_compile() as graph:
        for _ in range(20):
            get(graph.execute(1000, 1))  # everything is open by now
        own = waits_while(actors, lambda: None)
        assert waits_while(actors, lambda: get([graph.execute(1000, 5) for _ in range(8)])) == own
        get([actor.works.remote() for actor in actors])  # the GPU has nothing to do now
        begun = time.perf_counter()
        get([graph.execute(1000, LONG_KERNEL_MS) for _ in range(AHEAD)])
        hosts_s = time.perf_counter() - begun
    assert hosts_s < LONG_KERNEL_MS / 1e3, f"the hosts took as long as one of {AHEAD} kernels"


def waits_while(actors, run) -> list[dict[str, int]]:
    """Return the calls by which each actor's host waits for its GPU, the profiler's own too."""
    get([actor.profile.remote() for actor in actors])
    run()
    return [waits_in(calls) for calls in get([actor.calls.remote() for actor in actors])]


# --- row 3, and the faults of a GPU ---------------------------------------------------------------


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize(
    ("n", "milliseconds"),
    [(1_000_000, 200), (50_000_000 if ON_GPU else 50_000, 0)],
    ids=["kernel", "copy"],
)
def test_death_in_the_middle_of_it_leaves_the_other_usable(start, victim, n, milliseconds) -> None:
    actors = start(2)
    pids = pids_of(actors)
    with InputNode() as inp:
        value = actors[0].make_slowly.bind(inp, milliseconds).with_tensor_transport("accelerator")
        output = actors[1].check_slowly.bind(value, milliseconds)
    graph = output.experimental_compile()
    get(graph.execute(1000))
    refs = [graph.execute(n) for _ in range(4)]
    runtime.kill(actors[victim])
    with pytest.raises(GraphActorDiedError):
        _execute_until_dead(graph, refs)
    graph.teardown()
    assert get(actors[1 - victim].works.remote())
    if ON_GPU:
        wait_until(lambda: pids[victim] not in _processes_on_gpu())


def _execute_until_dead(graph, refs) -> None:
    while True:
        get(refs.pop(0))
        refs.append(graph.execute(8))


def _processes_on_gpu() -> set[int]:
    import subprocess

    asked = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
    return {int(line) for line in subprocess.check_output(asked, text=True).split()}


@pytest.mark.skipif(not ON_GPU, reason="only a GPU's context can be lost")
def test_a_lost_context_is_the_actors_death(start) -> None:
    first, second, third = start(3)
    with InputNode() as inp:
        value = first.make.bind(inp).with_tensor_transport("accelerator")
        broken = second.break_context.bind(value).with_tensor_transport("accelerator")
        output = third.show.bind(broken)
    graph = output.experimental_compile()
    with pytest.raises((GraphActorDiedError, TaskError)) as raised:
        _execute_until_dead(graph, [graph.execute(8)])
    assert re.search("context is lost|device-side assert", str(raised.value))
    graph.teardown()
    assert get([first.works.remote(), third.works.remote()]) == [True, True]


@pytest.mark.skipif(not ON_GPU, reason="the CPU has other limits")
def test_a_full_gpu_is_an_error_of_its_execution(start) -> None:
    writer, reader = start(2)
    with hop(writer, reader, method="fill_gpu").experimental_compile() as graph:
        with pytest.raises(TaskError, match="out of memory"):
            get(graph.execute(1))
    with hop(writer, reader).experimental_compile() as graph:
        assert get(graph.execute(3)) == [flat(3)]


# --- rows 6, 7, 8: allocators and numbering -------------------------------------------------------


@pytest.mark.parametrize("setting", ["expandable_segments:True", "backend:cudaMallocAsync"])
def test_any_allocator_of_torch_will_do(start, setting) -> None:
    variables = {"PYTORCH_CUDA_ALLOC_CONF": setting, "PYTORCH_ALLOC_CONF": setting}
    writer, reader = start(2, runtime_env={"env_vars": variables})
    if ON_GPU and "Async" in setting:
        assert get(writer.allocator.remote()) == "cudaMallocAsync"
    with hop(writer, reader).experimental_compile() as graph:
        expect(graph)
        for n in (10, 1_000_000, 3, 5_000_000):
            assert get(graph.execute(n)) == [flat(n)]


@pytest.mark.skipif(not ON_GPU, reason="there is nothing to number")
def test_gpus_named_by_uuid(start, monkeypatch) -> None:
    import torch

    uuids = [f"GPU-{torch.cuda.get_device_properties(i).uuid}"
             for i in range(torch.cuda.device_count())]  # fmt: skip
    writer, reader = start(2, environment={"CUDA_VISIBLE_DEVICES": ",".join(uuids)})
    with hop(writer, reader).experimental_compile() as graph:
        expect(graph, why=re.escape(uuids[0].removeprefix("GPU-")))
        assert get(graph.execute(5)) == [flat(5)]


# --- rows 10, 11, 12: CUDA graphs, and what is refused --------------------------------------------


@pytest.mark.skipif(not ON_GPU, reason="only a GPU has CUDA graphs")
def test_a_captured_body_between_channel_operations(start) -> None:
    writer, reader = start(2)
    captured = runtime.remote(Captured).options(num_gpus=0.1).remote(1000)
    with InputNode() as inp:
        value = writer.make.bind(inp).with_tensor_transport("accelerator")
        doubled = captured.work.bind(value).with_tensor_transport("accelerator")
        output = reader.show.bind(doubled)
    with output.experimental_compile() as graph:
        refs = [graph.execute(1000) for _ in range(10)]
        for ref in refs:
            assert get(ref) == (DEVICE, [float(2 * n + 1) for n in range(1000)])


@pytest.mark.skipif(not ON_GPU, reason="nothing is refused that is not there")
@pytest.mark.parametrize(
    ("device", "transport", "why"),
    [
        ("without_memory", "pinned", "exporting GPU memory.*NotSupported"),
        ("without_events", "cuda_ipc", "hosts wait for GPUs"),
        ("without_both", "pinned", "hosts wait for GPUs"),
    ],
)
def test_what_is_refused_is_done_without(start, device, transport, why) -> None:
    environment = {"COMPILED_DAG_CUDA": f"gpu_tests.refusing:{device}"}
    writer, *readers = start(3, environment=environment)
    with hop(writer, *readers).experimental_compile() as graph:
        expect(graph, transport, why)
        sizes = [3, 2_000_000, 0, 7, 100, 5]
        refs = [graph.execute(n) for n in sizes]
        for n, found in zip(sizes, map(get, refs), strict=True):
            assert found == [flat(n)] * 2
