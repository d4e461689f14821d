from __future__ import annotations

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from compiled_dag.channel.codec import Kind, decode, encode
from compiled_dag.channel.tensor import from_buffer

COMMON = ["float32", "float64", "float16", "bfloat16", "complex64", "complex128", "bool"]
INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
FLOAT8 = ["float8_e4m3fn", "float8_e5m2"]
DTYPES = [getattr(torch, name) for name in [*COMMON, *INTEGERS, *FLOAT8]]


def through(value):
    """Encode, carry over, decode."""
    encoded = encode(value)
    buffers = [
        bytearray(memoryview(buffer).cast("B")) if number in encoded.private else bytes(buffer)
        for number, buffer in enumerate(encoded.buffers)
    ]
    return decode(int(encoded.kind), encoded.head, buffers)


def some(dtype, shape=(2, 3)):
    """Return a tensor whose bytes are all different."""
    num_bytes = torch.empty(shape, dtype=dtype).nbytes
    data = torch.arange(num_bytes).to(torch.uint8)
    data = data % 2 if dtype is torch.bool else data
    return data.view(dtype).reshape(shape)


def assert_same(arrived, value) -> None:
    assert type(arrived) is type(value)
    assert (arrived.dtype, arrived.shape) == (value.dtype, value.shape)
    resolved = value.detach().resolve_conj().resolve_neg().contiguous()
    as_bytes = [t.reshape(-1).view(torch.uint8) for t in (arrived.detach(), resolved)]
    assert torch.equal(*as_bytes)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3), (), (0,), (2, 0, 3), (1,)], ids=str)
def test_a_tensor_of_any_dtype_and_shape_arrives(dtype, shape) -> None:
    assert_same(through(some(dtype, shape)), some(dtype, shape))


VIEWS = {
    "transposed": lambda t: t.T,
    "strided": lambda t: t[:, ::2],
    "column": lambda t: t[:, 1],
    "offset": lambda t: t[1:],
    "expanded": lambda t: t[0].expand(5, 6),
    "flipped": lambda t: t.flip(0),
    "diagonal": lambda t: t.diagonal(),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_tensor_of_any_strides_arrives(view) -> None:
    value = view(torch.arange(24.0).reshape(4, 6))
    assert_same(through(value), value)


def test_a_conjugated_and_a_negated_view_arrive_as_what_they_show() -> None:
    value = torch.tensor([1 + 2j, 3 - 4j])
    assert torch.equal(through(value.conj()), value.conj())
    assert torch.equal(through(value.conj().imag), value.conj().imag)


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: [t, {"k": t.T}]], ids=["itself", "nested"])
def test_a_received_tensor_can_be_changed(wrap) -> None:
    arrived = through(wrap(torch.zeros(2, 3)))
    tensors = [arrived] if isinstance(arrived, torch.Tensor) else [arrived[0], arrived[1]["k"]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns about memory that is read-only
        for tensor in tensors:
            tensor.add_(1)
    assert all(tensor.sum() == 6 for tensor in tensors)


def test_sending_leaves_the_tensor_alone() -> None:
    value = torch.zeros(3)
    arrived = through(value)
    arrived += 1
    assert value.sum() == 0


def test_a_tensor_that_was_sent_can_be_resized() -> None:
    value = torch.zeros(3)
    through(value)
    value.resize_(5)
    assert value.shape == (5,)


def test_gradients_stay_behind() -> None:
    value = torch.ones(3, requires_grad=True) * 2
    arrived = through(value)
    assert not arrived.requires_grad
    assert_same(arrived, value.detach())


def test_a_tensor_takes_the_short_cut_and_nested_ones_travel_beside_the_pickle() -> None:
    assert encode(torch.zeros(3)).kind == Kind.TENSOR
    encoded = encode([torch.zeros(1000), b"x" * 10, torch.zeros(1000)])
    assert encoded.kind == Kind.PICKLE
    assert encoded.private == (0, 1)
    assert len(encoded.head) < 500


def test_only_tensors_among_the_buffers_are_private() -> None:
    encoded = encode([np.zeros(100), torch.zeros(100), np.zeros(100)])
    assert encoded.private == (1,)


@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_parameter_stays_a_parameter(requires_grad) -> None:
    value = torch.nn.Parameter(torch.arange(3.0), requires_grad=requires_grad)
    arrived = through(value)
    assert_same(arrived, value)
    assert arrived.requires_grad == requires_grad


def test_a_module_arrives_with_its_parameters_and_buffers_and_trains() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    arrived = through(module)
    assert arrived.state_dict().keys() == module.state_dict().keys()
    for name, value in module.state_dict().items():
        assert torch.equal(arrived.state_dict()[name], value)
    assert [p.requires_grad for p in arrived.parameters()] == [True] * 4
    arrived(torch.ones(4, 3)).sum().backward()
    assert all(parameter.grad is not None for parameter in arrived.parameters())


def test_a_parameter_used_twice_is_one_parameter() -> None:
    module = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    module[1].weight = module[0].weight
    arrived = through(module)
    assert arrived[0].weight is arrived[1].weight


def test_what_a_header_cannot_describe_is_pickled_by_torch() -> None:
    sparse = torch.eye(3).to_sparse()
    assert torch.equal(through(sparse).to_dense(), torch.eye(3))
    assert through(torch.empty(2, 2, device="meta")).device.type == "meta"


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch warns about both
def test_nested_and_quantised_tensors_are_pickled_by_torch() -> None:
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    assert [len(part) for part in through(nested).unbind()] == [2, 3]
    quantized = torch.quantize_per_tensor(torch.ones(2), 0.5, 1, torch.quint8)
    assert torch.equal(through(quantized).dequantize(), torch.ones(2))


def test_a_subclass_stays_what_it_is() -> None:
    assert type(through(Named(torch.ones(2)))) is Named


class Named(torch.Tensor):
    """A tensor class of a user's."""


NO_TORCH = """
import sys
sys.modules["torch"] = None
from compiled_dag.channel.codec import decode
try:
    decode(2, bytes.fromhex("{head}"), [bytearray(12)])
except ImportError as error:
    print(error)
"""


@pytest.mark.proc
def test_a_tensor_that_arrives_where_torch_is_not_says_so() -> None:
    script = NO_TORCH.format(head=encode(torch.zeros(3)).head.hex())
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout == (
        "a torch.Tensor arrived and torch is not installed here: pip install torch\n"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this process sees a GPU")
def test_a_gpu_tensor_that_arrives_where_no_gpu_is_seen_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"sees no GPU\. Give the reader num_gpus"):
        from_buffer(("float32", (3,), "cuda"), bytearray(12))
