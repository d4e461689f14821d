"""Collectives of actors that share a GPU, on one in host memory (`fake`): real processes, no CUDA.

What the fake shows: nobody reads, overwrites, frees or closes anything too early, however late the
streams are and whoever dies. What it does not: see its head.
"""

from __future__ import annotations

import itertools
import re

import pytest

import collective
import runtime
from collective import allreduce
from compiled_dag import (
    CollectiveMismatchError,
    GraphActorDiedError,
    GraphError,
    InputNode,
    MultiOutputNode,
    TaskError,
)
from tests.collective.everything import W
from tests.cuda.fake import SETTINGS
from tests.cuda.ranks import GpuRank, HostRank, begin
from tests.live import LONG_S

pytestmark = [pytest.mark.proc, pytest.mark.filterwarnings("ignore:num_gpus=")]


@pytest.fixture
def start(no_leaks, monkeypatch):
    yield lambda *args, **options: begin(monkeypatch, *args, **options)
    runtime.shutdown()


def draw(ranks, *, transport=None, make="make", bind=allreduce.bind, show="ends", **options):
    with InputNode() as inp:
        made = [getattr(rank, make).bind(inp) for rank in ranks]
        results = bind(made, transport=transport, **options)
        shown = [getattr(r, show).bind(one) for r, one in zip(ranks, results, strict=True)]
        return MultiOutputNode(shown)


def get(refs):
    return runtime.get(refs, timeout=LONG_S)


def backends(graph):
    return [(one.backend, one.why) for one in graph.explain().collectives]


def total(ranks, length):
    expected = float(sum(range(len(ranks))))
    return [(length, expected, expected)] * len(ranks)


def check(graph, ranks, lengths) -> None:
    """Have several executions be under way at a time."""
    for start in range(0, len(lengths), 4):
        some = lengths[start : start + 4]
        refs = [graph.execute(length) for length in some]
        for length, ref in zip(some, refs, strict=True):
            assert get(ref) == total(ranks, length)


# --- what they give -------------------------------------------------------------------------------


def test_it_is_chosen_where_all_share_a_gpu(start) -> None:
    ranks = start(settings="pause_us=1000")
    with draw(ranks).experimental_compile() as graph:
        why = "GpuRank(1) and GpuRank(2) share GPU 0, which NCCL refuses"
        assert backends(graph) == [("cuda_ipc", why)]
        check(graph, ranks, [3, 1, 70_000, 5, 2, 8] * 3)
    assert get([rank.memory.remote() for rank in ranks]) == [0] * W


def test_one_rank_is_enough_for_who_insists(start) -> None:
    ranks = start(1)
    with draw(ranks, transport="cuda_ipc").experimental_compile() as graph:
        assert backends(graph) == [("cuda_ipc", "transport='cuda_ipc' was asked for")]
        check(graph, ranks, [3, 600_000, 4])


def test_memory_grows_with_what_it_is_to_hold_and_the_old_goes(start) -> None:
    ranks = start(settings="pause_us=1000")
    with draw(ranks).experimental_compile() as graph:
        check(graph, ranks, [10, 300_000, 20, 600_000, 1_200_000, 30, 40, 50, 60])
        grown = [2 * (8 << 20)] * W
        for _ in range(10):  # who has the old open closes it, and then it is freed
            get([rank.show.remote(None) for rank in ranks])  # nothing of it is under way
            check(graph, ranks, [7])
            if (found := get([rank.memory.remote() for rank in ranks])) == grown:
                break
        assert found == grown
        (group,) = graph.memory().groups
        assert group.actors == ("GpuRank(1)", "GpuRank(2)", "GpuRank(3)")
        assert list(group.gpu_bytes) == grown
        last = "on the GPU for collectives: GpuRank(1), GpuRank(2), GpuRank(3), 16 MiB + 16 MiB"
        assert last in str(graph.memory())
    assert graph.memory().group_bytes == sum(grown), "as it was before the end"
    assert get([rank.memory.remote() for rank in ranks]) == [0] * W


def test_memory_of_those_grows_who_are_read_by_one_only(start) -> None:
    ranks = start(settings="pause_us=500")
    with InputNode() as inp:
        made = [rank.make.bind(inp) for rank in ranks]
        gathered = collective.gather.bind(made, 1)
        spread = collective.broadcast.bind([made[0], *ranks[1:]], 0)
        shown = [rank.ends.bind(one) for rank, one in zip(ranks, spread, strict=True)]
        output = MultiOutputNode([ranks[1].ends.bind(gathered), *shown])
    with output.experimental_compile() as graph:
        for length in (5, 400_000, 6, 900_000, 7, 8, 9, 10):
            joined, *three = get(graph.execute(length))
            assert joined == (length * W, 0.0, 2.0)
            assert three == [(length, 0.0, 0.0)] * W
        assert len(set(get([rank.memory.remote() for rank in ranks]))) == 1
    assert get([rank.memory.remote() for rank in ranks]) == [0] * W


def test_results_are_the_ranks_own(start) -> None:
    ranks = start(2)
    with draw(ranks, show="show").experimental_compile() as graph:
        held = [get(graph.execute(4)) for _ in range(6)]
    assert all(one.tolist() == [1.0] * 4 for several in held for one in several)


def test_tensors_of_the_host_come_up_and_may_differ_in_shape(start) -> None:
    ranks = start(2)
    with draw(ranks, make="on_host").experimental_compile() as graph:
        check(graph, ranks, [3, 1, 9])
    gather = collective.allgather.bind
    with draw(ranks, make="make_own", bind=gather, uneven=True).experimental_compile() as graph:
        assert get(graph.execute([2, 5])) == [(7, 0.0, 1.0)] * 2
        assert get(graph.execute([500_000, 0])) == [(500_000, 0.0, 0.0)] * 2


def test_ranks_that_differ_are_told_so_and_the_graph_goes_on(start) -> None:
    ranks = start()
    with draw(ranks, make="make_own").experimental_compile() as graph:
        for lengths in ([3, 3, 3], [3, 400_000, 3], [4, 4, 4], [4, 4, 5], [5, 5, 5]):
            refs = graph.execute(lengths)
            if len(set(lengths)) == 1:
                assert get(refs) == total(ranks, lengths[0])
                continue
            for ref in refs:
                with pytest.raises(CollectiveMismatchError, match="<-- differs"):
                    ref.get(timeout=LONG_S)


def test_a_gpu_that_is_full_is_an_error_of_the_execution(start) -> None:
    ranks = start(2, settings=f"memory={12 << 20}")
    with draw(ranks).experimental_compile() as graph:
        assert get(graph.execute(3)) == total(ranks, 3)
        for ref in graph.execute(2_000_000):
            with pytest.raises(TaskError, match=r"wants 16777216 bytes .* are free"):
                ref.get(timeout=LONG_S)
        assert get(graph.execute(4)) == total(ranks, 4)


def test_several_groups_over_sets_that_overlap(start) -> None:
    ranks = start(4, settings="pause_us=500")
    sets = [(0, 1, 2, 3), (0, 1), (2, 3), (3, 1), (1, 2, 3)]
    with InputNode() as inp:
        shown = []
        for members in sets:
            some = [ranks[member] for member in members]
            reduced = allreduce.bind([rank.make.bind(inp) for rank in some])
            again = allreduce.bind(reduced)
            shown += [rank.ends.bind(one) for rank, one in zip(some, again, strict=True)]
        output = MultiOutputNode(shown)
    expected = [float(len(members) * sum(members)) for members in sets for _ in members]
    with output.experimental_compile() as graph, draw(ranks[1:3]).experimental_compile() as other:
        for length in (3, 400_000, 4, 5, 6):
            refs, of_other = graph.execute(length), other.execute(length)
            assert get(refs) == [(length, one, one) for one in expected]
            assert get(of_other) == [(length, 3.0, 3.0)] * 2
    assert get([rank.memory.remote() for rank in ranks]) == [0] * 4


# --- eager groups ---------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [2000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_many_operations_in_a_row(start, count) -> None:
    ranks = start(2, settings="pause_us=20")
    group = collective.create_collective_group(ranks, name="row", timeout_s=120)
    assert group.backend == "cuda_ipc"
    lengths = [1, 7, 300, 2000]
    wrong = [rank.reduce_often.remote(count, lengths, "row") for rank in ranks]
    assert runtime.get(wrong, timeout=240) == [0, 0]
    assert get([rank.gather_eagerly.remote("row") for rank in ranks]) == [([0.0, 1.0], 0.5)] * 2
    collective.destroy_collective_group(group)
    assert get([rank.memory.remote() for rank in ranks]) == [0, 0]


def test_operations_on_one_stream_after_the_other(start) -> None:
    ranks = start(2)
    collective.create_collective_group(ranks, "cuda_ipc", name="streams")
    assert get([rank.reduce_on_streams.remote(12, "streams") for rank in ranks]) == [0, 0]


def test_operations_at_random_of_groups_that_overlap(start) -> None:
    ranks = start(4, settings="pause_us=300")
    groups = {"all": [0, 1, 2, 3], "few": [2, 0], "odd": [3, 1, 2]}
    for turn in (1, 2):
        found = get([rank.play.remote(turn, 200, groups) for rank in ranks])
        assert found == [[]] * 4
    with draw(ranks).experimental_compile() as graph:  # which frees what was left
        check(graph, ranks, [3])
    assert get([rank.memory.remote() for rank in ranks]) == [0] * 4


def test_gpus_wait_for_each_other_and_hosts_for_none(start) -> None:
    ranks = start()
    lengths = (
        [3, 5, 2, 300_000, 4, 5, 6, 600_000, 1_200_000, 7, 8, 9] + [3000] * 50 + [2_500_000, 1, 2]
    )
    collective.create_collective_group(ranks, "cuda_ipc", name="slow")
    assert get([rank.spread_often.remote(lengths, "slow") for rank in ranks]) == [0] * W
    with draw(ranks).experimental_compile() as graph:  # which frees what was left
        check(graph, ranks, [3])
    assert get([rank.memory.remote() for rank in ranks]) == [0] * W


@pytest.mark.parametrize(
    ("settings", "backend"), [("", "cuda_ipc"), ("no_memory", "gloo"), ("no_events", "gloo")]
)
def test_ranks_that_meet_by_name_choose_too(start, settings, backend) -> None:
    ranks = start(2, settings=settings)
    for found in get([rank.meet.remote(2, "met") for rank in ranks]):
        assert f"of the {backend} group 'met'" in found
    assert get([rank.memory.remote() for rank in ranks]) == [(2 << 20) * (not settings)] * 2


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("no_memory", r"rank 0 failed at exporting GPU memory and events: .*cudaError801"),
        ("no_events", r"rank 0 failed at exporting GPU memory and events: cudaError801"),
        (
            "spoils_imports",
            r"opening GPU memory and events of rank \d: what was copied is not what",
        ),
        ("mig,spoils_imports", r"what was copied .* \(MIG instances share no memory\)"),
        (f"memory={1 << 20}", r"no memory left"),
    ],
)
def test_what_cannot_be_shared_goes_by_gloo_and_is_explained(start, settings, reason) -> None:
    ranks = start(settings=settings)
    with draw(ranks, make="on_host").experimental_compile() as graph:
        ((backend, why),) = backends(graph)
        assert backend == "gloo"
        assert "share GPU 0, which NCCL refuses, and cuda_ipc was refused: " in why
        assert re.search(reason, why), why
        check(graph, ranks, [3, 5])
        assert get([rank.memory.remote() for rank in ranks]) == [0] * W
    with pytest.raises(GraphError, match=f"cannot share the memory of their GPU: .*{reason}"):
        draw(ranks, transport="cuda_ipc").experimental_compile()


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        (SETTINGS, "other", "rank 0 is on GPU-fake-0, and rank 1 on GPU-fake-0-other"),
        ("COMPILED_DAG_CUDA", "tests.cuda.fake:nothing", "rank 1 failed at using its GPU: environ"),
    ],
)
def test_ranks_say_themselves_which_gpu_they_have(start, variable, value, reason) -> None:
    start(0, num_gpus=1)
    kind = runtime.remote(HostRank).options(num_gpus=0.25)
    env = {"env_vars": {variable: value}}
    ranks = [kind.remote(0), kind.options(num_gpus=0.25, runtime_env=env).remote(1)]
    ranks.append(kind.remote(2))
    with draw(ranks, make="on_host").experimental_compile() as graph:
        ((backend, why),) = backends(graph)
        assert backend == "gloo"
        assert reason in why
        check(graph, ranks, [3, 4])
        assert get([rank.memory.remote() for rank in (ranks[0], ranks[2])]) == [0, 0]


def test_who_insists_is_told_when_another_operation_has_fallen_back(start) -> None:
    ranks = start(2, settings="no_memory")
    with InputNode() as inp:
        first = allreduce.bind([rank.on_host.bind(inp) for rank in ranks])
        then = allreduce.bind(first, transport="cuda_ipc")
        output = MultiOutputNode(then)
    with pytest.raises(GraphError, match="transport='cuda_ipc', and cannot: rank 0 failed at"):
        output.experimental_compile()


def test_gpus_of_which_some_are_shared_go_by_gloo(start) -> None:
    ranks = start(3, num_gpus=2)
    with draw(ranks, make="on_host").experimental_compile() as graph:
        ((backend, why),) = backends(graph)
        assert backend == "gloo"
        assert "GpuRank(1) and GpuRank(3) share GPU 0, which NCCL refuses, and " in why
        assert "GpuRank(1) is on GPU 0 and GpuRank(2) on GPU 1: cuda_ipc is for actors" in why
        check(graph, ranks, [3])
    with pytest.raises(GraphError, match="on transport='cuda_ipc', and cannot: .* on GPU 1"):
        draw(ranks, transport="cuda_ipc").experimental_compile()
    with pytest.raises(ValueError, match="cannot be on backend='cuda_ipc': .* on GPU 1"):
        collective.create_collective_group(ranks, "cuda_ipc")


# --- deaths ---------------------------------------------------------------------------------------


def execute_with_a_death(graph, ranks, victim, name, number, *, drains):
    """Have a rank die in the second of three executions; return what the last two come to."""
    get(graph.execute(5))
    get(ranks[victim].die_at.remote(name, number, drains))
    found = []
    for ref in itertools.chain(*[graph.execute(length) for length in (6, 7)]):
        try:
            found.append(ref.get(timeout=LONG_S))
        except GraphActorDiedError as error:
            found.append(error)
    assert isinstance(found[victim], GraphActorDiedError)
    assert all(isinstance(one, GraphActorDiedError) for one in found[W:])
    assert f"in allreduce(SUM), rank {victim} of {W}" in str(found[victim])
    graph.teardown()
    return found[:W]


@pytest.mark.parametrize("victim", [0, pytest.param(2, marks=pytest.mark.soak)])
def test_a_death_at_any_point_breaks_the_graph_and_leaves_the_others_usable(start, victim) -> None:
    """What the victim's GPU has been given is done, as where a kernel outlives its process."""
    ranks = start(settings="pause_us=300")
    for name, number in (("wait", 1), ("copy", 1), ("record", 1), ("wait", 4), ("record", 2)):
        graph = draw(ranks).experimental_compile()
        found = execute_with_a_death(graph, ranks, victim, name, number, drains=True)
        for one in found:
            assert isinstance(one, GraphActorDiedError) or one == (6, 3.0, 3.0)
        ranks[victim] = runtime.remote(GpuRank).options(num_gpus=1).remote(victim)
    with draw(ranks).experimental_compile() as graph:
        check(graph, ranks, [3, 400_000, 4])
    assert get([rank.memory.remote() for rank in ranks]) == [0] * W


def test_no_host_waits_for_a_gpu_that_waits_for_the_dead(start) -> None:
    """The victim's copy is never done, and so nothing on the others' streams after it."""
    ranks = start(settings="pause_us=300")
    graph = draw(ranks, show="touch").experimental_compile()
    execute_with_a_death(graph, ranks, 1, "wait", 4, drains=False)
    assert get([ranks[0].show.remote(1), ranks[2].show.remote(2)]) == [1, 2]  # and it is set free


def test_a_death_while_joining_leaves_the_others_usable(start) -> None:
    ranks = start()
    for name, number in (("record", 1), ("import_memory", 2), ("import_event", 3)):
        get(ranks[2].die_at.remote(name, number, False))
        with pytest.raises(Exception, match=r"GpuRank\(\d+\).*died"):
            draw(ranks).experimental_compile()
        ranks[2] = runtime.remote(GpuRank).options(num_gpus=1).remote(2)
    with draw(ranks).experimental_compile() as graph:
        assert get(graph.execute(5)) == total(ranks, 5)
    assert get([rank.memory.remote() for rank in ranks]) == [0] * W
