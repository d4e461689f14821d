"""Promises about values, and where tensors land. CUDA is faked: there is none to be had here."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from compiled_dag import TaskError
from compiled_dag.channel import tensor as tensors
from compiled_dag.channel.lease import LEASE_BYTES
from compiled_dag.channel.transport import Transport
from compiled_dag.channel.writer import Writer
from compiled_dag.outcome import Error

NODE = "Worker.f (node 1, bound at x.py:3)"

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this process sees a GPU")


@pytest.fixture
def hinted(wire):
    def make(**options):
        return wire(transport=Transport(node=NODE, writer="Worker(1)", **options))

    return make


@pytest.fixture
def from_gpu(monkeypatch):
    """Have tensors say that they come from a GPU."""

    def to_bytes(tensor):
        (dtype, shape, _), data = real(tensor)
        return (dtype, shape, "cuda"), data

    real = tensors.to_bytes
    monkeypatch.setattr(tensors, "to_bytes", to_bytes)
    monkeypatch.setattr(tensors, "in_place", lambda _tensor: None)


def raises(found, kind, *parts) -> None:
    assert isinstance(found, Error), found
    error = found.exception()
    assert isinstance(error, TaskError)
    assert isinstance(error, kind)
    for part in parts:
        assert re.search(part, str(error)), f"{part!r} is not in {error}"


LAYOUTS = {
    "sparse_coo": lambda: torch.eye(2).to_sparse(),
    "sparse_csr": lambda: torch.eye(2).to_sparse_csr(),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "meta": lambda: torch.empty(2, device="meta"),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
}


# --- promises -------------------------------------------------------------------------------------


def test_a_channel_without_promises_has_the_plain_writer(wire, hinted) -> None:
    assert type(wire().writer) is Writer
    assert type(hinted(device="cpu").writer) is Writer


def test_shapes_that_stay_the_same_pass(hinted) -> None:
    one = hinted(static_shape=True)
    for number in range(3):
        value = {"a": [torch.full((2, 3), number)], "b": number, "c": torch.zeros(1)}
        arrived = one.send(value)
        assert arrived["b"] == number
        assert torch.equal(arrived["a"][0], value["a"][0])


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (torch.zeros(3), r"1 tensor \(float32 \(3,\)\)"),
        (torch.zeros(2, dtype=torch.int64), r"1 tensor \(int64 \(2,\)\)"),
        ([torch.zeros(2), torch.zeros(2)], r"2 tensors \(float32 \(2,\), float32 \(2,\)\)"),
        (7, "no tensor"),
    ],
)
def test_another_shape_or_dtype_is_an_error_of_its_execution_alone(hinted, value, found) -> None:
    one = hinted(static_shape=True)
    assert one.send(torch.ones(2)).tolist() == [1, 1]
    raises(
        one.send(value),
        ValueError,
        re.escape(NODE),
        r"expected 1 tensor \(float32 \(2,\)\)",
        f"found {found}",
        "in execution 1",
    )
    assert one.send(torch.zeros(2)).tolist() == [0, 0]


def test_an_error_neither_sets_nor_breaks_the_shape(hinted) -> None:
    one = hinted(static_shape=True, direct_return=True)
    raised = Error.capture(KeyError("k"))
    assert one.send(raised) == raised
    assert one.send(torch.ones(2)).tolist() == [1, 1]
    assert one.send(raised) == raised
    assert one.send(torch.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize("value", [torch.ones(2), torch.nn.Parameter(torch.ones(2))])
def test_a_tensor_is_a_direct_return(hinted, value) -> None:
    assert torch.equal(hinted(direct_return=True).send(value), value)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ((torch.ones(1),), r"made a builtins\.tuple of 1\."),
        ({"a": 1}, r"builtins\.dict of 1\."),
        (np.ones(2), r"numpy\.ndarray\."),
        (3, r"builtins\.int\."),
        (None, r"builtins\.NoneType\."),
    ],
)
def test_anything_else_is_no_direct_return(hinted, value, what) -> None:
    one = hinted(direct_return=True)
    raises(one.send(value), ValueError, re.escape(NODE), "promises one torch.Tensor", what)
    assert one.send(torch.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: [1, {"k": t}]], ids=["itself", "nested"])
@pytest.mark.filterwarnings("ignore")  # torch's, of sparse layouts and of its storages
def test_only_dense_tensors_travel_between_accelerators(hinted, name, wrap) -> None:
    one = hinted(mechanism="fake")
    words = {
        "sparse_coo": r"a tensor of layout torch\.sparse_coo",
        "sparse_csr": r"a tensor of layout torch\.sparse_csr",
        "quantised": r"a quantised tensor \(torch\.qint8\)",
        "meta": r"a tensor on the device 'meta'",
        "nested": "a nested tensor",
    }
    raises(one.send(wrap(LAYOUTS[name]())), TypeError, re.escape(NODE), words[name], "'shm'")
    assert one.send(torch.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize("name", ["sparse_coo", "quantised", "meta", "nested"])
@pytest.mark.filterwarnings("ignore")  # torch's, of its storages
def test_other_layouts_travel_by_host_memory(hinted, name) -> None:
    sent = LAYOUTS[name]()
    arrived = hinted(static_shape=True).send([sent])[0]
    for what in ("layout", "device", "is_nested"):
        assert getattr(arrived, what) == getattr(sent, what)
    assert tensors.look(arrived) == tensors.look(sent)


def test_what_cannot_be_pickled_is_told_as_without_a_hint(hinted) -> None:
    one = hinted(static_shape=True)
    with pytest.raises(TypeError, match=r"cannot send value\[1\]"):
        one.writer.write([torch.ones(2), (i for i in "ab")])
    assert one.send(torch.ones(2)).tolist() == [1, 1]


def test_a_value_of_main_is_looked_at_once(hinted, monkeypatch) -> None:
    """Such values are pickled twice, the second time by value."""
    main = type("Main", (), {"__module__": "__main__"})
    one = hinted(static_shape=True)
    for _ in range(2):
        value = main()
        value.part = torch.ones(2)
        arrived = one.send([value, torch.zeros(3)])
        assert not isinstance(arrived, Error)
        assert arrived[0].part.tolist() == [1, 1]


# --- where tensors land ---------------------------------------------------------------------------

SIZES = [4, LEASE_BYTES]


@no_cuda
@pytest.mark.parametrize("size", SIZES)
def test_a_tensor_from_a_gpu_needs_one_at_the_reader(wire, from_gpu, size) -> None:
    one = wire(transport=Transport(node=NODE, writer="Worker(1)"))
    raises(
        one.send([torch.ones(size)]),
        RuntimeError,
        rf"{re.escape(NODE)} made a tensor on 'cuda' on Worker\(1\)",
        r"Reader\(2\), which reads it, sees no GPU",
        r"with_tensor_transport\(device='cpu'\)",
    )
    assert one.send(5) == 5


@pytest.mark.parametrize("size", SIZES)
def test_a_tensor_from_a_gpu_may_land_in_host_memory(hinted, from_gpu, size) -> None:
    parameter = torch.nn.Parameter(torch.full((size,), 2.0))
    arrived = hinted(device="cpu").send([torch.ones(size), {"k": parameter}, "x"])
    assert arrived[0].device.type == "cpu"
    assert arrived[0].sum() == size
    assert isinstance(arrived[1]["k"], torch.nn.Parameter)
    assert torch.equal(arrived[1]["k"], parameter)
    assert hinted(device="cpu").send(torch.ones(size)).sum() == size


@no_cuda
@pytest.mark.parametrize("value", [torch.ones(2), [{"k": torch.ones(2)}]], ids=["one", "nested"])
def test_a_hint_for_the_gpu_of_a_reader_without_one_is_its_error(hinted, value) -> None:
    one = hinted(device="cuda")
    raises(
        one.send(value),
        RuntimeError,
        re.escape(NODE),
        r"device='cuda', and Reader\(2\), which reads it, sees no GPU",
    )
    assert one.send({"no": "tensor"}) == {"no": "tensor"}


@no_cuda
def test_a_reader_whose_gpu_is_fake_is_told_that_and_not_to_ask_for_one(hinted) -> None:
    one = hinted(device="cuda", fakes=("Worker(1)", "Reader(2)"))
    error = one.send(torch.ones(2))
    raises(error, RuntimeError, r"the GPU of Reader\(2\), which reads it, is fake", "Leave device")
    assert "num_gpus" not in str(error.exception())


def test_tensors_of_any_origin_land_on_the_first_gpu(hinted, from_gpu, monkeypatch) -> None:
    moved = []

    def to(tensor, device):
        moved.append((tensor.numel(), device))
        return tensor

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "to", to)
    hinted(device="cuda").send([torch.ones(2), {"k": torch.ones(3)}])
    hinted().send(torch.ones(4))
    hinted(device="cpu").send(torch.ones(5))
    assert moved == [(2, "cuda:0"), (3, "cuda:0"), (4, "cuda:0")]


# --- what tensors there are -----------------------------------------------------------------------


def dtypes():
    for name in sorted(vars(torch)):
        dtype = getattr(torch, name)
        if isinstance(dtype, torch.dtype) and not name.startswith("q"):
            try:
                torch.empty(2, dtype=dtype).contiguous().view(torch.uint8)
            except (RuntimeError, TypeError, NotImplementedError):
                continue
            yield dtype


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("options", [{}, {"mechanism": "fake", "static_shape": True}])
def test_every_dtype_arrives_with_its_bits(hinted, options) -> None:
    for dtype in dtypes():
        one = hinted(**options)
        data = torch.arange(4 * torch.empty(0, dtype=dtype).element_size(), dtype=torch.uint8)
        if dtype is torch.bool:
            data = data % 2
        sent = data.view(dtype).reshape(2, 2)
        arrived = one.send(sent)
        assert arrived.dtype == dtype
        assert torch.equal(arrived.view(torch.uint8), sent.view(torch.uint8)), dtype


@pytest.mark.parametrize("options", [{}, {"mechanism": "fake", "device": "cpu"}])
def test_shapes_strides_and_gradients(hinted, options) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    values = {
        "0-dim": torch.tensor(5.0),
        "empty": torch.empty(0, 3),
        "transposed": base.t(),
        "every second": base[:, ::2],
        "expanded": base[:1].expand(5, 4),
        "a leaf": torch.ones(2, requires_grad=True),
        "no leaf": torch.ones(2, requires_grad=True) * 2,
        "conjugate": torch.tensor([1 + 2j]).conj(),
    }
    arrived = hinted(**options).send(values)
    for name, sent in values.items():
        assert arrived[name].shape == sent.shape, name
        assert torch.equal(arrived[name], sent.detach()), name
        assert not arrived[name].requires_grad, name
