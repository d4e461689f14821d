from __future__ import annotations

import inspect

import pytest

import collective
from collective import ReduceOp, allgather, allreduce, barrier, broadcast, gather, reduce
from compiled_dag import CollectiveOutputNode, GraphError, InputNode
from tests.graphs import paper


def test_an_allreduce_is_a_list_of_one_node_per_input() -> None:
    with InputNode() as inp:
        nodes = allreduce.bind([actor.grad.bind(inp) for actor in paper(3)])
    assert [type(node) for node in nodes] == [CollectiveOutputNode] * 3
    assert nodes[1]._label == "allreduce(SUM), rank 1"


def test_the_operation_is_sum_unless_given() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        for op in ReduceOp:
            (node,) = allreduce.bind([worker.grad.bind(inp)], op=op)
            assert node._label == f"allreduce({op.name}), rank 0"


def test_a_tuple_of_nodes_will_do() -> None:
    with InputNode() as inp:
        assert len(allreduce.bind(tuple(actor.grad.bind(inp) for actor in paper(2)))) == 2


def test_an_operation_is_refused_before_anything_is_drawn() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        node = worker.grad.bind(inp)
    with pytest.raises(ValueError, match="op='mean' is not a reduce op"):
        allreduce.bind([node], op="mean")
    assert node._downstream == []


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ([], r"^allreduce\(SUM\): the list of inputs is empty"),
        ([3], r"^allreduce\(SUM\): input 0 \(3\) is not a method of an actor"),
        ("nodes", r"takes a list with one node per actor, \[.*\], not str"),
    ],
)
def test_inputs_that_are_no_nodes_are_refused(inputs, text) -> None:
    with pytest.raises(GraphError, match=text):
        allreduce.bind(inputs)


def test_a_node_given_twice_is_refused_by_position() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        node = worker.grad.bind(inp)
    with pytest.raises(GraphError, match=r"inputs 0 and 1 are both on actor Worker\(1\)"):
        allreduce.bind([node, node])


@pytest.mark.parametrize(
    ("operation", "name", "hint"),
    [
        (reduce, "root", ": it is called dst_rank"),
        (broadcast, "dst_rank", ": it is called src_rank"),
        (allreduce, "root", ": all its ranks are alike"),
        (gather, "zzz", r"\. Known: input_nodes, dst_rank, transport, bucket_bytes, uneven"),
        (allreduce, "bucket_byte", r"; did you mean 'bucket_bytes'\? Known: input_nodes, op, .*"),
        (barrier, "transport", r"\. Known: input_nodes"),
        (gather, "group_name", r": it is of calls in actors, gather\(...\)"),
    ],
)
def test_an_unknown_option_is_refused_with_what_the_special_rank_is_called(
    operation, name, hint
) -> None:
    with pytest.raises(TypeError, match=rf"got an unexpected keyword argument {name!r}{hint}$"):
        operation.bind([], **{name: 0})


def test_a_rank_that_is_none_is_told_with_the_actors_of_those_there_are() -> None:
    workers = paper(2)
    with InputNode() as inp:
        nodes = [actor.grad.bind(inp) for actor in workers]
    text = r"is no rank of the 2 given, 0 to 1; a position .* \(0: Worker\(1\), 1: Worker\(2\)\)"
    for operation in (broadcast, reduce):
        for root in (2, -1, workers[1]):
            with pytest.raises(ValueError, match=f"^{operation!r}".partition(".")[2] + ".*" + text):
                operation.bind(nodes, root)


def test_lists_of_actors_in_place_of_lists_of_tensors_are_named_as_that() -> None:
    workers = paper(2)
    with InputNode() as inp:
        lists = [[actor.grad.bind(inp) for _ in range(3)] for actor in workers]
    text = r"list 0 is all of Worker\(1\), list 1 of Worker\(2\)\. .* pass list\(zip\(\*lists\)\)"
    with pytest.raises(GraphError, match=text):
        allreduce.bind(lists)
    assert [len(of) for of in allreduce.bind(list(zip(*lists, strict=True)))] == [3, 3]


def test_what_belongs_to_another_argument_is_said() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        nodes = [worker.grad.bind(inp)]
    with pytest.raises(ValueError, match="A backend is given as transport="):
        allreduce.bind(nodes, "shm")
    with pytest.raises(ValueError, match=r"Names are no ops: ReduceOp\.MAX"):
        allreduce.bind(nodes, "max")
    with pytest.raises(ValueError, match="A reduce op is given as op="):
        allgather.bind(nodes, ReduceOp.MAX)


def test_the_options_are_in_every_signature_and_its_text() -> None:
    for name in ("allreduce", "allgather", "reducescatter", "broadcast", "reduce", "gather",
                 "scatter", "all_to_all"):  # fmt: skip
        bind = getattr(collective, name).bind
        for option in ("bucket_bytes", "inplace", "uneven"):
            assert option in inspect.signature(bind).parameters
            assert f"{option}: " in inspect.getdoc(bind)
