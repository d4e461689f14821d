"""Graphs with tensor transport hints, from bind to get. Actors are threads; nobody has a GPU."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from compiled_dag import InputNode, MultiOutputNode, TaskError


class Maker:
    """Makes what it is told, and shows what it gets."""

    def make(self, what: Any) -> Any:
        if isinstance(what, Exception):
            raise what
        return what

    def show(self, value: Any) -> Any:
        return value if isinstance(value, int) else tuple(value.shape)

    def device(self, values: Any) -> list[str]:
        return [str(value.device) for value in values]


@pytest.fixture
def makers(host):
    made = [host.actor(Maker()) for _ in range(2)]
    for actor in made:
        actor.num_gpus = 1.0
    return made


@pytest.fixture
def compiled():
    """Compiles graphs of one hinted edge; ends them before the actors go."""
    graphs = []

    def make(makers, *hint, method="show", **options):
        writer, reader = makers
        with InputNode() as inp:
            value = writer.make.bind(inp).with_tensor_transport(*hint)
            output = getattr(reader, method).bind(value)
        graphs.append(output.experimental_compile(**options))
        return graphs[-1]

    yield make
    while graphs:
        graphs.pop().teardown()


def error_of(ref) -> TaskError:
    with pytest.raises(TaskError) as raised:
        ref.get()
    return raised.value


HERE = r"Maker\.make \(node 1, bound at test_hinted_graphs\.py:\d+\)"


def test_an_accelerator_edge_of_fake_gpus_works_and_one_warning_says_how(makers, compiled) -> None:
    with pytest.warns(RuntimeWarning, match=f"the GPUs are fake, .*host memory: {HERE}$") as seen:
        graph = compiled(makers, "accelerator")
    assert len(seen) == 1
    assert seen[0].filename == __file__
    assert graph.execute(torch.ones(2, 3)).get() == (2, 3)
    assert error_of(graph.execute(torch.eye(2).to_sparse())).cause.args[0].startswith("Maker.make")


def test_auto_with_fake_gpus_warns_of_nothing(makers, compiled) -> None:
    assert compiled(makers).execute(torch.ones(4)).get() == (4,)


@pytest.mark.parametrize("hint", ["shm", "nccl"])
@pytest.mark.filterwarnings("ignore:the GPUs are fake")
def test_broken_promises_and_exceptions_are_errors_of_their_execution(
    makers, compiled, hint
) -> None:
    graph = compiled(makers, hint, "default", True, True)
    assert graph.execute(torch.ones(2)).get() == (2,)
    refs = [graph.execute(what) for what in (torch.ones(3), [torch.ones(2)], KeyError("k"))]
    static, direct, raised = map(error_of, refs)
    assert isinstance(static, ValueError)
    assert re.search(rf"{HERE} was hinted _static_shape=True: expected 1 tensor", str(static))
    assert static.actor == makers[0].label
    assert static.execution == 1
    assert isinstance(direct, ValueError)
    assert re.search(r"made a builtins\.list of 1", str(direct))
    assert isinstance(raised, KeyError)
    assert graph.execute(torch.zeros(2)).get() == (2,)


def test_promises_about_an_input_are_kept_by_the_driver(host) -> None:
    (maker,) = [host.actor(Maker())]
    with InputNode() as inp:
        output = maker.show.bind(inp.with_tensor_transport("shm", _direct_return=True))
    with output.experimental_compile() as graph:
        assert graph.execute(torch.ones(2)).get() == (2,)
        error = error_of(graph.execute(5))
        assert isinstance(error, ValueError)
        assert re.search(r"input \(node 0, bound at .*made a builtins\.int", str(error))
        assert error.execution == 1
        assert graph.execute(torch.ones(3)).get() == (3,)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this process sees a GPU")
@pytest.mark.parametrize(
    ("num_gpus", "who"), [(1.0, r"the GPU of Maker\(2\)"), (0.0, r"Maker\(2\)")]
)
def test_a_reader_without_a_gpu_cannot_take_what_is_hinted_for_one(
    makers, compiled, num_gpus, who
) -> None:
    makers[1].num_gpus = num_gpus
    graph = compiled(makers, "auto", "cuda")
    error = error_of(graph.execute([torch.ones(2)]))
    assert isinstance(error, RuntimeError)
    assert re.search(rf"{HERE} is hinted device='cuda', and {who}, which reads it", str(error))
    assert graph.execute(5).get() == 5


@pytest.mark.skipif(torch.cuda.is_available(), reason="this process sees a GPU")
def test_nor_can_the_driver(makers) -> None:
    with InputNode() as inp:
        output = makers[0].make.bind(inp).with_tensor_transport(device="gpu")
    with output.experimental_compile() as graph:
        error = error_of(graph.execute(torch.ones(2)))
        assert isinstance(error, RuntimeError)
        assert "and the driver, which reads it, sees no GPU" in str(error)
        assert graph.execute("no tensor").get() == "no tensor"


def test_tensors_at_any_depth_land_in_host_memory(makers, compiled) -> None:
    graph = compiled(makers, "shm", "cpu", method="device")
    assert graph.execute([torch.ones(2), torch.nn.Parameter(torch.ones(1))]).get() == ["cpu"] * 2


def test_an_interpreted_graph_does_without_hints(makers) -> None:
    writer, reader = makers
    with InputNode() as inp:
        value = writer.make.bind(inp).with_tensor_transport("accelerator", _direct_return=True)
        output = reader.show.bind(value)
    assert output.execute(7).result() == 7


def test_no_default_communicator_is_fine_where_none_is_needed(makers, compiled) -> None:
    graph = compiled(makers, "shm", _default_communicator=None)
    assert graph.execute(3).get() == 3
    assert graph.options.default_communicator is None


def test_several_outputs_of_one_hinted_node_keep_one_promise(makers) -> None:
    writer, reader = makers
    with InputNode() as inp:
        value = writer.make.bind(inp).with_tensor_transport(_static_shape=True)
        output = MultiOutputNode([value, value, reader.show.bind(value)])
    with output.experimental_compile() as graph:
        *_, shown = graph.execute(torch.ones(2))
        assert shown.get() == (2,)
        for ref in graph.execute(torch.ones(3)):
            assert isinstance(error_of(ref), ValueError)
