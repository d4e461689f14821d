from __future__ import annotations

from hypothesis import given, settings

from compiled_dag import InputNode, MultiOutputNode
from compiled_dag.capture import capture
from compiled_dag.passes.channels import plan_channels
from compiled_dag.passes.order import total_order
from compiled_dag.passes.transports import resolve_transports
from tests.graphs import chain, diamond, fan_out, idle_start, paper
from tests.recipes import Machine, draw, recipes


def channels_of(output, depth=4):
    graph = capture(output).graph
    return plan_channels(graph, total_order(graph), resolve_transports(graph), depth)


def ends(channels):
    return [(spec.writer, spec.readers, spec.label) for spec in channels.specs]


def test_a_chain_has_one_channel_per_hop() -> None:
    assert ends(channels_of(chain(paper(2)))) == [
        (0, (1,), "input"),
        (1, (2,), "Worker.add#1"),
        (2, (0,), "Worker.add#2"),
    ]


def test_one_channel_serves_all_readers_of_a_value() -> None:
    channels = channels_of(fan_out(paper(3)))
    assert channels.specs[0].readers == (1, 2, 3)
    assert len(channels.specs) == 4


def test_a_value_used_on_its_own_actor_has_no_channel() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        output = worker.echo.bind(worker.add.bind(inp))
    assert [label for *_, label in ends(channels_of(output))] == ["input", "Worker.echo#2"]


def test_a_value_that_is_output_and_argument_has_both_readers() -> None:
    first, second = paper(2)
    with InputNode() as inp:
        value = first.echo.bind(inp)
        output = MultiOutputNode([value, second.echo.bind(value), first.add.bind(value)])
    assert ends(channels_of(output))[1] == (1, (0, 2), "Worker.echo#1")


def test_several_uses_by_one_actor_are_one_reader() -> None:
    first, second = paper(2)
    with InputNode() as inp:
        value = first.echo.bind(inp)
        output = second.join.bind(value, second.echo.bind(value), [value])
    assert ends(channels_of(output))[1] == (1, (2,), "Worker.echo#1")


def test_an_input_that_is_only_an_output_has_no_channel() -> None:
    (worker,) = paper(1)
    with InputNode() as inp:
        output = MultiOutputNode([worker.echo.bind(inp[0]), inp.rate])
    labels = [label for *_, label in ends(channels_of(output))]
    assert labels == ["input[0]", "Worker.echo#3"]


def test_fields_of_the_input_travel_apart() -> None:
    first, second = paper(2)
    with InputNode() as inp:
        output = MultiOutputNode([first.echo.bind(inp[0]), second.echo.bind(inp.rate)])
    assert ends(channels_of(output))[:2] == [(0, (1,), "input[0]"), (0, (2,), "input['rate']")]


def test_depth_is_the_number_of_executions_in_flight() -> None:
    assert {spec.depth for spec in channels_of(diamond(paper(4)), depth=7).specs} == {7}


def test_an_actor_that_would_start_by_itself_is_triggered_by_the_driver() -> None:
    channels = channels_of(idle_start(paper(2)))
    assert channels.trigger == len(channels.specs) - 1
    assert ends(channels)[-1] == (0, (2,), "start")


def test_no_trigger_where_everybody_reads_first() -> None:
    assert channels_of(chain(paper(3))).trigger is None


def test_a_trigger_is_needed_although_the_actor_reads_later() -> None:
    late, other = paper(2)
    with InputNode() as inp:
        alone = late.echo.bind("constant")
        output = late.join.bind(alone, other.echo.bind(inp))
    assert ends(channels_of(output))[-1] == (0, (1,), "start")


@settings(max_examples=60)
@given(recipes(collectives=True))
def test_every_value_needed_elsewhere_has_one_channel_from_its_actor(recipe) -> None:
    graph = capture(draw(recipe, paper(recipe.num_actors, kind=Machine))).graph
    channels = plan_channels(graph, total_order(graph), resolve_transports(graph), 2)
    number = {actor: place for place, actor in enumerate(graph.actors, 1)}
    assert [spec.index for spec in channels.specs] == list(range(len(channels.specs)))
    for value, index in channels.of_value.items():
        spec = channels.specs[index]
        assert spec.writer == number.get(graph.nodes[value].actor, 0)
        assert spec.writer not in spec.readers
        assert tuple(sorted(set(spec.readers))) == spec.readers
    for node in graph.nodes:
        for use in node.uses():
            if graph.nodes[use].actor != node.actor:
                assert number.get(node.actor, 0) in channels.specs[channels.of_value[use]].readers
