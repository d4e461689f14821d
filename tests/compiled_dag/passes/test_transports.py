from __future__ import annotations

import dataclasses
import re

import pytest

from collective import allreduce
from compiled_dag import GraphError, GraphUsageError, InputNode, MultiOutputNode
from compiled_dag.capture import capture
from compiled_dag.channel.transport import Transport
from compiled_dag.ir import Reach
from compiled_dag.passes.transports import (
    group_candidates,
    resolve_transports,
    ring_candidates,
)
from tests.communicators import Bare, PaperCommunicator
from tests.graphs import PaperActor, PaperHost, paper, program_of

NONE, FAKE, ZERO, ONE = (0, ()), (1, ()), (1, ("0",)), (1, ("1",))
"""Logical and physical GPUs of an actor."""


def actors_with(*gpus):
    made = [PaperActor(number, gpus=physical) for number, (_, physical) in enumerate(gpus, 1)]
    for actor, (logical, _) in zip(made, gpus, strict=True):
        actor.num_gpus = float(logical)
    return made


def edge(writer, *readers, hint=(), to_driver=False):
    """Draw a value of `writer` that the readers need."""
    with InputNode() as inp:
        value = writer.add.bind(inp).with_tensor_transport(*hint)
        outputs = [reader.add.bind(value) for reader in readers]
        return MultiOutputNode([*outputs, *([value] if to_driver else [])])


def resolve(output, default="create"):
    return resolve_transports(capture(output, default).graph)


def transport_of(output, default="create"):
    """Return how the first value that an actor makes travels."""
    found = resolve(output, default).of_value
    return next(transport for node, transport in found.items() if "add" in transport.node)


def choice(output, default="create"):
    transport = transport_of(output, default)
    return transport.mechanism, transport.reason


# --- what is chosen -------------------------------------------------------------------------------


def test_without_a_hint_values_go_through_host_memory() -> None:
    first, second = actors_with(ZERO, ONE)
    with InputNode() as inp:
        output = second.add.bind(first.add.bind(inp))
    found = resolve(output).of_value
    assert {(t.mechanism, t.reason, t.device) for t in found.values()} == {
        ("host", "no hint", "default")
    }
    assert [(t.node.split(" (")[0], t.writer) for t in found.values()] == [
        ("input", "the driver"),
        ("Worker.add", "Worker(1)"),
        ("Worker.add", "Worker(2)"),
    ]


def test_auto_chooses_from_the_gpus_of_the_ends() -> None:
    def auto(*gpus, **options):
        return choice(edge(*actors_with(*gpus), **options))

    assert auto(ZERO, ONE, to_driver=True) == ("host", "auto: the driver takes part")
    assert auto(ZERO, NONE, ONE) == ("host", "auto: Worker(2) has no GPU")
    assert auto(ZERO, FAKE) == ("host", "auto: the GPU of Worker(2) is fake")
    assert auto(ZERO, ZERO, ZERO) == ("host", "auto: all ends share GPU 0")
    assert auto(ZERO, ZERO, ONE) == ("staged", "auto: the ends have GPUs of their own")


def test_readers_learn_whose_gpus_are_fake() -> None:
    def fakes(*gpus):
        return transport_of(edge(*actors_with(*gpus), hint=("shm", "cuda"))).fakes

    assert fakes(NONE, FAKE, FAKE) == ("Worker(2)", "Worker(3)")
    assert fakes(ZERO, NONE) == ()


@pytest.mark.parametrize("hint", ["auto", "accelerator"])
def test_gpus_of_an_actor_that_waits_for_them_are_not_fake(hint) -> None:
    writer, reader = actors_with(ZERO, FAKE)
    reader.host = PaperHost()
    reader.host.has_gpus = True
    writer.host = reader.host
    assert choice(edge(writer, reader, hint=(hint,)))[0] == "staged"
    assert choice(edge(reader, writer, hint=(hint,)))[0] == "staged"


def test_auto_on_the_input_is_host_memory() -> None:
    (worker,) = actors_with(ZERO)
    with InputNode() as inp:
        output = worker.add.bind(inp.with_tensor_transport())
    assert next(iter(resolve(output).of_value.values())).reason == "auto: the driver takes part"


def test_shared_memory_is_taken_as_it_is() -> None:
    assert choice(edge(*actors_with(ZERO, ONE), hint=("shm",))) == ("host", "hinted so")


@pytest.mark.parametrize("name", ["accelerator", "nccl"])
def test_an_accelerator_edge_needs_real_gpus_to_stay_on_them(name) -> None:
    assert choice(edge(*actors_with(ZERO, ONE), hint=(name,)))[0] == "staged"
    assert choice(edge(*actors_with(FAKE, FAKE), hint=(name,))) == (
        "fake",
        "hinted so; the GPU of Worker(1), Worker(2) is fake",
    )


def reached(output, **refused):
    """Return the graph of `output` after its actors were asked; by reader what it cannot."""
    graph = capture(output).graph
    reach = [
        Reach(writer=w, reader=r, where=f"{w} and {r} can", **refused.get(f"by_{r}", {}))
        for w, r in ring_candidates(graph)
    ]
    return dataclasses.replace(graph, reach=tuple(reach))


def test_only_pairs_that_would_share_gpu_memory_are_asked() -> None:
    def asked(*gpus, hint=(), **options):
        return ring_candidates(capture(edge(*actors_with(*gpus), hint=hint, **options)).graph)

    assert asked(ZERO, ONE, hint=("accelerator",)) == ((1, 2),)
    assert asked(ZERO, ZERO, ONE, hint=("nccl",)) == ((1, 2), (1, 3))
    assert asked(ZERO, ONE) == ((1, 2),)
    assert asked(ZERO, ZERO) == ()
    assert asked(ZERO, ONE, hint=("shm",)) == ()
    assert asked(FAKE, FAKE, hint=("accelerator",)) == ()
    assert asked(ZERO, NONE) == ()


def test_tensors_stay_on_gpus_if_all_readers_can_share_their_memory() -> None:
    output = edge(*actors_with(ZERO, ZERO, ONE), hint=("accelerator",))

    def choice_of(graph):
        (found,) = [
            one for one in resolve_transports(graph).of_value.values() if one.on_accelerator
        ]
        return found.mechanism, found.reason, found.host_ordered

    assert choice_of(reached(output)) == ("cuda_ipc", "hinted so; 1 and 2 can; 1 and 3 can", False)
    no_memory = {"no_memory": "no peer"}
    found = choice_of(reached(output, by_3=no_memory))
    assert found == ("pinned", "hinted so; no peer", False)
    found = choice_of(reached(output, by_3=no_memory, by_2={"no_pinning": "no room"}))
    assert found == ("staged", "hinted so; no peer; no room", False)
    found = choice_of(reached(output, by_2={"no_events": "no"}))
    assert found == (
        "cuda_ipc", "hinted so; 1 and 2 can; 1 and 3 can; hosts wait for GPUs: no", True
    )  # fmt: skip
    nothing = dict.fromkeys(("no_memory", "no_events", "no_pinning"), "no cupy")
    assert choice_of(reached(output, by_2=nothing)) == ("staged", "hinted so; no cupy", False)


def test_gpus_that_share_no_memory_send_through_a_group_if_each_end_has_one_of_its_own() -> None:
    def choice_with(*gpus, **refused):
        graph = reached(edge(*actors_with(*gpus), hint=("nccl",)), **refused)
        (found,) = [
            one for one in resolve_transports(graph).of_value.values() if one.on_accelerator
        ]
        return found.mechanism, found.reason

    able = {"no_memory": "no peer", "backend": "nccl"}
    found = ("nccl", "hinted so; no peer; every end has a GPU of its own")
    assert choice_with(ZERO, ONE, by_2=able) == found
    assert choice_with(ZERO, ONE, by_2={"backend": "nccl"}) == (
        "cuda_ipc",
        "hinted so; 1 and 2 can",
    )
    two = (1, ("2",))
    assert choice_with(ZERO, ONE, two, by_2=able, by_3={"backend": "nccl"}) == found
    assert choice_with(ZERO, ONE, ONE, by_2=able, by_3=able)[0] == "pinned"
    assert choice_with(ZERO, ZERO, by_2=able)[0] == "pinned"
    failed = {**able, "no_group": "it did not form"}
    assert choice_with(ZERO, ONE, by_2=failed) == ("pinned", "hinted so; no peer; it did not form")
    assert choice_with(ZERO, ONE, two, by_2=able)[0] == "pinned"


def test_each_set_of_ends_has_one_group_whoever_writes() -> None:
    first, second = actors_with(ZERO, ONE)
    with InputNode() as inp:
        there = second.add.bind(first.add.bind(inp).with_tensor_transport("nccl"))
        output = first.add.bind(there.with_tensor_transport("nccl"))
    graph = capture(output).graph
    reach = [
        Reach(writer=writer, reader=reader, no_memory="no peer", backend="nccl")
        for writer, reader in ring_candidates(graph)
    ]
    graph = dataclasses.replace(graph, reach=tuple(reach))
    assert group_candidates(graph) == (("nccl", (first.actor_id, second.actor_id)),)


def test_who_sends_through_a_group_meets_its_readers() -> None:
    transport = Transport(mechanism="nccl")
    assert transport.has_group
    assert transport.is_rendezvous
    assert transport.on_accelerator
    assert not transport.has_ring


def test_readers_get_views_if_all_are_on_the_writers_gpu() -> None:
    output = edge(*actors_with(ZERO, ZERO, ZERO), hint=("accelerator",))
    output._bound_args[0]._bound_args[0].with_tensor_transport("accelerator", views=True)
    same, far, no_memory = {"on_one_gpu": True}, {"on_one_gpu": False}, {"no_memory": "no peer"}

    def choice_of(by_2, by_3):
        graph = reached(output, by_2=by_2, by_3=by_3)
        (found,) = [
            one for one in resolve_transports(graph).of_value.values() if one.on_accelerator
        ]
        return found.views, found.reason.partition("views=True: ")[2]

    assert choice_of(same, same) == (True, "readers get no copies")
    copies = "readers get copies, since "
    assert choice_of(same, far) == (
        False, f"{copies}Worker(1) is on another GPU than Worker(3)"
    )  # fmt: skip
    why = "the tensors are in no ring on a GPU"
    assert choice_of(same, same | no_memory) == (False, copies + why)
    output = edge(*actors_with(NONE, ZERO))
    output._bound_args[0]._bound_args[0].with_tensor_transport(views=True)
    assert choice(output)[1].endswith(f"Worker(1) has no GPU; views=True: {copies}{why}")


def test_what_the_hint_says_of_the_tensors_is_kept() -> None:
    transport = transport_of(edge(*paper(2), hint=("auto", "cuda", True, True)))
    assert transport.device == "cuda"
    assert transport.static_shape
    assert transport.direct_return
    assert transport.is_checked
    assert not transport.on_accelerator


def test_a_hint_on_a_value_that_stays_on_its_actor_is_no_matter_but_for_an_accelerator() -> None:
    (worker,) = actors_with(ZERO)
    for hint in ((), ("shm", "cpu"), (Bare([worker], "cpu"),)):
        resolve(edge(worker, worker, hint=hint))


# --- what is refused ------------------------------------------------------------------------------


def refuse(output, kind, *parts, default="create") -> None:
    with pytest.raises(kind) as raised:
        resolve(output, default)
    assert type(raised.value) is kind
    for part in parts:
        assert re.search(part, str(raised.value)), f"{part!r} is not in {raised.value}"


HERE = r"Worker\.add \(node 1, bound at test_transports\.py:\d+\)"


def test_an_input_cannot_come_from_an_accelerator() -> None:
    (worker,) = actors_with(ZERO)
    for hint in ("accelerator", PaperCommunicator([worker])):
        with InputNode() as inp:
            output = worker.add.bind(inp.with_tensor_transport(hint))
        refuse(output, GraphError, r"input \(node 0", "driver, which is no rank", "'auto' or 'shm'")


def test_the_driver_cannot_read_from_an_accelerator() -> None:
    first, second = actors_with(ZERO, ONE)
    for hint in ("nccl", PaperCommunicator([first, second])):
        output = edge(first, second, hint=(hint,), to_driver=True)
        refuse(output, GraphError, HERE, "the driver reads it", "'auto' or 'shm'")


def test_every_end_of_an_accelerator_edge_has_a_gpu() -> None:
    refuse(
        edge(*actors_with(ZERO, NONE), hint=("accelerator",)),
        GraphError,
        HERE,
        r"actor Worker\(2\), one of its ends, has no GPU",
        "num_gpus",
    )
    refuse(edge(*actors_with(NONE, FAKE), hint=("nccl",)), GraphError, r"actor Worker\(1\), one of")


def test_an_accelerator_hint_on_a_value_that_never_leaves_its_actor_is_a_mistake() -> None:
    (worker,) = actors_with(ZERO)
    for hint in ("accelerator", PaperCommunicator([worker])):
        output = edge(worker, worker, hint=(hint,))
        refuse(output, GraphUsageError, HERE, r"own actor Worker\(1\)", "Remove the hint")


def test_auto_does_not_choose_among_several_gpus() -> None:
    output = edge(*actors_with(ZERO, (2, ("1", "2"))))
    refuse(output, GraphUsageError, HERE, r"actor Worker\(2\) has 2 GPUs", "'shm'")
    assert choice(edge(*actors_with(ZERO, (2, ("1", "2"))), hint=("nccl",)))[0] == "staged"


# --- communicators --------------------------------------------------------------------------------


def test_a_communicator_carries_what_its_members_send() -> None:
    first, second, third = paper(3)
    members = PaperCommunicator([third, second, first])
    transport = transport_of(edge(first, second, hint=(members,)))
    assert transport.mechanism == "communicator"
    assert transport.reason == "by PaperCommunicator"
    assert transport.communicator == 0
    assert transport.is_rendezvous


def test_a_communicator_of_host_memory_leaves_values_to_it() -> None:
    first, second = paper(2)
    assert choice(edge(first, second, hint=(Bare([first], "cpu"),), to_driver=True)) == (
        "host",
        "Bare is of transport 'cpu'",
    )


def test_writer_and_readers_must_be_members() -> None:
    first, second, third = paper(3)
    output = edge(first, second, third, hint=(PaperCommunicator([first, second]),))
    refuse(
        output,
        GraphError,
        HERE,
        r"PaperCommunicator of Worker\(1\), Worker\(2\), which lacks Worker\(3\)",
    )


def test_a_communicator_that_cannot_send_is_refused_with_class_and_operation() -> None:
    first, second = paper(2)
    output = edge(first, second, hint=(Bare([first, second]),))
    refuse(output, GraphError, HERE, r"needs Bare\.send, which Bare does not implement")


def test_the_default_communicator_carries_accelerator_edges() -> None:
    first, second = actors_with(NONE, NONE)
    output = edge(first, second, hint=("accelerator",))
    default = PaperCommunicator([first, second])
    assert choice(output, default) == ("communicator", "by PaperCommunicator")
    refuse(output, GraphError, r"lacks Worker\(2\)", default=PaperCommunicator([first]))
    plain = edge(first, second, hint=("shm",))
    assert choice(plain, default)[0] == "host"


def test_without_a_default_communicator_accelerator_edges_need_their_own() -> None:
    first, second = actors_with(ZERO, ONE)
    both = (r"with_tensor_transport\(\.\.\.\)", "_default_communicator='create'")
    refuse(edge(first, second, hint=("nccl",)), GraphError, HERE, *both, default=None)
    refuse(edge(first, second), GraphError, HERE, *both, default=None)
    own = edge(first, second, hint=(PaperCommunicator([first, second]),))
    assert choice(own, None)[0] == "communicator"
    assert choice(edge(first, second, hint=("shm",)), None)[0] == "host"


def reduced(actors, **options):
    with InputNode() as inp:
        return MultiOutputNode(
            allreduce.bind([actor.grad.bind(inp) for actor in actors], **options)
        )


def test_a_collective_is_done_by_its_communicator_the_default_one_or_a_group_of_ours() -> None:
    actors = paper(2)
    mine, other = PaperCommunicator(actors), PaperCommunicator(actors[::-1])
    assert resolve(reduced(actors)).of_operation == {}
    assert resolve(reduced(actors, transport=mine)).of_operation == {0: 0}
    assert resolve(reduced(actors), mine).of_operation == {0: 0}
    assert resolve(reduced(actors, transport=mine), other).of_operation == {0: 0}
    assert resolve(reduced(actors, transport="gloo"), mine).of_operation == {}
    assert resolve(reduced(actors, transport="gloo"), None).of_operation == {}
    refuse(
        reduced(actors),
        GraphError,
        r"allreduce\(SUM\) of .*rank 0",
        r"transport=\.\.\.",
        "_default_communicator='create'",
        default=None,
    )


def test_a_collective_and_its_communicator_have_the_same_actors() -> None:
    first, second, third = paper(3)
    refuse(
        reduced([first, second], transport=PaperCommunicator([second, third])),
        GraphError,
        r"PaperCommunicator lacks Worker\(1\) and has Worker\(3\) besides",
    )
    refuse(
        reduced([first, second], transport=PaperCommunicator([first, second, third])),
        GraphError,
        r"lacks nobody and has Worker\(3\)",
    )


def test_a_communicator_without_the_collective_is_refused_with_class_and_operation() -> None:
    actors = paper(2)
    refuse(
        reduced(actors, transport=Bare(actors)),
        GraphError,
        r"needs Bare\.allreduce, which Bare does not implement",
    )


def test_a_communicator_of_host_memory_leaves_collectives_that_it_lacks_to_our_groups() -> None:
    first, second, third = paper(3)
    assert resolve(reduced([first, second]), Bare([first, second], "cpu")).of_operation == {}
    own = PaperCommunicator([first, second], "cpu")
    assert resolve(reduced([first, second]), own).of_operation == {0: 0}
    refuse(reduced([first, third]), GraphError, r"lacks Worker\(3\)", default=own)


def test_the_program_keeps_the_decisions_and_prints_them() -> None:
    first, second = actors_with(FAKE, FAKE)
    program = program_of(edge(first, second, hint=("nccl", "cuda", True)))
    spec = program.channels[1]
    assert spec.transport.mechanism == "fake"
    assert (
        "transport 1 fake cuda static_shape | hinted so; the GPU of Worker(1), Worker(2) is fake"
        in str(program).splitlines()
    )
