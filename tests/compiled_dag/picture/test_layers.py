from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from compiled_dag.picture.layers import Item, layers_of, positions


@st.composite
def acyclic(draw):
    """A number of nodes, and arrows between them in an order of their own."""
    num_nodes = draw(st.integers(1, 9))
    order = draw(st.permutations(range(num_nodes)))
    place = st.integers(0, num_nodes - 1)
    drawn = draw(st.lists(st.tuples(place, place), max_size=16))
    return num_nodes, [(order[min(p)], order[max(p)]) for p in drawn if p[0] != p[1]]


def reached(layers, item):
    """Return the nodes that arrows from `item` end at, past the bends."""
    for target in layers.down.get(item, ()):
        if target.is_bend:
            assert target.node == item.node
            yield from reached(layers, target)
        else:
            yield target.node


@given(acyclic())
def test_every_arrow_goes_down_layer_by_layer_and_arrives(graph) -> None:
    num_nodes, arrows = graph
    layers = layers_of(num_nodes, arrows)
    nodes = [item for row in layers.rows for item in row if not item.is_bend]
    assert sorted(item.node for item in nodes) == list(range(num_nodes))
    assert all(row for row in layers.rows)
    for item, targets in layers.down.items():
        assert item in layers.rows[item.layer]
        assert all(target in layers.rows[item.layer + 1] for target in targets)
    found = {(item.node, end) for item in nodes for end in reached(layers, item)}
    assert found == set(arrows)


@given(acyclic())
def test_items_of_a_layer_are_apart_and_in_order(graph) -> None:
    layers = layers_of(*graph)
    left = positions(layers, lambda item: 1 if item.is_bend else 5 + item.node, 3, 4)
    for row in layers.rows:
        end = 0
        for item in row:
            assert left[item] >= end
            assert left[item] % 4 == 0
            end = left[item] + (1 if item.is_bend else 5 + item.node) + 3


def test_a_node_that_needs_nothing_is_just_above_who_needs_it() -> None:
    layers = layers_of(4, [(0, 1), (1, 2), (3, 2)])
    assert [{item.node for item in row} for row in layers.rows] == [{0}, {1, 3}, {2}]


def test_arrows_of_one_node_share_their_bends() -> None:
    layers = layers_of(5, [(0, 1), (1, 2), (2, 3), (2, 4), (0, 3), (0, 4)])
    assert [item for row in layers.rows for item in row if item.is_bend] == [
        Item(0, 1, is_bend=True),
        Item(0, 2, is_bend=True),
    ]
