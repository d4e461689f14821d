"""allreduce over actors on threads, with the real gloo, against numpy."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from collective import ReduceOp, allreduce
from collective.rank_operation import RankOperation
from compiled_dag import CompiledDAGRef, InputNode, MultiOutputNode, TaskError
from compiled_dag.program import CollectiveWait
from tests.gates import Background
from tests.live import wait_until

INTEGERS = ["int8", "uint8", "int32", "int64"]


class Rank:
    """An actor with a tensor for every question."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.brought: list = []

    def bring(self, question):
        value = self.answer(question)
        self.brought.append(value)
        return value

    def echo(self, value):
        return value


def group(host, *answers, op=ReduceOp.SUM):
    """Compile an allreduce over actors that bring these answers."""
    actors = [host.actor(Rank(answer)) for answer in answers]
    with InputNode() as inp:
        reduced = allreduce.bind([actor.bring.bind(inp) for actor in actors], op=op)
        pairs = zip(actors, reduced, strict=True)
        output = MultiOutputNode([actor.echo.bind(value) for actor, value in pairs])
    return output.experimental_compile()


def results_of(graph, question=None):
    return CompiledDAGRef.get_many(graph.execute(question), 30)


def errors_of(graph, question=None) -> list[TaskError]:
    """Return what every rank's output raises."""
    errors = []
    for ref in graph.execute(question):
        with pytest.raises(TaskError) as raised:
            ref.get(30)
        errors.append(raised.value)
    return errors


# --- gloo's threads -------------------------------------------------------------------------------


def policies() -> dict[str, int]:
    """Return the scheduling policy of each thread of gloo that reads sockets."""
    found = {}
    for folder in Path("/proc/self/task").iterdir():
        if (folder / "comm").read_text().strip() == "gloo_tcp_loop":
            found[folder.name] = os.sched_getscheduler(int(folder.name))
    return found


def test_what_reads_sockets_takes_the_core_from_nobody_who_writes(host) -> None:
    users = torch.distributed.ProcessGroupGloo.create_device(interface="lo")
    wait_until(policies)  # it names itself
    before = policies()
    with group(host, lambda _: torch.ones(3), lambda _: torch.ones(3)) as graph:
        results_of(graph)
        ours = {thread: how for thread, how in policies().items() if thread not in before}
        assert list(ours.values()) == [os.SCHED_BATCH] * 2
        assert set(before.values()) <= {os.SCHED_OTHER}  # not those of others
    del users


# --- what ranks may bring ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "expected"), [("SUM", "or"), ("MAX", "or"), ("MIN", "and"), ("PRODUCT", "and")]
)
def test_operations_on_booleans_give_booleans(host, op, expected) -> None:
    left, right = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    answers = [lambda _: left, lambda _: right, lambda _: right]
    with group(host, *answers, op=ReduceOp[op]) as graph:
        for result in results_of(graph):
            assert torch.equal(result, left | right if expected == "or" else left & right)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
def test_any_number_of_ranks_may_take_part(host, num_ranks) -> None:
    answers = [lambda _, rank=rank: torch.full((3,), float(rank + 1)) for rank in range(num_ranks)]
    with group(host, *answers, op=ReduceOp.AVG) as graph:
        for _ in range(3):
            expected = torch.full((3,), (num_ranks + 1) / 2)
            assert all(torch.equal(result, expected) for result in results_of(graph))


VIEWS = {
    "transposed": lambda t: t.T,
    "strided": lambda t: t[:, ::2],
    "offset": lambda t: t[1:, 1:],
    "expanded": lambda t: t[0].expand(4, 6),
    "flipped": lambda t: t.flip(1),
}


@pytest.mark.parametrize("name", VIEWS)
def test_ranks_may_bring_tensors_of_any_strides(host, name) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    view = VIEWS[name](base)
    with group(host, lambda _: VIEWS[name](base), lambda _: view.contiguous()) as graph:
        assert all(torch.equal(result, 2 * view) for result in results_of(graph))


def test_ranks_may_bring_parameters_views_and_tensors_with_gradients(host) -> None:
    values = [
        torch.nn.Parameter(torch.ones(2, dtype=torch.complex64)),
        torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64).conj(),
        torch.ones(2, dtype=torch.complex64, requires_grad=True) * 2,
    ]
    expected = sum(value.detach() for value in values)
    with group(host, *(lambda _, value=value: value for value in values)) as graph:
        for result in results_of(graph):
            assert torch.equal(result, expected)
            assert not result.requires_grad


def test_what_a_rank_brings_is_left_as_it_is(host) -> None:
    mine = torch.ones(3)
    with group(host, lambda _: mine, lambda _: torch.ones(3)) as graph:
        for _ in range(3):
            results_of(graph)
    assert torch.equal(mine, torch.ones(3))


def test_the_result_belongs_to_its_rank(host) -> None:
    with group(host, lambda _: torch.ones(3), lambda _: torch.ones(3)) as graph:
        first, second = results_of(graph)
        first += 1
        assert torch.equal(second, torch.full((3,), 2.0))
        assert torch.equal(results_of(graph)[0], torch.full((3,), 2.0))


def test_collectives_may_follow_each_other_on_any_set_of_actors(host) -> None:
    actors = [host.actor(Rank(lambda x, n=n: torch.full((2,), float(x + n)))) for n in range(3)]
    with InputNode() as inp:
        brought = [actor.bring.bind(inp) for actor in actors]
        everybody = allreduce.bind(brought)
        pair = allreduce.bind([everybody[2], everybody[0]], op=ReduceOp.MAX)
        again = allreduce.bind([pair[1], everybody[1], pair[0]], op=ReduceOp.AVG)
        output = MultiOutputNode([a.echo.bind(n) for a, n in zip(actors, again, strict=True)])
    with output.experimental_compile() as graph:
        for number in range(3):
            expected = torch.full((2,), 3.0 * number + 3)
            assert all(torch.equal(result, expected) for result in results_of(graph, number))


def test_executions_in_flight_keep_their_reductions_apart(host) -> None:
    answers = [lambda x: torch.full((3,), float(x))] * 2
    with group(host, *answers) as graph:
        refs = [graph.execute(number) for number in range(10)]
        for number in reversed(range(10)):
            for ref in refs[number]:
                assert torch.equal(ref.get(30), torch.full((3,), 2.0 * number))


# --- ranks that differ ----------------------------------------------------------------------------

BASE = torch.zeros(4)


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        (torch.zeros(5), ["float32  (4,)", "float32  (5,)"]),
        (torch.zeros(2, 2), ["(4,)", "(2, 2)"]),
        (torch.zeros(()), ["(4,)", "()"]),
        (torch.zeros(4, dtype=torch.float64), ["float32", "float64"]),
        (torch.zeros(4, dtype=torch.int32), ["float32", "int32"]),
        (torch.zeros(1, 4), ["(4,)", "(1, 4)"]),
    ],
    ids=["length", "dims", "0-dim", "float64", "int32", "leading 1"],
)
def test_ranks_that_bring_different_tensors_all_get_a_table_that_marks_the_odd_one(
    host, other, shown
) -> None:
    answers = [lambda q: BASE, lambda q: other if q == "odd" else BASE, lambda q: BASE]
    with group(host, *answers) as graph:
        for number in range(2):
            errors = errors_of(graph, "odd")
            assert [error.rank for error in errors] == [0, 1, 2]
            for error in errors:
                assert isinstance(error, ValueError)
                assert type(error).__name__ == "TaskError(CollectiveMismatchError)"
                table = str(error).splitlines()[1:5]
                assert "the ranks of allreduce(SUM) bring different tensors" in str(error)
                assert [("<-- differs" in row) for row in table] == [False, False, True, False]
                assert shown[0] in table[1]
                assert shown[1] in table[2]
                assert "Rank(2)" in table[2]
                assert "test_allreduce.py:" in table[2]
            assert all(torch.equal(result, 0 * BASE) for result in results_of(graph, number))


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
def test_an_average_of_integers_is_refused_with_the_remedy(host, dtype) -> None:
    value = torch.ones(3, dtype=getattr(torch, dtype))
    with group(host, lambda _: value, lambda _: value, op=ReduceOp.AVG) as graph:
        for error in errors_of(graph):
            assert isinstance(error, TypeError)
            assert f"AVG of torch.{dtype} is not defined: reduce with SUM" in str(error)


@pytest.mark.parametrize(
    ("op", "why"),
    [
        ("MAX", "defined: complex numbers have no order"),
        ("MIN", "defined: complex numbers have no order"),
        ("PRODUCT", "supported: use SUM or AVG, or transport='shm'"),
    ],
)
def test_what_gloo_lacks_for_complex_numbers_is_refused_by_name(host, op, why) -> None:
    value = torch.ones(3, dtype=torch.complex64)
    with group(host, lambda _: value, lambda _: value, op=ReduceOp[op]) as graph:
        for error in errors_of(graph):
            assert isinstance(error, TypeError)
            assert f"{op} of torch.complex64 is not {why}" in str(error)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint32", "uint64", "float8_e4m3fn"])
def test_a_dtype_the_backend_lacks_is_refused_by_name(host, dtype) -> None:
    value = torch.ones(3).to(getattr(torch, dtype))
    with group(host, lambda _: value, lambda _: value) as graph:
        for error in errors_of(graph):
            assert isinstance(error, TypeError)
            assert f"allreduce(SUM): gloo cannot reduce torch.{dtype}" in str(error)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "takes a torch.Tensor, not builtins.int"),
        (None, "takes a torch.Tensor, not builtins.NoneType"),
        (np.ones(3), "not numpy.ndarray: return torch.from_numpy(array)"),
        ([torch.ones(3)], "not builtins.list: for several tensors in one operation, give"),
    ],
)
def test_what_is_no_tensor_is_refused_by_rank_and_type(host, value, text) -> None:
    answers = [lambda q: BASE, lambda q: value if q == "odd" else BASE]
    with group(host, *answers) as graph:
        for error in errors_of(graph, "odd"):
            assert isinstance(error, ValueError)
            assert text in str(error)
            assert error.rank == 1
            assert error.actor == "Rank(2)"
        assert len(results_of(graph)) == 2


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: torch.eye(2).to_sparse(), "the layout torch.sparse_coo is not supported"),
        (lambda: torch.eye(2, device="meta"), "device meta is not supported"),
        (
            lambda: torch.nested.nested_tensor([torch.ones(2)]),
            "a nested tensor is not supported",
        ),
    ],
)
def test_a_tensor_that_is_no_dense_memory_is_refused(host, make, text) -> None:
    with group(host, lambda _: make(), lambda _: torch.eye(2)) as graph:
        for error in errors_of(graph):
            assert isinstance(error, TypeError)
            assert text in str(error)


def test_a_tensor_of_too_many_dimensions_is_refused(host) -> None:
    value = torch.zeros([1] * 17)
    with group(host, lambda _: value, lambda _: value) as graph:
        assert all("17 dimensions are more than 16" in str(error) for error in errors_of(graph))


# --- poisoned ranks -------------------------------------------------------------------------------


def fails(question):
    """Return a tensor, or raise if asked to."""
    if question == "fail":
        raise KeyError("gradient")
    return torch.ones(3)


@pytest.mark.parametrize("poisoned", [0, 1, 2])
def test_the_error_of_one_rank_is_every_ranks_and_the_next_execution_works(host, poisoned) -> None:
    answers = [fails if rank == poisoned else (lambda _: torch.ones(3)) for rank in range(3)]
    with group(host, *answers) as graph:
        for execution in range(0, 6, 2):
            for error in errors_of(graph, "fail"):
                assert isinstance(error, KeyError)
                assert (error.rank, error.execution) == (poisoned, execution)
                assert error.actor == f"Rank({poisoned + 1})"
                assert error.node.startswith("Rank.bring (node")
                assert 'raise KeyError("gradient")' in str(error)
            assert all(torch.equal(r, torch.full((3,), 3.0)) for r in results_of(graph))


def test_the_first_ranks_error_counts_where_several_fail(host) -> None:
    with group(host, lambda _: torch.ones(3), fails, fails) as graph:
        assert [error.rank for error in errors_of(graph, "fail")] == [1, 1, 1]


def test_methods_that_need_the_reduction_are_skipped_and_others_run(host) -> None:
    first, second = host.actor(Rank(fails)), host.actor(Rank(lambda _: torch.ones(3)))
    with InputNode() as inp:
        reduced = allreduce.bind([first.bring.bind(inp), second.bring.bind(inp)])
        output = MultiOutputNode([*reduced, second.echo.bind(inp)])
    with output.experimental_compile() as graph:
        left, right, other = graph.execute("fail")
        assert other.get(30) == "fail"
        for ref in (left, right):
            with pytest.raises(KeyError):
                ref.get(30)


def test_a_very_long_error_reaches_every_rank(host) -> None:
    def fails_at_length(_):
        raise ValueError("漢" * 100_000)

    with group(host, lambda _: torch.ones(3), fails_at_length) as graph:
        for error in errors_of(graph):
            assert error.rank == 1
            assert "raised ValueError: 漢漢漢" in str(error)


def test_no_rank_waits_for_ever_when_the_graph_ends_before_all_arrived(host) -> None:
    from tests.gates import Gate

    gate = Gate()
    slow, quick = host.actor(gate), host.actor(Rank(lambda _: torch.ones(3)))
    with InputNode() as inp:
        reduced = allreduce.bind([quick.bring.bind(inp), slow.hold.bind(inp)])
        output = MultiOutputNode(reduced)
    graph = output.experimental_compile()
    graph.execute(torch.ones(3))
    gate.wait_entered()
    ending = Background(graph.teardown)
    assert quick.echo.remote(5).result() == 5
    gate.opened.set()
    ending.result()
    assert quick.resources == slow.resources == {}


def test_a_rank_that_waits_for_an_operation_to_end_is_seen_in_that_step(host, monkeypatch) -> None:
    seen, wait = [], RankOperation.wait

    def watched(self, running):
        deployment, participant = graph._deployment, self._rank + 1
        number = deployment.segment.progress(participant).step
        seen.append(type(deployment.program.steps[participant][number - 1]))
        return wait(self, running)

    monkeypatch.setattr(RankOperation, "wait", watched)
    with group(host, torch.ones, torch.ones) as graph:
        assert [float(ref.get(30).sum()) for ref in graph.execute(2)] == [4, 4]
    assert seen == [CollectiveWait] * 2
