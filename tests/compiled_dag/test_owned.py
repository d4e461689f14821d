"""Graphs that make processes for themselves: what they compute, and that nothing is left of them.

Processes are threads here; `tests.runtime.test_owned_processes` has real ones.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

from compiled_dag import (
    ActorDiedError,
    CompileOptions,
    GraphError,
    InputNode,
    MultiOutputNode,
)
from compiled_dag.capture import capture
from compiled_dag.deployment import Deployment
from compiled_dag.owned import place_functions
from tests.gates import ask
from tests.graphs import Worker as Plain
from tests.live import wait_until
from tests.recipes import values_of
from tests.remotes import FakeClass, FakeFunction

HERE = r"test_owned\.py:\d+"


class Counter:
    def __init__(self, start: int = 0, others: Any = ()) -> None:
        if start < 0:
            raise ValueError("less than nothing")
        self.value = start
        self.others = others

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def pair(self, more: int = 0) -> tuple[int, int]:
        self.value += more
        return self.value, -self.value

    def values(self) -> list[int]:
        return [other.instance.value for other in self.others]

    def label(self, handles: Any) -> str:
        return handles[0]["k"].label

    def generator(self, value: int) -> Any:
        yield value


def add(x: Any, y: Any) -> Any:
    return x + y


def pair(x: Any) -> Any:
    return [x, -x]


def total(x: Any) -> Any:
    return str(x)


def fail(x: Any) -> Any:
    raise ValueError(f"{x} is bad")


async def coroutine(x: Any) -> Any:
    return x


def generator(x: Any) -> Any:
    yield x


@pytest.fixture
def counter(host):
    return FakeClass(host, Counter)


@pytest.fixture
def plus(host):
    return FakeFunction(host, add)


def none_left(host) -> bool:
    return all(actor.error is not None for actor in host.actors.values())


# --- functions ------------------------------------------------------------------------------------


def test_functions_run_in_workers_that_end_with_the_graph(host, plus) -> None:
    with InputNode() as inp:
        left, right = plus.bind(inp, 1), plus.bind(inp, 2)
        output = MultiOutputNode([plus.bind(left, right), right])
    with output.experimental_compile() as graph:
        assert [values_of(graph.execute(number)) for number in range(3)] == [
            [3, 2],
            [5, 3],
            [7, 4],
        ]
        assert [actor.label for actor in graph.actors] == ["Worker(1)", "Worker(2)"]
        assert "participant 1 Worker(1)" in str(graph.program)
    assert host.ended == [1, 2]
    assert none_left(host)


def test_values_go_between_functions_actors_and_class_nodes(host, plus, counter) -> None:
    plain = host.actor(Plain(10))
    with InputNode() as inp:
        made = counter.bind(100)
        output = plus.bind(made.add.bind(plain.add.bind(plus.bind(inp, 1))), y=5)
    with output.experimental_compile() as graph:
        assert [graph.execute(number).get(30) for number in (1, 2)] == [117, 130]
    assert ask(plain) == 5


@pytest.mark.parametrize(("given", "count"), [(None, 3), (2, 2), (1, 1), (10, 3)])
def test_the_number_of_workers_may_be_given(host, plus, given, count) -> None:
    with InputNode() as inp:
        output = MultiOutputNode([plus.bind(inp, number) for number in range(3)])
    with output.experimental_compile(_function_workers=given) as graph:
        assert len(graph.actors) == count
        assert values_of(graph.execute(1)) == [1, 2, 3]


def test_there_are_no_more_workers_than_room(host) -> None:
    plus = FakeFunction(host, add, room=2)
    with InputNode() as inp:
        output = MultiOutputNode([plus.bind(inp, number) for number in range(3)])
    with output.experimental_compile() as graph:
        assert len(graph.actors) == 2


def test_functions_of_different_kinds_have_workers_of_their_own(host) -> None:
    kinds = [FakeFunction(host, add, kind=kind) for kind in ("a", "b", "a")]
    kinds.append(FakeFunction(host, add, kind="gpu", num_gpus=1))
    node: Any
    with InputNode() as inp:
        node = inp
        for function in kinds:
            node = function.bind(node, 1)
    placed = place_functions(capture(node), None)
    assert len(placed.graph.actors) == 3
    calls = placed.graph.nodes[1:5]
    assert calls[0].actor == calls[2].actor
    assert [new.num_gpus for new in placed.new_actors] == [0, 0, 1]


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_the_number_of_workers_is_checked(value) -> None:
    with pytest.raises(GraphError, match=rf"_function_workers={value!r} is not an integer of at"):
        CompileOptions.resolve(_function_workers=value)


def test_each_of_several_returns_is_a_node(host) -> None:
    both, plus = FakeFunction(host, pair, num_returns=2), FakeFunction(host, add)
    made = FakeClass(host, Counter).bind(10)
    with InputNode() as inp:
        one, two = both.bind(inp)
        counted = made.pair.options(num_returns=2).bind(one)
        output = MultiOutputNode([plus.bind(two, 1), counted[1], one, counted[0]])
    for graph in (output.experimental_compile(), output.experimental_compile()):
        with graph:
            assert [ref.get(30) for ref in graph.execute(3)] == [-2, -13, 3, 13]
            functions = {node.actor for node in graph._captured.graph.nodes if "pair" in node.label}
            assert len(functions) == 2, "an element is where its call is"


def test_several_returns_that_are_passed_on_whole_are_a_list(host) -> None:
    both, first_of = FakeFunction(host, pair, num_returns=2), FakeFunction(host, total)
    with InputNode() as inp:
        whole = both.bind(inp)
        output = MultiOutputNode([first_of.bind(whole), first_of.bind([whole, whole[1]])])
    with output.experimental_compile() as graph:
        assert [ref.get(30) for ref in graph.execute(3)] == ["[3, -3]", "[[3, -3], -3]"]
    assert len(whole._downstream) == 4, "compiling changes no node"

    with InputNode() as inp:
        output = both.bind(inp)
    with output.experimental_compile() as graph:
        assert [ref.get(30) for ref in graph.execute(3)] == [3, -3], "as when it is not compiled"
    assert output._downstream == []
    with InputNode() as inp:
        output = MultiOutputNode([both.bind(inp)])
    with pytest.raises(GraphError, match=r"pair\[0\] \(node 3, .*Make each node an output of its"):
        output.experimental_compile()


def test_each_of_several_returns_must_be_used_and_be_there(host) -> None:
    both = FakeFunction(host, pair, num_returns=2)
    with InputNode() as inp:
        one, _two = both.bind(inp)
    with pytest.raises(GraphError, match=r"nobody reads the result of element 1 of pair"):
        one.experimental_compile()
    with InputNode() as inp:
        output = MultiOutputNode([*FakeFunction(host, pair, num_returns=3).bind(inp)])
    with output.experimental_compile() as graph:
        for ref in graph.execute(1):
            with pytest.raises(ValueError, match="num_returns=3, but 2 values were returned"):
                ref.get(30)
    single = FakeFunction(host, add).bind(1, 2)
    for use in (list, lambda node: node[0]):
        with pytest.raises(TypeError, match=r"is one value, which.*\.options\(num_returns=2\)"):
            use(single)


def test_an_error_of_a_function_names_it_and_leaves_the_graph_usable(host) -> None:
    with InputNode() as inp:
        output = FakeFunction(host, fail).bind(inp)
    with output.experimental_compile() as graph:
        for _ in range(2):
            with pytest.raises(ValueError, match="5 is bad") as raised:
                graph.execute(5).get(30)
        assert raised.match(rf"fail \(node 1, bound at {HERE}\) on actor Worker\(1\)")


@pytest.mark.parametrize(
    ("function", "kind"), [(coroutine, "a coroutine function"), (generator, "a generator function")]
)
def test_functions_that_return_before_their_work_is_done_are_refused(host, function, kind) -> None:
    with InputNode() as inp:
        output = FakeFunction(host, function).bind(inp)
    with pytest.raises(GraphError, match=rf"{function.__name__}, bound at {HERE}, is {kind}\. In"):
        output.experimental_compile()
    assert host.actors == {}


@pytest.mark.parametrize("arguments", [(1, 2), ()])
def test_a_function_that_does_not_take_its_arguments_is_refused(host, arguments) -> None:
    with InputNode() as inp:
        output = FakeFunction(host, add).bind(inp, *arguments)
    with pytest.raises(TypeError, match=rf"^add, bound at {HERE}: (too many|missing a required)"):
        output.experimental_compile()
    assert host.actors == {}


def test_a_function_whose_code_is_lost_is_refused(host) -> None:
    with InputNode() as inp:
        output = FakeFunction(host, None).bind(inp)
    with pytest.raises(GraphError, match=rf"lost, bound at {HERE}: the function's code is not"):
        output.experimental_compile()


def test_a_function_that_cannot_be_sent_is_refused(host) -> None:
    lock = threading.Lock()

    def locked(x: Any) -> Any:
        return lock, x

    with InputNode() as inp:
        output = FakeFunction(host, locked).bind(inp)
    text = rf"^locked \(node 1, bound at {HERE}\): the function cannot be sent \(TypeError: .*lock"
    with pytest.raises(TypeError, match=text):
        output.experimental_compile()
    assert host.actors == {}


def test_options_about_retries_have_no_effect_and_that_is_said_once(host, plus, counter) -> None:
    often = FakeFunction(host, add, max_retries=3)
    with InputNode() as inp:
        call = counter.bind().add.options(max_task_retries=1).bind(often.bind(inp, 1))
        output = MultiOutputNode([often.bind(call, 1), plus.bind(call, 1)])
    with pytest.warns(RuntimeWarning, match="never made again") as warned:
        output.experimental_compile().teardown()
    (warning,) = warned
    text = str(warning.message)
    assert text.count("add (max_retries=3, bound at test_owned.py:") == 2
    assert text.count("Counter.add (max_task_retries=1, bound at test_owned.py:") == 1
    assert warning.filename == __file__


# --- class nodes ----------------------------------------------------------------------------------


def test_a_class_node_is_one_actor_per_compile_and_keeps_its_state(host, counter) -> None:
    with InputNode() as inp:
        output = counter.bind(10).add.bind(inp)
    with output.experimental_compile() as one, output.experimental_compile() as other:
        assert [one.execute(1).get(30) for _ in range(3)] == [11, 12, 13]
        assert other.execute(5).get(30) == 15
    assert none_left(host)
    with output.experimental_compile() as again:
        assert again.execute(0).get(30) == 10


def test_class_nodes_among_constructor_arguments_arrive_as_handles(host, counter) -> None:
    first, second = counter.bind(1), counter.bind(2)
    with InputNode() as inp:
        third = counter.bind(3, others=[first, second])
        output = MultiOutputNode([third.values.bind(), third.add.bind(inp)])
    with output.experimental_compile() as graph:
        assert values_of(graph.execute(1)) == [[1, 2], 4]
        assert len(graph.actors) == 1
        assert len(host.actors) == 3
    assert none_left(host)


def test_a_class_node_is_captured_as_a_constant(host, counter) -> None:
    made = counter.bind(1)
    with InputNode() as inp:
        output = MultiOutputNode([counter.bind(2).label.bind([{"k": made}]), inp])
    captured = capture(output)
    assert made in captured.constants
    assert next(new.made_by for new in captured.new_actors) is made
    assert str(captured.graph.nodes[-1].op) == "label([{c0: c1}])"


def test_calls_of_a_class_node_nobody_needs_are_leaves(host, counter) -> None:
    made = counter.bind(1)
    made.add.bind(5)
    with InputNode() as inp:
        output = made.add.bind(inp)
    with pytest.raises(GraphError, match=r"nobody reads the result of Counter\.add \(node"):
        output.experimental_compile()


@pytest.mark.parametrize("wrap", [lambda node: node, lambda node: [{"k": node}]])
def test_a_constructor_takes_constants_and_class_nodes_only(host, counter, plus, wrap) -> None:
    for other in (plus.bind(1, 2), counter.bind().pair.bind(), host.actor(Plain()).echo.bind(1)):
        with InputNode() as inp:
            output = counter.bind(5, others=wrap(other)).add.bind(inp)
        text = (
            rf"argument 'others' of the constructor of Counter, bound at {HERE}, is <.*{HERE}>, "
            "whose value is not known when the graph is compiled"
        )
        with pytest.raises(GraphError, match=text):
            output.experimental_compile()


def test_a_class_node_hidden_in_an_object_is_refused(host, counter) -> None:
    with InputNode() as inp:
        output = counter.bind(5, others={counter.bind(1)}).add.bind(inp)
    with pytest.raises(GraphError, match="argument 'others' of the constructor .* inside a set"):
        output.experimental_compile()


@pytest.mark.parametrize("wrap", [lambda node: node, lambda node: MultiOutputNode([[node]])])
def test_a_class_node_is_no_output(counter, wrap) -> None:
    with pytest.raises(GraphError, match=r"<ClassNode Counter .* is an output .*: bind one of its"):
        wrap(counter.bind()).experimental_compile()


def test_an_actor_that_may_be_anothers_is_not_made_by_a_graph(host) -> None:
    shared = FakeClass(host, Counter, name="x", get_if_exists=True)
    with InputNode() as inp:
        output = shared.bind().add.bind(inp)
    with pytest.raises(GraphError, match=r"with get_if_exists=True the actor may be another's"):
        output.experimental_compile()


def test_a_generator_method_of_a_class_node_is_refused(counter) -> None:
    with InputNode() as inp:
        output = counter.bind().generator.bind(inp)
    with pytest.raises(GraphError, match=r"Counter\.generator, bound at .*, is a generator method"):
        output.experimental_compile()


# --- compiles that fail, and ends -----------------------------------------------------------------


def test_a_constructor_that_raises_ends_the_compile_and_all_that_was_made(host, counter) -> None:
    good, bad = counter.bind(1), counter.bind(-1)
    with InputNode() as inp:
        output = MultiOutputNode([good.add.bind(inp), bad.add.bind(inp)])
    with pytest.raises(ActorDiedError, match="has no instance: less than nothing"):
        output.experimental_compile()
    assert len(host.actors) == 2
    assert none_left(host)


def test_nothing_is_made_before_the_graph_was_checked(host, counter, plus) -> None:
    with InputNode() as inp:
        leaf = plus.bind(inp, 1)
        output = counter.bind().add.bind(inp)
    with pytest.raises(GraphError, match="nobody reads"):
        output.experimental_compile()
    assert host.actors == {}
    del leaf


def test_what_was_made_ends_if_the_graph_does_not_come_up(host, counter, monkeypatch) -> None:
    def refuse(_deployment: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Deployment, "_check_alive", refuse)
    with InputNode() as inp:
        output = counter.bind().add.bind(inp)
    with pytest.raises(KeyboardInterrupt):
        output.experimental_compile()
    assert none_left(host)


def test_a_graph_that_is_collected_ends_what_was_made_for_it(host, counter) -> None:
    with InputNode() as inp:
        output = counter.bind().add.bind(inp)
    graph = output.experimental_compile()
    assert graph.execute(1).get(30) == 1
    del graph
    wait_until(lambda: none_left(host))


def test_an_actor_that_dies_breaks_the_graph_and_teardown_ends_the_rest(host, counter) -> None:
    with InputNode() as inp:
        first = counter.bind().add.bind(inp)
        output = counter.bind().add.bind(first)
    graph = output.experimental_compile()
    host.kill(graph.actors[0].actor_id)
    with pytest.raises(ActorDiedError, match=r"lost actor Counter\(1\)"):
        graph.execute(1).get(30)
    graph.teardown()
    assert host.ended == [2]
    assert none_left(host)
    graph.teardown(kill_actors=True)


# --- room for them --------------------------------------------------------------------------------


def test_what_can_never_be_placed_is_refused_before_anything_is_started(host) -> None:
    add_two = FakeFunction(host, add, resources={"CPU": 5})
    with InputNode() as inp:
        output = add_two.bind(inp, 1)
    with pytest.raises(GraphError, match=rf"add \(node 1, bound at {HERE}\) .* \(CPU: 5 of 4\)\."):
        output.experimental_compile()

    with InputNode() as inp:
        nodes = [FakeClass(host, Counter, resources={"CPU": 2}).bind() for _ in range(3)]
        output = MultiOutputNode([node.add.bind(inp) for node in nodes])
    text = rf"together .* \(CPU: 6 of 4\): CPU by Counter, bound at {HERE}: 2, Counter"
    with pytest.raises(GraphError, match=text):
        output.experimental_compile()
    assert host.actors == {}


def test_gpus_of_actors_that_are_there_count_with_those_of_the_graph(host, monkeypatch) -> None:
    monkeypatch.setattr(host, "totals", lambda: {"CPU": 4.0, "GPU": 1.0})
    there = host.actor(Plain())
    there.num_gpus = 1
    with InputNode() as inp:
        made = FakeClass(host, Counter, resources={"GPU": 0.5}).bind().add.bind(inp)
        output = there.echo.bind(made)
    with pytest.raises(GraphError, match=r"\(GPU: 1.5 of 1\): GPU by Worker\(1\): 1, Counter, bou"):
        output.experimental_compile()
