"""Whole graphs whose readers get views (`views=True`) of a GPU in host memory (`fake`)."""

from __future__ import annotations

import pytest

import runtime
from compiled_dag import InputNode, MultiOutputNode, TaskError
from tests.cuda.crew import Stage
from tests.cuda.fake import SETTINGS
from tests.cuda.graphs import after_a_death, edges, get
from tests.live import wait_until

pytestmark = [pytest.mark.proc, pytest.mark.filterwarnings("ignore:num_gpus=")]
KEPT = "keeps a view of what"
SIZES = (5, 3, 70_000, 4, 2, 300_000, 7, 2, 900, 6)


@pytest.fixture(autouse=True)
def nobody_is_blamed(request, capfd):
    """No actor may be told that it keeps what it does not."""
    yield
    if "kept" not in request.node.name:
        assert KEPT not in capfd.readouterr().err


def viewed(node, **options):
    return node.with_tensor_transport("accelerator", views=True, **options)


def numbers(n, add=0):
    return ("gpu", [number + add for number in range(n)])


@pytest.mark.parametrize("overlaps", [False, True])
def test_readers_see_what_was_written_while_many_executions_are_under_way(start, overlaps) -> None:
    first, second, third = start(3, settings="pause_us=1000")
    with InputNode() as inp:
        value = viewed(first.make.bind(inp))
        added = viewed(second.add.bind(value, 10))
        output = MultiOutputNode([third.show.bind(value), third.show.bind(added)])
    with output.experimental_compile(_overlap_gpu_communication=overlaps) as graph:
        edge = edges(graph)["Stage.make", "Stage.show"]
        assert edge.transport == "cuda_ipc"
        assert "share GPU-fake-0; views=True: readers get no copies" in edge.why.replace(
            "; Stage(1) and Stage(3)", ""
        )
        for _ in range(4):
            refs = [graph.execute(n) for n in SIZES]
            for n, found in zip(SIZES, map(get, refs), strict=True):
                assert found == [numbers(n), numbers(n, 10)]
    assert get([stage.memory.remote() for stage in (first, second, third)]) == [0, 0, 0]


def test_what_a_method_returns_of_a_view_arrives_here_and_there(start) -> None:
    first, second, third = start(3, settings="pause_us=1000")
    with InputNode() as inp:
        value = viewed(first.make.bind(inp))
        same = viewed(second.same.bind(second.same.bind(value)))
        parts = second.parts.bind(value)
        joined = second.join.bind(value, parts).with_tensor_transport("accelerator")
        viewed(parts)
        output = MultiOutputNode(
            [third.show.bind(same), third.show.bind(parts), third.show.bind(joined)]
        )
    with output.experimental_compile() as graph:
        refs = [graph.execute(n) for n in SIZES]
        for n, found in zip(SIZES, map(get, refs), strict=True):
            parts = {"all": numbers(n), "last": [("gpu", list(range(n))[-2:])]}
            assert found == [numbers(n), parts, [numbers(n, 1), numbers(n, 2), parts]]


@pytest.mark.parametrize("method", ["keep", "keep_last"])
def test_a_view_that_is_kept_stays_and_its_reader_gets_copies(start, method, capfd) -> None:
    first, second, third = start(3, settings="pause_us=1000,close_s=0.5")
    with InputNode() as inp:
        value = viewed(first.make.bind(inp))
        kept = getattr(second, method).bind(value).with_tensor_transport("accelerator")
        output = MultiOutputNode([third.show.bind(kept)])
    with output.experimental_compile() as graph:
        for n in (6, 4, 4, 900, 4, 4, 4, 4, 4):
            get(graph.execute(n))
        expected = get(second.show_kept.remote())
    added = 100 if method == "keep" else 0
    last = None if method == "keep" else -2
    assert expected == [
        ("gpu", [number + added for number in range(n)][last:])
        for n in (6, 4, 4, 900, 4, 4, 4, 4, 4)
    ]
    assert get(second.show_kept.remote()) == expected  # the graph has ended meanwhile
    wait_until(lambda: f"Stage(2) {KEPT} Stage.make" in capfd.readouterr().err)
    get(second.drop_kept.remote())
    with InputNode() as inp:
        again = MultiOutputNode([second.same.bind(inp), first.same.bind(inp)])
    with again.experimental_compile() as graph:  # what was left over is dropped by and by
        assert get(graph.execute(3)) == [3, 3]
    assert get([stage.memory.remote() for stage in (first, second, third)]) == [0, 0, 0]


def test_recorded_methods_get_views_too(start) -> None:
    first, second, third = start(3, settings="pause_us=1000")
    with InputNode() as inp:
        value = viewed(first.make.bind(inp))
        recorded = second.add.options(cuda_graph=True).bind(value, 10)
        output = MultiOutputNode([third.show.bind(viewed(recorded)), third.show.bind(value)])
    with output.experimental_compile() as graph:
        refs = [graph.execute(4) for _ in range(10)]
        for found in map(get, refs):
            assert found == [numbers(4, 10), numbers(4)]


def test_an_error_in_the_middle_is_of_its_execution_alone(start) -> None:
    first, second, third = start(3)
    with InputNode() as inp:
        value = viewed(first.make.bind(inp))
        output = MultiOutputNode([third.show.bind(value), third.show.bind(second.fail.bind(value))])
    with output.experimental_compile() as graph:
        for n in SIZES:
            with pytest.raises(KeyError, match="told to"):
                get(graph.execute(n))


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_death_leaves_the_others_usable(start, victim) -> None:
    left = after_a_death(start(3), victim, viewed)
    with InputNode() as inp:
        output = left[1].show.bind(viewed(left[0].make.bind(inp)))
    with output.experimental_compile() as again:
        assert get(again.execute(4)) == numbers(4)


@pytest.mark.parametrize(
    ("num_gpus", "settings", "why"),
    [
        (2, "", r"views=True: readers get copies, since Stage(1) is on another GPU than Stage(2)"),
        (1, "no_memory", "views=True: readers get copies, since the tensors are in no ring on"),
        (1, "no_memory,no_pinning", "views=True: readers get copies, since the tensors are in no"),
    ],
)
def test_where_there_is_nothing_to_view_readers_get_copies(start, num_gpus, settings, why) -> None:
    first, second = start(2, num_gpus=num_gpus, settings=settings)
    with InputNode() as inp:
        output = second.show.bind(viewed(first.make.bind(inp)))
    with output.experimental_compile() as graph:
        assert why in edges(graph)["Stage.make", "Stage.show"].why
        if "no_pinning" not in settings:
            assert get(graph.execute(5)) == numbers(5)


def test_views_of_a_promised_shape(start) -> None:
    first, second = start(2)
    with InputNode() as inp:
        value = viewed(first.make.bind(inp), _static_shape=True, _direct_return=True)
        output = second.show.bind(value)
    with output.experimental_compile() as graph:
        assert get(graph.execute(3)) == numbers(3)
        with pytest.raises(TaskError, match="_static_shape=True: expected 1 tensor"):
            get(graph.execute(4))
        assert get(graph.execute(3)) == numbers(3)


@pytest.mark.filterwarnings("ignore:the GPUs are fake")
def test_views_on_gpus_that_are_not_there_are_copies(no_leaks, monkeypatch) -> None:
    monkeypatch.setenv(SETTINGS, "")
    runtime.init(num_gpus=2)
    try:
        first, second = (runtime.remote(Stage).options(num_gpus=1).remote() for _ in range(2))
        with InputNode() as inp:
            output = second.same.bind(viewed(first.same.bind(inp)))
        with output.experimental_compile() as graph:
            assert "readers get copies" in edges(graph)["Stage.same", "Stage.same"].why
            assert get(graph.execute(5)) == 5
    finally:
        runtime.shutdown()
