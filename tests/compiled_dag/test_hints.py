from __future__ import annotations

import copy
import enum
import pickle

import pytest

from collective import allreduce
from compiled_dag import (
    AutoTransportType,
    GraphError,
    InputNode,
    MultiOutputNode,
    TorchTensorType,
)
from compiled_dag.capture import capture
from compiled_dag.ir import Hint, Input, Output
from tests.communicators import PaperCommunicator
from tests.graphs import paper


class Device(enum.Enum):
    """Another project's enumeration."""

    GPU = "gpu"


def hints_of(output):
    nodes = capture(output).graph.nodes
    return {str(node.op): node.hint for node in nodes if not isinstance(node.op, Output)}


def test_every_node_with_a_value_takes_a_hint_and_is_returned() -> None:
    first, second = paper(2)
    with InputNode() as inp:
        nodes = [
            inp,
            inp[0],
            first.add.bind(inp[0]),
            first.divide.options(num_returns=2).bind(inp[0])[1],
            *allreduce.bind([first.grad.bind(inp[0]), second.grad.bind(inp[0])]),
        ]
    for node in nodes:
        assert node.type_hint is None
        assert node.with_tensor_transport("shm", _static_shape=True) is node
        assert node.type_hint == TorchTensorType("shm", _static_shape=True)


def test_an_output_has_no_value_of_its_own_to_hint() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        output = MultiOutputNode([worker.add.bind(inp)])
    with pytest.raises(GraphError, match=r"with_tensor_transport\(\): a MultiOutputNode has no"):
        output.with_tensor_transport()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ((), Hint()),
        (("auto", "gpu"), Hint(device="cuda")),
        (("auto", Device.GPU), Hint(device="cuda")),
        (("accelerator", "cuda"), Hint(transport="accelerator", device="cuda")),
        (("nccl",), Hint(transport="accelerator")),
        (("shm", "cpu", True, True),
         Hint(transport="shm", device="cpu", static_shape=True, direct_return=True)),
        ((TorchTensorType("cpu", _static_shape=True),), Hint(transport="shm", static_shape=True)),
        ((AutoTransportType(_direct_return=True),), Hint(direct_return=True)),
        (("nccl", "cuda", False, False, True),
         Hint(transport="accelerator", device="cuda", views=True)),
        ((AutoTransportType(views=True),), Hint(views=True)),
    ],
)  # fmt: skip
def test_hints_become_data(arguments, hint) -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        output = worker.add.bind(inp).with_tensor_transport(*arguments)
    assert hints_of(output) == {"input": None, "add(v0)": hint}


def test_what_is_said_of_the_input_holds_for_its_fields_unless_they_say_otherwise() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        output = worker.join.bind(inp[0], inp.other.with_tensor_transport("shm"))
    inp.with_tensor_transport(device="cpu")
    hints = hints_of(output)
    assert hints[str(Input(key=0))] == Hint(device="cpu")
    assert hints[str(Input(key="other"))] == Hint(transport="shm")


@pytest.mark.parametrize("transport", ["gloo", "AUTO", "", None, 3, []])
def test_an_unknown_transport_is_refused_with_the_valid_ones(transport) -> None:
    with pytest.raises(ValueError, match=r"use 'auto', 'accelerator', 'nccl', 'shm', or an inst"):
        TorchTensorType(transport)


@pytest.mark.parametrize("device", ["cuda:0", "GPU", None, 0])
def test_an_unknown_device_is_refused_with_the_valid_ones(device) -> None:
    with pytest.raises(ValueError, match="use one of 'default', 'cpu', 'gpu', 'cuda'"):
        AutoTransportType(device=device)


@pytest.mark.parametrize("transport", ["accelerator", "nccl", PaperCommunicator([])])
def test_an_accelerator_does_not_deliver_to_host_memory(transport) -> None:
    (worker,) = paper(1)
    with pytest.raises(ValueError, match="with device='cpu': an accelerator delivers to"):
        worker.echo.bind(1).with_tensor_transport(transport, "cpu")


@pytest.mark.parametrize(
    ("transport", "device"),
    [("shm", "default"), ("cpu", "cuda"), ("auto", "cpu"), (PaperCommunicator([]), "default")],
)
def test_views_of_what_is_never_on_a_gpu_are_refused(transport, device) -> None:
    (worker,) = paper(1)
    with pytest.raises(ValueError, match=r"views=True with .*only where tensors stay on a GPU"):
        worker.echo.bind(1).with_tensor_transport(transport, device, views=True)


@pytest.mark.parametrize("views", [1, "yes", None])
def test_views_is_true_or_false(views) -> None:
    with pytest.raises(ValueError, match="views=.* is neither True nor False"):
        TorchTensorType("accelerator", views=views)


def test_a_type_holds_the_device_and_the_promises_already() -> None:
    (worker,) = paper(1)
    with pytest.raises(ValueError, match="the TorchTensorType holds device and promises"):
        worker.echo.bind(1).with_tensor_transport(TorchTensorType(), "cuda")
    with pytest.raises(ValueError, match="the TorchTensorType holds device and promises"):
        worker.echo.bind(1).with_tensor_transport(TorchTensorType(), views=True)


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda hint: pickle.loads(pickle.dumps(hint))],
    ids=["copy", "deepcopy", "pickle"],
)
@pytest.mark.parametrize(
    "hint",
    [
        TorchTensorType("nccl", "gpu", _static_shape=True),
        AutoTransportType("cpu", _direct_return=True),
        AutoTransportType(views=True),
    ],
)
def test_copies_keep_all_fields(copied, hint) -> None:
    other = copied(hint)
    assert other == hint
    assert repr(other) == repr(hint)
    assert (other.device, other.static_shape, other.direct_return) == (
        hint.device,
        hint.static_shape,
        hint.direct_return,
    )


def test_copies_share_the_communicator() -> None:
    communicator = PaperCommunicator([])
    hint = copy.deepcopy(TorchTensorType(communicator))
    assert hint.get_custom_communicator() is communicator
    assert hint.requires_accelerator()
    assert TorchTensorType("auto").get_custom_communicator() is None
