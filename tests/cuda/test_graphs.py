"""Whole graphs whose tensors stay on GPUs in host memory (`fake`): real processes, no CUDA."""

from __future__ import annotations

import re

import pytest

import runtime
from compiled_dag import (
    GraphActorDiedError,
    InputNode,
    MemoryCapError,
    MultiOutputNode,
    TaskError,
    probing,
)
from compiled_dag.channel.ring_area import MOST_SLOTS
from runtime import gpus
from runtime.finding import Level
from runtime.gpu_examination import sharing
from tests.cuda.crew import Stage
from tests.cuda.fake import SETTINGS
from tests.cuda.graphs import after_a_death, edges, get, hop, on_gpus
from tests.live import wait_until

pytestmark = [pytest.mark.proc]


@pytest.mark.filterwarnings("ignore:num_gpus=")
def test_tensors_stay_on_the_gpu_that_actors_share(start) -> None:
    first, second, third = start(3)
    with hop(first, second, third).experimental_compile() as graph:
        edge = edges(graph)["Stage.make", "Stage.show"]
        assert edge.transport == "cuda_ipc"
        assert "Stage(1) and Stage(2) share GPU-fake-0" in edge.why
        refs = [graph.execute(n) for n in (5, 0, 3, 70_000, 4, 1_000_000, 2)]
        for n, found in zip((5, 0, 3, 70_000, 4, 1_000_000, 2), map(get, refs), strict=True):
            assert found == [("gpu", list(range(n)))] * 2
    assert get([actor.memory.remote() for actor in (first, second, third)]) == [0, 0, 0]


def test_two_gpus_and_tensors_anywhere_in_a_value(start) -> None:
    first, second = start(2, num_gpus=2)
    with hop(first, second, method="make_many").experimental_compile() as graph:
        why = edges(graph)["Stage.make_many", "Stage.show"].why
        assert "Stage(2) on GPU-fake-1 reads from Stage(1) on GPU-fake-0" in why
        for n in range(12):
            (found,) = get(graph.execute(n))
            assert found == {
                "a": [("gpu", list(range(n))), "text"],
                "b": [("gpu", list(range(n + 1))), n],
                "cpu": ("cpu", [1.0] * 3),
            }


@pytest.mark.filterwarnings("ignore:num_gpus=")
def test_what_a_reader_gets_is_its_own(start) -> None:
    first, second, third = start(3, settings="pause_us=1000")
    with hop(first, second, third, then="keep").experimental_compile() as graph:
        for _ in range(10):
            get(graph.execute(4))
    kept = get([actor.show_kept.remote() for actor in (second, third)])
    assert kept == [[("gpu", [100, 101, 102, 103])] * 10] * 2


@pytest.mark.filterwarnings("ignore:num_gpus=")
@pytest.mark.parametrize("overlaps", [False, True])
def test_a_pipeline_with_many_executions_under_way_is_right(start, overlaps) -> None:
    stages = start(3, settings="pause_us=1000")
    with InputNode() as inp:
        value = stages[0].make.bind(inp)
        for stage in (*stages[1:], stages[0], stages[1]):
            value = stage.add.bind(value.with_tensor_transport("nccl"), 10)
        output = stages[2].show.bind(value.with_tensor_transport("nccl"))
    with output.experimental_compile(_overlap_gpu_communication=overlaps) as graph:
        for start_n in range(0, 60, 10):
            refs = [graph.execute(n) for n in range(start_n, start_n + 10)]
            for n, found in zip(range(start_n, start_n + 10), map(get, refs), strict=True):
                assert found == ("gpu", [number + 40 for number in range(n)])


@pytest.mark.filterwarnings("ignore:num_gpus=")
@pytest.mark.parametrize(
    ("settings", "transport", "reason"),
    [
        ("no_memory", "pinned", r"Stage\(1\) failed at exporting GPU memory: cudaError801"),
        ("spoils_imports", "pinned", r"Stage\(2\) failed at opening GPU memory: what was copied"),
        ("mig,spoils_imports", "pinned", r"is not what was there \(MIG instances share no memory"),
        ("no_events", "cuda_ipc", r"hosts wait for GPUs: .* failed at exporting a GPU event"),
        ("no_memory,no_events", "pinned", r"exporting GPU memory.*hosts wait for GPUs"),
    ],
)
def test_what_cannot_be_shared_is_done_without_and_explained(
    start, settings, transport, reason
) -> None:
    first, second = start(2, settings=settings)
    with hop(first, second).experimental_compile() as graph:
        edge = edges(graph)["Stage.make", "Stage.show"]
        assert edge.transport == transport
        assert re.search(reason, edge.why), edge.why
        refs = [graph.execute(n) for n in (5, 600_000, 0, 7, 8, 9)]
        for n, found in zip((5, 600_000, 0, 7, 8, 9), map(get, refs), strict=True):
            assert found == [("gpu", list(range(n)))]


@pytest.mark.filterwarnings("ignore:num_gpus=")
def test_where_nothing_can_be_shared_torch_copies(start) -> None:
    first, second = start(2, settings="no_memory,no_pinning")
    with hop(first, second).experimental_compile() as graph:
        edge = edges(graph)["Stage.make", "Stage.show"]
        assert edge.transport == "staged"
        assert "failed at pinning memory" in edge.why


@pytest.mark.filterwarnings("ignore:num_gpus=")
def test_errors_travel_and_the_graph_goes_on(start) -> None:
    first, second = start(2)
    with hop(first, second).experimental_compile(_max_memory_bytes=20 << 20) as graph:
        assert get(graph.execute(3)) == [("gpu", [0, 1, 2])]
        with pytest.raises(TypeError):
            get(graph.execute("no number"))
        with pytest.raises(MemoryCapError, match="Stage.make.*_max_memory_bytes=20971520"):
            get(graph.execute(10_000_000))
        assert get(graph.execute(2)) == [("gpu", [0, 1])]


@pytest.mark.filterwarnings("ignore:num_gpus=")
def test_promises_about_shapes_are_kept_on_gpus_too(start) -> None:
    first, second = start(2)
    with InputNode() as inp:
        value = first.make.bind(inp)
        value.with_tensor_transport("accelerator", _static_shape=True, _direct_return=True)
        output = second.show.bind(value)
    with output.experimental_compile() as graph:
        assert get(graph.execute(3)) == ("gpu", [0, 1, 2])
        with pytest.raises(TaskError, match="_static_shape=True: expected 1 tensor"):
            get(graph.execute(4))
        assert get(graph.execute(3)) == ("gpu", [0, 1, 2])


@pytest.mark.filterwarnings("ignore:num_gpus=")
def test_a_full_gpu_is_an_error_at_compile_and_at_run(start) -> None:
    first, second = start(2, settings=f"memory={12 << 20}")
    with pytest.raises(MemoryCapError, match=r"Stage.make#1 wants 16777216 bytes for 4 slots"):
        hop(first, second).experimental_compile(_buffer_size_bytes=4 << 20)
    with hop(first, second).experimental_compile() as graph:
        with pytest.raises(TaskError, match="8388608 are free|wants"):
            get(graph.execute(2_000_000))
        assert get(graph.execute(2)) == [("gpu", [0, 1])]


@pytest.mark.filterwarnings("ignore:num_gpus=")
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_death_breaks_the_graph_and_leaves_the_others_usable(start, victim) -> None:
    left = after_a_death(start(3), victim)
    with hop(*left).experimental_compile() as again:
        assert get(again.execute(4)) == [("gpu", [0, 1, 2, 3])]


@pytest.mark.filterwarnings("ignore:num_gpus=")
@pytest.mark.parametrize("overlaps", [False, True])
def test_a_reader_that_waits_in_its_gpu_for_a_dead_writer_is_set_free(start, overlaps) -> None:
    writer, reader = start(2)
    output = hop(writer, reader, method="make_never", then="wait_for")
    graph = output.experimental_compile(_overlap_gpu_communication=overlaps)
    refs = graph.execute(5)
    wait_until(lambda: "is in Stage.wait_for" in str(graph.hang_report()))
    expect_free(graph, [refs], writer, reader)


@pytest.mark.filterwarnings("ignore:num_gpus=")
def test_a_writer_that_waits_in_its_gpu_for_a_dead_reader_is_set_free(start) -> None:
    writer, reader = start(2)
    with InputNode() as inp:
        value = on_gpus(writer.make_and_wait.bind(inp))
        output = reader.use_never.bind(value)
    graph = output.experimental_compile()
    # The second use of the second slot waits, and so does the method after that.
    refs = [graph.execute(5) for _ in range(MOST_SLOTS + 3)]
    wait_until(lambda: "is in Stage.make_and_wait" in str(graph.hang_report()))
    expect_free(graph, refs, reader, writer)


def expect_free(graph, refs, dead, left) -> None:
    """Kill one actor, and see that the other's GPU has nothing more to wait for."""
    runtime.kill(dead)
    assert get(left.show.remote(7)) == 7
    with pytest.raises(GraphActorDiedError):
        get(refs[-1])
    graph.teardown()
    assert get(left.memory.remote()) == 0


@pytest.mark.filterwarnings("ignore:num_gpus=")
def test_what_is_needed_later_is_received_before_the_method_in_front(start) -> None:
    first, second = start(2, settings="pause_us=1000")
    with InputNode() as inp:
        early = first.make.bind(inp).with_tensor_transport("accelerator")
        late = first.make.bind(inp).with_tensor_transport("accelerator")
        local = second.add.bind(second.add.bind(early))
        output = MultiOutputNode([second.show.bind(local), second.show.bind(late)])
    with output.experimental_compile(_overlap_gpu_communication=True) as graph:
        for n in (5, 3, 100, 7, 2):
            assert get(graph.execute(n)) == [
                ("gpu", [number + 2 for number in range(n)]),
                ("gpu", list(range(n))),
            ]


@pytest.mark.filterwarnings("ignore:num_gpus=")
def test_class_nodes_share_gpus_too(start) -> None:
    start(2)
    stage = runtime.remote(Stage).options(num_gpus=0.5)
    with InputNode() as inp:
        value = stage.bind().make.bind(inp).with_tensor_transport("accelerator")
        output = stage.bind().show.bind(value)
    with output.experimental_compile() as graph:
        assert edges(graph)["Stage.make", "Stage.show"].transport == "cuda_ipc"
        assert get(graph.execute(3)) == ("gpu", [0, 1, 2])


@pytest.mark.filterwarnings("error:the GPUs are fake")
@pytest.mark.parametrize("hint", ["accelerator", "auto"])
def test_actors_that_wait_for_gpus_are_asked_once_they_have_them(start, monkeypatch, hint) -> None:
    holders = start(2, num_gpus=2)
    wait = probing.await_process

    def wait_for_what_comes_free(*args):
        for holder in holders:
            runtime.kill(holder)
        return wait(*args)

    monkeypatch.setattr(probing, "await_process", wait_for_what_comes_free)
    first, second = (runtime.remote(Stage).options(num_gpus=1).remote() for _ in range(2))
    with InputNode() as inp:
        output = second.show.bind(first.make.bind(inp).with_tensor_transport(hint))
    with output.experimental_compile() as graph:
        assert edges(graph)["Stage.make", "Stage.show"].transport == "cuda_ipc"
        assert get(graph.execute(3)) == ("gpu", [0, 1, 2])


@pytest.mark.parametrize(("settings", "level"), [("", Level.OK), ("no_events", Level.WARNING)])
def test_the_doctor_has_two_actors_try(no_leaks, monkeypatch, settings, level) -> None:
    monkeypatch.setenv("COMPILED_DAG_CUDA", "tests.cuda.fake:open_device")
    monkeypatch.setenv(SETTINGS, settings)
    monkeypatch.setattr(gpus, "count_devices", lambda: 1)
    (finding,) = sharing()
    assert finding.level is level
    assert "travel by cuda_ipc: " in finding.text
