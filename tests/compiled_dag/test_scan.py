from __future__ import annotations

import threading

import numpy as np
import pytest

from compiled_dag.opaque import holds_nothing
from compiled_dag.scan import nodes_inside, replaced
from tests.runtime.drawn import Box, Counter


class Mark:
    """What is looked for."""


class Closed:
    """What is not looked into."""

    __opaque_to_graphs__ = True

    def __init__(self, content: object) -> None:
        self.content = content


def test_what_is_looked_for_is_found_wherever_pickling_comes_by() -> None:
    one, two, three = Mark(), Mark(), Mark()
    value = {"set": {one}, "box": Box([two, one]), "function": lambda: three}
    assert nodes_inside(value, Mark) == [one, two, three]
    assert nodes_inside(one, Mark) == [one]


def test_arrays_and_what_says_so_are_not_looked_into_and_stay_themselves() -> None:
    mark, array = Mark(), np.zeros(3)
    closed = Closed(mark)
    assert nodes_inside([closed, array], Mark) == []
    made = replaced(Box([array, closed, mark, np.array([mark], dtype=object)]), Mark, lambda _: 7)
    assert made.content[0] is array
    assert made.content[1] is closed
    assert (made.content[2], made.content[3][0]) == (7, 7)


@pytest.mark.parametrize("value", [1, "text", b"bytes", None, 1.5, np.zeros(2), Closed(1), Counter])
def test_most_arguments_need_no_look(value) -> None:
    assert holds_nothing(value)


@pytest.mark.parametrize("value", [[1], Box(1), np.array([1], dtype=object), int, len])
def test_others_may_hold_something(value) -> None:
    assert not holds_nothing(value)


def test_replacing_leaves_the_original_alone_and_keeps_what_is_shared_shared() -> None:
    mark = Mark()
    inner = Box(mark)
    value = Box([inner, inner])
    made = replaced(value, Mark, lambda _: "other")
    assert value.content[0].content is mark
    assert made.content[0] is made.content[1]
    assert made.content[0].content == "other"


def test_what_cannot_be_pickled_is_named_by_its_path() -> None:
    with pytest.raises(TypeError, match=r"^value\.content\['x'\]\[1\] of type _thread\.lock"):
        nodes_inside(Box({"x": (1, threading.Lock())}), Mark)


def test_replacing_may_replace() -> None:
    """What stands for one thing may itself be made by replacing in another."""
    inner, outer = Mark(), Mark()
    other = Box(inner)

    def replacement(mark: Mark) -> object:
        return "inner" if mark is inner else replaced(other, Mark, replacement)

    made = replaced(Box([outer, inner]), Mark, replacement)
    assert (made.content[0].content, made.content[1]) == ("inner", "inner")
