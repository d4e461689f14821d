from __future__ import annotations

import enum
import pickle

import pytest

from collective import AllReduce, ReduceOp
from collective.ops import check_inputs, choose_backend, parse_reduce_op
from compiled_dag import GraphError
from tests.graphs import PaperActor


class Theirs(enum.Enum):
    """Another project's enumeration: the same names, other numbers."""

    SUM = 0
    MIN = 2
    MAX = 3
    BAND = 9


def test_the_operations_are_the_documented_ones() -> None:
    assert [op.name for op in ReduceOp] == ["SUM", "PRODUCT", "MAX", "MIN", "AVG"]


@pytest.mark.parametrize("op", ReduceOp)
def test_an_operation_is_itself(op) -> None:
    assert parse_reduce_op(op) is op


@pytest.mark.parametrize("name", ["SUM", "MIN", "MAX"])
def test_another_enumeration_counts_by_name(name) -> None:
    assert parse_reduce_op(Theirs[name]) is ReduceOp[name]


@pytest.mark.parametrize("op", ["SUM", 0, None, Theirs.BAND, Theirs, ReduceOp])
def test_anything_else_is_refused_with_the_valid_names(op) -> None:
    with pytest.raises(ValueError, match=r"is not a reduce op: use one of ReduceOp\.SUM, ReduceOp"):
        parse_reduce_op(op)


@pytest.mark.parametrize("inputs", [None, 3, "nodes", {}, iter([])])
def test_inputs_are_a_list_or_tuple(inputs) -> None:
    with pytest.raises(
        GraphError, match=f"allreduce.bind takes a list .* not {type(inputs).__name__}"
    ):
        check_inputs("allreduce", inputs)


@pytest.mark.parametrize(
    ("gpus", "backend"),
    [
        ([(), ()], "gloo"),
        ([("gpu0",), ()], "gloo"),
        ([("gpu0",), ("gpu0",)], "gloo"),
        ([("gpu0",), ("gpu1",)], "nccl"),
        ([("gpu0", "gpu1"), ("gpu1",)], "nccl"),
        ([("gpu0",)], "nccl"),
    ],
)
def test_the_backend_is_nccl_where_every_actor_has_a_gpu_of_its_own(gpus, backend) -> None:
    actors = [PaperActor(number, gpus=names) for number, names in enumerate(gpus)]
    assert choose_backend(actors) == backend
    assert AllReduce().backend(actors) == backend


def test_an_operation_is_data() -> None:
    op = AllReduce(op=ReduceOp.AVG)
    assert str(op) == "allreduce(AVG)"
    assert pickle.loads(pickle.dumps(op)) == op
    assert AllReduce() == AllReduce(op=ReduceOp.SUM)
