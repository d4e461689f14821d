from __future__ import annotations

import pytest

from compiled_dag import GraphError, InputNode
from compiled_dag.class_node import bind_method
from compiled_dag.containers import MOST_NESTED, NestingError, search
from tests.graphs import Worker, paper


def nested(depth, innermost=()):
    """Return `depth` containers inside each other."""
    value = [*innermost]
    for level in range(1, depth):
        value = ([value], (value,), {"key": value})[level % 3]
    return value


def knot(kind):
    """Return a container that contains itself."""
    inner = []
    value = {"key": inner} if kind is dict else kind([inner])
    inner.append(value)
    return value


def test_what_is_looked_for_is_found_in_order() -> None:
    assert search(["a", 1, ("b", {"key": ["c"], "d": None})], str).nodes == ["a", "b", "c"]
    assert search("itself", str).nodes == ["itself"]
    assert search({1, "not in sets"}, str).nodes == []


def test_a_container_that_appears_often_is_looked_into_once() -> None:
    value = ["found"]
    for _ in range(MOST_NESTED - 1):
        value = [value, value]  # 2 ** 49 paths
    assert search(value, str).nodes == ["found"]


@pytest.mark.parametrize("depth", [MOST_NESTED + 1, 10_000])
def test_great_depth_is_refused(depth) -> None:
    with pytest.raises(NestingError, match=f"deeper than {MOST_NESTED}"):
        search(nested(depth), str)


def test_depth_counts_by_the_longest_way() -> None:
    part = nested(MOST_NESTED - 1)
    assert search([part], str).nodes == []
    with pytest.raises(NestingError, match="deeper"):
        search([part, [part]], str)


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_a_cycle_is_refused(kind) -> None:
    with pytest.raises(NestingError, match="contains itself"):
        search(knot(kind), str)


@pytest.mark.parametrize(
    ("value", "text"), [(knot(list), "is cyclic"), (nested(5000), "is nested deeper than")]
)
@pytest.mark.parametrize("by_name", [False, True])
def test_bind_names_the_argument_the_method_and_the_line(value, text, by_name) -> None:
    (worker,) = paper(1)
    args, kwargs = ((1,), {"named": value}) if by_name else ((1, value), {})
    name = "'named'" if by_name else "1"
    with pytest.raises(GraphError) as raised:
        bind_method(worker.pack, args, kwargs)
    expected = rf"^argument {name} of Worker\.pack, bound at test_containers\.py:\d+, {text}"
    assert raised.match(expected)


def test_arguments_as_deep_as_may_be_are_compiled_and_run(host) -> None:
    actor = host.actor(Worker())
    with InputNode() as inp:
        output = actor.join.bind(nested(MOST_NESTED, [inp]), nested(MOST_NESTED))
    with output.experimental_compile() as graph:
        assert graph.execute(5).get(30) == (nested(MOST_NESTED, [5]), nested(MOST_NESTED))
