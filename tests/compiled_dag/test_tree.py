from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiled_dag.tree import (
    Arguments,
    Const,
    DictOf,
    ListOf,
    TupleOf,
    Val,
    fill,
    leaves,
    map_leaves,
)

values = st.builds(Val, st.integers(0, 99))
constants = st.builds(Const, st.integers(0, 99))


def containers(children):
    items = st.lists(children, max_size=3).map(tuple)
    pairs = st.lists(st.tuples(constants, children), max_size=3, unique_by=lambda pair: pair[0])
    return st.one_of(
        st.builds(ListOf, items), st.builds(TupleOf, items), st.builds(DictOf, pairs.map(tuple))
    )


trees = st.recursive(st.one_of(values, constants), containers, max_leaves=10)


names = st.one_of(
    st.from_regex(r"[a-z_]\w{0,8}", fullmatch=True),
    st.text(max_size=5),
    st.sampled_from(["a b", "class", "None", "__debug__", "ﬁ", "|", "\u2028", "'", '"', "\\|"]),
)
arguments = st.builds(
    Arguments,
    st.lists(trees, max_size=4).map(tuple),
    st.dictionaries(names, trees, max_size=3).map(lambda named: tuple(named.items())),
)


@given(arguments)
def test_arguments_parse_back_from_what_they_print(given_arguments) -> None:
    assert Arguments.parse(str(given_arguments)) == given_arguments


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        (Val(3), "v3"),
        (Const(0), "c0"),
        (ListOf((Val(0), Const(1))), "[v0, c1]"),
        (TupleOf(()), "()"),
        (TupleOf((Val(0),)), "(v0,)"),
        (DictOf(((Const(0), ListOf(())),)), "{c0: []}"),
    ],
)
def test_a_tree_prints_as_python_would(tree, text) -> None:
    assert str(tree) == text


@pytest.mark.parametrize(
    "text",
    [
        "v",
        "x1",
        "1",
        "v0 +",
        "f(v0)",
        "*v0",
        "{v0: c0}",
        "{**v0}",
        "[v0 for x in y]",
        "v0)",
        "**v0",
        "**{v0: v1}",
        "**{'a': v0, 'b': v1}",
    ],
)
def test_other_text_is_no_argument_list(text) -> None:
    with pytest.raises(ValueError, match="not a"):
        Arguments.parse(text)


@given(arguments)
def test_values_are_named_once_in_order_of_appearance(given_arguments) -> None:
    seen = [
        leaf.id
        for tree in given_arguments.trees()
        for leaf in leaves(tree)
        if isinstance(leaf, Val)
    ]
    assert given_arguments.values() == tuple(dict.fromkeys(seen))


@given(arguments)
def test_mapping_with_identity_changes_nothing(given_arguments) -> None:
    assert given_arguments.map(lambda leaf: leaf) == given_arguments


@given(trees)
def test_mapping_replaces_every_leaf_but_the_keys_of_dicts(tree) -> None:
    mapped = map_leaves(tree, lambda leaf: Const(leaf.id + 1000))
    keys = {key.id for key in _keys(tree)}
    assert all(isinstance(leaf, Const) for leaf in leaves(mapped))
    assert {leaf.id for leaf in leaves(mapped) if leaf.id < 1000} == keys


def _keys(tree):
    match tree:
        case ListOf(items) | TupleOf(items):
            return [key for item in items for key in _keys(item)]
        case DictOf(pairs):
            return [key for key, value in pairs for key in (key, *_keys(value))]
    return []


@given(trees)
def test_filling_in_gives_what_python_makes_of_the_text(tree) -> None:
    table = {f"{kind}{number}": (kind, number) for kind in "vc" for number in range(100)}
    filled = fill(tree, lambda number: ("v", number), lambda number: ("c", number))
    assert filled == eval(str(tree), table)


def test_a_container_is_made_anew_by_every_filling() -> None:
    tree = ListOf((Const(0),))
    assert fill(tree, int, int) is not fill(tree, int, int)
