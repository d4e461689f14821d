"""References taken out of values: each once, in order, by an index."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from runtime.arguments import pack_arguments
from runtime.objects import ObjectRef
from runtime.parcel import Parcel


def refs(count):
    return [ObjectRef("a value", SimpleNamespace()) for _ in range(count)]


def steps(function, *args):
    """Count the lines of Python that a call takes."""
    lines = 0

    def trace(_frame, event, _arg):
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*args)
    finally:
        sys.settrace(before)
    return lines


def test_a_reference_that_a_value_holds_twice_is_taken_out_once() -> None:
    first, second = refs(2)
    parcel = Parcel.of([second, first, second, {"again": first}])
    assert parcel.references == [second, first]
    loaded = parcel.load()
    assert loaded[0] is loaded[2] is second
    assert loaded[1] is loaded[3]["again"] is first


def test_a_value_without_references_has_none() -> None:
    assert not Parcel.of([1, 2]).references


def test_arguments_that_are_one_reference_are_needed_once_in_order() -> None:
    first, second = refs(2)
    parcel, needed = pack_arguments((first, 1, second), {"again": first})
    assert needed == [first, second]
    assert not parcel.references


@pytest.mark.parametrize(
    "pack", [Parcel.of, lambda many: pack_arguments(many, {})], ids=["inside", "arguments"]
)
def test_each_of_many_references_takes_as_many_steps(pack) -> None:
    few, many = (steps(pack, refs(count)) for count in (200, 400))
    assert many <= 2 * few
