"""What backends refuse. See `test_allreduce` for what gloo does."""

from __future__ import annotations

import pytest
import torch

from collective.nccl_group import NcclGroup
from collective.torch_group import GlooGroup, make_group
from compiled_dag.shm.waiter import Site

BOTH = [GlooGroup, NcclGroup]
NOBODY = ["int16", "uint16", "uint32", "uint64", "float8_e4m3fn"]


def why_not(backend, dtype: str, op: str = "SUM") -> str | None:
    """Ask a backend without a group."""
    return backend.why_not(backend.__new__(backend), torch.zeros(2).to(getattr(torch, dtype)), op)


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("op", ["SUM", "AVG", "PRODUCT", "MAX", "MIN"])
def test_floats_are_reduced_by_every_operation(backend, dtype, op) -> None:
    assert why_not(backend, dtype, op) is None


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("dtype", NOBODY)
def test_dtypes_no_backend_reduces_are_refused_by_name(backend, dtype) -> None:
    assert f"cannot reduce torch.{dtype}" in why_not(backend, dtype)


def test_complex_numbers_are_for_gloo_alone() -> None:
    assert why_not(GlooGroup, "complex64", "SUM") is None
    assert "NCCL cannot reduce torch.complex64" in why_not(NcclGroup, "complex64", "SUM")


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "bool"])
def test_integers_have_no_average(backend, dtype) -> None:
    assert why_not(backend, dtype, "SUM") is None
    assert f"AVG of torch.{dtype} is not defined" in why_not(backend, dtype, "AVG")


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="no backend 'mpi': use 'gloo', 'nccl', 'shm' or 'cuda_ipc'"
    ):
        make_group("mpi", None, 0, None, Site())
