from __future__ import annotations

import enum
import pickle

import pytest

from collective import Operation, ReduceOp
from collective.choice import choose_backend
from collective.kinds import ALLREDUCE
from collective.ops import parse_inputs, parse_reduce_op, parse_transport
from compiled_dag import GraphError
from tests.communicators import PaperCommunicator
from tests.graphs import PaperActor, PaperHost


def allreduce_of(**options) -> Operation:
    return Operation(kind=ALLREDUCE, **{"op": ReduceOp.SUM, **options})


class Theirs(enum.Enum):
    """Another project's enumeration: the same names, other numbers."""

    SUM = 0
    MIN = 2
    MAX = 3
    XNOR = 9


def test_the_operations_are_the_documented_ones() -> None:
    assert [op.name for op in ReduceOp] == [
        *("SUM", "PRODUCT", "MAX", "MIN", "AVG"),
        *("BAND", "BOR", "BXOR"),
    ]


@pytest.mark.parametrize("op", ReduceOp)
def test_an_operation_is_itself(op) -> None:
    assert parse_reduce_op(op) is op


@pytest.mark.parametrize("name", ["SUM", "MIN", "MAX"])
def test_another_enumeration_counts_by_name(name) -> None:
    assert parse_reduce_op(Theirs[name]) is ReduceOp[name]


@pytest.mark.parametrize("op", ["SUM", 0, None, Theirs.XNOR, Theirs, ReduceOp])
def test_anything_else_is_refused_with_the_valid_names(op) -> None:
    with pytest.raises(ValueError, match=r"is not a reduce op: use one of ReduceOp\.SUM, ReduceOp"):
        parse_reduce_op(op)


@pytest.mark.parametrize("inputs", [None, 3, "nodes", {}, iter([])])
def test_inputs_are_a_list_or_tuple(inputs) -> None:
    with pytest.raises(
        GraphError, match=f"allreduce.bind takes a list .* not {type(inputs).__name__}"
    ):
        parse_inputs("allreduce", inputs)


@pytest.mark.parametrize(
    ("gpus", "backend"),
    [
        ([(), ()], "gloo"),
        ([("gpu0",), ()], "gloo"),
        ([("gpu0",), ("gpu0",)], "cuda_ipc"),
        ([("gpu0",), ("gpu0",), ("gpu1",)], "gloo"),
        ([("gpu0",), ("gpu0",), ()], "gloo"),
        ([("gpu0",), ("gpu1",)], "nccl"),
        ([("gpu0", "gpu1"), ("gpu1",)], "nccl"),
        ([("gpu0",)], "nccl"),
    ],
)
def test_the_backend_is_nccl_where_every_actor_has_a_gpu_of_its_own(gpus, backend) -> None:
    actors = [PaperActor(number, gpus=names) for number, names in enumerate(gpus)]
    assert choose_backend(actors) == backend
    assert allreduce_of(op=ReduceOp.SUM).backend(actors) == backend


def test_an_operation_is_data() -> None:
    op = allreduce_of(op=ReduceOp.AVG)
    assert str(op) == "allreduce(AVG)"
    assert pickle.loads(pickle.dumps(op)) == op
    assert allreduce_of(op=ReduceOp.SUM) == allreduce_of(op=ReduceOp.SUM)


@pytest.mark.parametrize(
    ("transport", "found"),
    [
        (None, (None, None)),
        ("auto", (None, None)),
        ("accelerator", (None, None)),
        ("gloo", ("gloo", None)),
        ("nccl", ("nccl", None)),
        ("cuda_ipc", ("cuda_ipc", None)),
    ],
)
def test_a_transport_is_a_backend_or_our_choice(transport, found) -> None:
    assert parse_transport(transport) == found


def test_a_transport_may_be_a_communicator() -> None:
    communicator = PaperCommunicator([])
    assert parse_transport(communicator) == (None, communicator)


@pytest.mark.parametrize("transport", ["mpi", 1, b"gloo", ReduceOp.SUM])
def test_another_transport_is_refused_with_the_valid_ones(transport) -> None:
    with pytest.raises(
        ValueError,
        match="use None, 'auto', 'accelerator', 'gloo', 'nccl', 'shm', 'cuda_ipc', or an",
    ):
        parse_transport(transport)


def test_a_backend_that_was_asked_for_is_used() -> None:
    assert allreduce_of(transport="gloo").backend([PaperActor(1, gpus=["gpu0"])]) == "gloo"


@pytest.mark.parametrize(
    ("actors", "why"),
    [
        ([PaperActor(1, gpus=["gpu0"]), PaperActor(2)], r"cannot: Worker\(2\) has no GPU"),
        (
            [PaperActor(1, gpus=["gpu0"]), PaperActor(2, gpus=["gpu0"])],
            r"Worker\(1\) and Worker\(2\) share GPU gpu0",
        ),
    ],
)
def test_nccl_is_refused_where_it_cannot_run(actors, why) -> None:
    with pytest.raises(GraphError, match=rf"allreduce\(SUM\) of Worker\(1\), .*{why}.*'auto'$"):
        allreduce_of(transport="nccl").backend(actors)


def test_nccl_is_refused_on_fake_gpus() -> None:
    fake = PaperActor(1)
    fake.num_gpus = 1.0
    with pytest.raises(GraphError, match=r"the GPU of Worker\(1\) is fake"):
        allreduce_of(transport="nccl").backend([fake])


def test_nccl_is_not_refused_before_it_is_known_which_gpus_there_will_be(monkeypatch) -> None:
    monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: True)
    host = PaperHost()
    host.has_gpus = True
    waiting = PaperActor(1, host=host)
    waiting.num_gpus = 1.0
    assert allreduce_of(transport="nccl").backend([waiting, PaperActor(2, gpus=["0"])]) == "nccl"


@pytest.mark.parametrize(
    ("gpus", "why"),
    [
        ([["gpu0"], ["gpu0"], []], r"Worker\(3\) has no GPU"),
        ([["gpu0"], ["gpu0"], ["gpu1"]], r"Worker\(1\) is on GPU gpu0 and Worker\(3\) on GPU gpu1"),
    ],
)
def test_cuda_ipc_is_for_actors_that_all_share_one_gpu(gpus, why) -> None:
    actors = [PaperActor(number, gpus=names) for number, names in enumerate(gpus, 1)]
    insisting = allreduce_of(transport="cuda_ipc")
    with pytest.raises(GraphError, match=rf"transport='cuda_ipc', and cannot: {why}"):
        insisting.backend(actors)
    assert insisting.backend(actors[:2]) == "cuda_ipc"
    assert insisting.backend(actors[:1]) == "cuda_ipc"
    found = allreduce_of().why(actors)
    assert "share GPU gpu0, which NCCL refuses" in found
    assert ("on GPU gpu1: cuda_ipc is for" in found) == bool(gpus[2])
    assert allreduce_of().why(actors[:2]).endswith("share GPU gpu0, which NCCL refuses")


@pytest.mark.parametrize("has_nccl", [True, False])
def test_nccl_needs_a_build_of_torch_that_has_it(monkeypatch, has_nccl) -> None:
    monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: has_nccl)
    actors = [PaperActor(number, gpus=[f"gpu{number}"]) for number in (1, 2)]
    if has_nccl:
        assert allreduce_of(transport="nccl").backend(actors) == "nccl"
    else:
        with pytest.raises(GraphError, match="this build of torch has no NCCL"):
            allreduce_of(transport="nccl").backend(actors)
