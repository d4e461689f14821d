"""Nodes of functions and classes: what they remember. `tests.runtime.test_drawn` runs them."""

from __future__ import annotations

import copy
import pickle
import threading

import cloudpickle
import pytest

import runtime
from compiled_dag import (
    PARENT_CLASS_NODE_KEY,
    PREV_CLASS_METHOD_CALL_KEY,
    ClassMethodNode,
    ClassNode,
    FunctionNode,
    GraphError,
    InputNode,
)
from tests.runtime.drawn import Counter, add, pair


def test_a_function_node_remembers_what_was_bound() -> None:
    node = add.bind(1, y=[2])
    assert isinstance(node, FunctionNode)
    assert (node.get_args(), node.get_kwargs()) == ((1,), {"y": [2]})
    assert repr(node).startswith("<FunctionNode add bound at test_class_node.py:")


def test_what_an_accessor_returns_may_be_changed() -> None:
    node = add.options(num_cpus=1).bind(y=1)
    for got in (node.get_kwargs(), node.get_options(), node.get_other_args_to_resolve()):
        got["more"] = 1
    assert (node.get_kwargs(), node.get_options()) == ({"y": 1}, {"num_cpus": 1})


def test_a_functions_signature_is_not_checked_at_bind() -> None:
    assert add.bind(1, 2, 3, nonsense=4).get_args() == (1, 2, 3)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (add, {}),
        (pair, {"num_returns": 2}),
        (pair.options(num_cpus=2), {"num_returns": 2, "num_cpus": 2}),
        (runtime.remote(num_gpus=1)(len), {"num_gpus": 1, "max_calls": 1}),
        (runtime.remote(num_gpus=1, max_calls=3)(len), {"num_gpus": 1, "max_calls": 3}),
        (runtime.remote(max_calls=3)(len).options(num_cpus=1), {"num_cpus": 1}),
    ],
)
def test_options_are_those_that_were_declared(function, options) -> None:
    assert function.bind().get_options() == options


def test_a_class_node_has_the_options_of_its_class_and_its_methods_their_own() -> None:
    node = Counter.options(num_cpus=0).bind(3)
    assert isinstance(node, ClassNode)
    assert node.get_options() == {"num_cpus": 0}
    assert node.add.bind(1).get_options() == {}
    assert node.pair.options(num_returns=2, name="two").bind().get_options() == {
        "num_returns": 2,
        "name": "two",
    }


@pytest.mark.parametrize(
    ("options", "kind"), [({"num_cups": 1}, ValueError), ({"num_returns": "two"}, TypeError)]
)
def test_options_are_checked_when_they_are_given(options, kind) -> None:
    for thing in (add, Counter.bind().add):
        with pytest.raises(kind, match=next(iter(options))):
            thing.options(**options)


def test_a_call_of_a_class_node_knows_its_actor_and_the_call_before() -> None:
    node = Counter.bind()
    first, second = node.add.bind(1), node.add.bind(2)
    assert isinstance(first, ClassMethodNode)
    assert first.get_other_args_to_resolve() == {
        PARENT_CLASS_NODE_KEY: node,
        PREV_CLASS_METHOD_CALL_KEY: None,
    }
    assert second.get_other_args_to_resolve()[PREV_CLASS_METHOD_CALL_KEY] is first


def test_several_returns_of_a_class_nodes_method_are_one_node() -> None:
    assert isinstance(Counter.bind().pair.options(num_returns=2).bind(), ClassMethodNode)


@pytest.mark.parametrize("through", [lambda inp: inp, lambda inp: [add.bind(inp.x, 1)]])
def test_a_constructor_does_not_know_the_input(through) -> None:
    with InputNode() as inp:
        argument = through(inp)
    text = (
        r"the constructor of Counter, bound at test_class_node\.py:\d+, needs the InputNode made "
        r"at test_class_node\.py:\d+, which is not known when an actor is made"
    )
    before = list(inp._downstream)
    with pytest.raises(GraphError, match=text):
        Counter.bind(argument)
    assert inp._downstream == before


def test_wrong_arguments_of_a_constructor_or_method_are_refused_at_bind() -> None:
    with pytest.raises(TypeError, match=r"Counter\.__init__\(start: .* does not take"):
        Counter.bind(1, 2)
    with pytest.raises(TypeError, match=r"Counter\.add\(amount: .* does not take \(\)"):
        Counter.bind().add.bind()


@pytest.mark.parametrize(
    ("get", "text"),
    [
        (lambda node: node.ad, "Counter has no method 'ad'; did you mean 'add'"),
        (lambda node: node.remote, r"has no \.remote: bind one of its methods"),
        (lambda node: node.bind, r"has no \.bind: bind one of its methods"),
        (lambda node: node.add.remote, r"has no \.remote: .* \.bind\(\) draws the call"),
        (lambda node: node.add.bind(1).bind, r"has no \.bind: pass it"),
        (lambda node: node.add.bind(1).remote, r"has no \.remote: \.execute\(\) runs the graph"),
        (lambda _: add.bind(1).bind, r"has no \.bind: pass it"),
        (lambda _: add.bind(1).remote, r"has no \.remote: \.execute\(\) runs the graph"),
        (lambda _: InputNode().remote, r"has no \.remote: .* is inp\['remote'\]"),
    ],
)
def test_what_a_node_does_not_have_is_refused_with_what_to_do(get, text) -> None:
    with pytest.raises(AttributeError, match=text):
        get(Counter.bind())


@pytest.mark.parametrize("bind", [add.bind, Counter.bind, Counter.bind().add.bind])
def test_an_argument_that_cannot_be_sent_is_refused_at_bind(bind) -> None:
    with pytest.raises(TypeError) as raised:
        bind({"key": [1, threading.Lock()]})
    assert raised.match(
        r"argument 0 of (add|Counter|Counter\.add), bound at test_class_node\.py:\d+: "
        r"value\['key'\]\[1\] of type _thread\.lock cannot be pickled"
    )


def test_the_calls_of_a_pickled_graph_keep_their_order() -> None:
    node = Counter.bind()
    node.add.bind(1)
    last = pickle.loads(cloudpickle.dumps(node.add.bind(2)))
    before = last.get_other_args_to_resolve()[PREV_CLASS_METHOD_CALL_KEY]
    parent = last.get_other_args_to_resolve()[PARENT_CLASS_NODE_KEY]
    assert before.get_other_args_to_resolve()[PARENT_CLASS_NODE_KEY] is parent
    after = parent.add.bind(3)
    assert after.get_other_args_to_resolve()[PREV_CLASS_METHOD_CALL_KEY] is last
    assert copy.copy(node).get_stable_uuid() == node.get_stable_uuid()
