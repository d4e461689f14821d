from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import enum
import pickle
import subprocess
import sys
import threading
import types
from typing import NamedTuple

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from compiled_dag.channel.codec import Encoded, Kind, decode, encode
from compiled_dag.channel.pickling import dumps_by_value
from compiled_dag.outcome import Error

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(),
    st.binary(),
)
hashables = st.one_of(st.integers(), st.text(), st.booleans(), st.none())
nested = st.recursive(
    st.one_of(scalars, st.binary().map(bytearray), st.frozensets(hashables, max_size=3)),
    lambda item: st.one_of(
        st.lists(item, max_size=3),
        st.tuples(item, item),
        st.dictionaries(hashables, item, max_size=3),
    ),
    max_leaves=8,
)
arrays = st_numpy.arrays(
    dtype=st.one_of(
        st_numpy.scalar_dtypes(),
        st_numpy.array_dtypes(max_size=3),
    ),
    shape=st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


class Colour(enum.Enum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: list[int]


class Holder:
    def __init__(self, **parts) -> None:
        self.__dict__.update(parts)


class Refuser(Holder):
    def __reduce__(self):
        raise ValueError("not this one")


def sent(encoded: Encoded) -> Encoded:
    """Return what arrives: copies, of which only the private ones can be changed."""
    buffers = [
        bytearray(memoryview(buffer).cast("B")) if number in encoded.private else bytes(buffer)
        for number, buffer in enumerate(encoded.buffers)
    ]
    return encoded._replace(head=bytes(encoded.head), buffers=buffers)


def through(value):
    """Encode, carry over, decode."""
    encoded = sent(encode(value))
    return decode(int(encoded.kind), encoded.head, encoded.buffers)


# --- plain values ---------------------------------------------------------------------------------


@given(nested)
def test_a_value_arrives_equal_and_of_its_type(value) -> None:
    arrived = through(value)
    assert arrived == value
    assert type(arrived) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        -0.0,
        2**200,
        "\ud800",
        "__main__",
        range(3),
        slice(1, None),
        Ellipsis,
        Colour.RED,
        Point(1, [2]),
        dt.timedelta(1),
        decimal.Decimal("1.5"),
        array.array("d", [1.5]),
        collections.OrderedDict(a=1),
        np.float32(1.5),
        np.dtype("f4"),
        int,
        len,
    ],
    ids=repr,
)
def test_anything_that_pickles_arrives(value) -> None:
    arrived = through(value)
    assert type(arrived) is type(value)
    assert repr(arrived) == repr(value)


def test_a_value_may_contain_itself() -> None:
    value: list = [1]
    value.append(value)
    arrived = through(value)
    assert arrived[1] is arrived


def test_shared_parts_stay_shared() -> None:
    part = np.arange(3)
    arrived = through([part, part])
    assert arrived[0] is arrived[1]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"bytes", Kind.BYTES),
        (np.arange(3), Kind.NUMPY),
        (np.asfortranarray(np.ones((2, 3))), Kind.PICKLE),
        ({"a": 1}, Kind.PICKLE),
        ("text", Kind.PICKLE),
        (Error(cause=None, summary="", traceback_text=""), Kind.ERROR),
    ],
)
def test_exact_types_take_their_short_cut(value, kind) -> None:
    assert encode(value).kind == kind


def test_a_subclass_of_a_short_cut_type_stays_what_it_is() -> None:
    class Name(bytes):
        pass

    class Row(np.ndarray):
        pass

    assert type(through(np.ones(3).view(np.recarray))) is np.recarray
    assert type(through(np.ma.array([1, 2], mask=[0, 1]))) is np.ma.MaskedArray
    assert type(through(Name(b"x"))).__name__ == "Name"
    assert type(through(np.ones(3).view(Row))).__name__ == "Row"


def test_an_error_arrives_as_an_error() -> None:
    error = Error.capture(ValueError("bad"), execution=3)
    assert through(error) == error


# --- numpy ----------------------------------------------------------------------------------------


def assert_same_array(arrived, value) -> None:
    assert type(arrived) is np.ndarray
    assert arrived.dtype == value.dtype
    assert arrived.shape == value.shape
    assert arrived.tobytes() == value.tobytes()


@given(arrays)
def test_any_array_arrives(value) -> None:
    assert_same_array(through(value), value)


@pytest.mark.parametrize(
    "value",
    [
        np.array(3.5),
        np.zeros((0,)),
        np.zeros((3, 0, 2), np.int8),
        np.arange(4, dtype=">i4"),
        np.arange(4, dtype="<i4"),
        np.array(["2024-02-29", "NaT"], "datetime64[ns]"),
        np.array([1, 2], "timedelta64[ms]"),
        np.array([(1, 2.5, b"xy")], [("a", "<i2"), ("b", ">f8"), ("c", "S2")]),
        np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        np.array(["short", "a longer text"]),
        np.array([b"ab", b""]),
        np.ones(3, np.float16),
        np.ones(3, np.complex64),
        np.ones(3, np.longdouble),
        np.array([True, False]),
        np.zeros(3, np.dtype([])),
        np.zeros(3, "V0"),
        np.zeros(3, "V3"),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}",
)
def test_an_array_of_any_dtype_arrives(value) -> None:
    assert_same_array(through(value), value)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[::2],
        lambda a: a[:, ::-1],
        lambda a: a[:, 1],
        lambda a: np.broadcast_to(a[0], (5, 4)),
        np.asfortranarray,
    ],
    ids=["transposed", "strided", "reversed", "column", "broadcast", "fortran"],
)
def test_an_array_of_any_order_arrives(view) -> None:
    value = view(np.arange(24).reshape(6, 4))
    arrived = through(value)
    np.testing.assert_array_equal(arrived, value)
    assert arrived.dtype == value.dtype


def test_fortran_order_is_kept() -> None:
    assert through(np.asfortranarray(np.ones((3, 4)))).flags.f_contiguous


@pytest.mark.parametrize(
    "value",
    [
        np.arange(4),
        np.array(1),
        np.asfortranarray(np.ones((3, 4))),
        np.ones((3, 4))[:, ::2],
        np.array(["2024-02-29", "NaT"], "datetime64[ns]"),
        np.asfortranarray(np.ones((3, 4), "timedelta64[s]")),
    ],
    ids=["plain", "0-dim", "fortran", "strided", "dates", "fortran-deltas"],
)
@pytest.mark.parametrize("wrap", [lambda a: a, lambda a: [a], lambda a: {"k": (a,)}])
def test_an_array_arrives_read_only_wherever_it_is(value, wrap) -> None:
    arrived = through(wrap(value))
    while not isinstance(arrived, np.ndarray):
        arrived = next(iter(arrived.values())) if isinstance(arrived, dict) else arrived[0]
    assert not arrived.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        arrived[...] = 0


def test_an_array_of_objects_arrives() -> None:
    arrived = through(np.array([{"a": 1}, None, "x"], object))
    assert arrived.tolist() == [{"a": 1}, None, "x"]


def test_arrays_inside_a_value_travel_beside_the_pickle() -> None:
    encoded = encode({"a": np.zeros(10_000), "b": [np.ones(10_000)]})
    assert [memoryview(buffer).nbytes for buffer in encoded.buffers] == [80_000, 80_000]
    assert len(encoded.head) < 1000


@given(arrays, arrays)
def test_any_array_arrives_inside_a_value(one, other) -> None:
    arrived = through({"a": one, "b": [other, one.T]})
    for found, value in zip([arrived["a"], *arrived["b"]], [one, other, one.T], strict=True):
        assert_same_array(found, value)
        assert not found.flags.writeable


def test_headers_of_equal_arrays_are_made_once() -> None:
    assert encode(np.zeros(7)).head is encode(np.ones(7)).head


@pytest.mark.parametrize("ours", ["<i4", ">i4", "<u4", "<f4"])
def test_headers_of_arrays_that_differ_in_dtype_alone_are_kept_apart(ours) -> None:
    encode(np.zeros(5, "<i4"))
    assert_same_array(through(np.zeros(5, ours)), np.zeros(5, ours))


def test_more_shapes_than_the_cache_holds_arrive() -> None:
    assert [through(np.zeros(size, np.int8)).size for size in range(1200)] == list(range(1200))


# --- what cannot be sent --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (threading.Lock(), "value of type _thread.lock"),
        ([1, {"key": threading.Lock()}], "value[1]['key'] of type _thread.lock"),
        ((Holder(part=[Refuser()]),), f"value[0].part[0] of type {__name__}.Refuser"),
        (Refuser(lock=threading.Lock()), f"value of type {__name__}.Refuser"),
        ((item for item in ()), "value of type builtins.generator"),
    ],
    ids=["itself", "nested", "attribute", "refuser", "generator"],
)
def test_what_cannot_be_pickled_is_named_with_the_path_to_it(value, path) -> None:
    with pytest.raises(TypeError) as raised:
        encode(value)
    assert str(raised.value).startswith(f"cannot send {path}: it cannot be pickled (")


def test_the_reason_is_kept() -> None:
    with pytest.raises(TypeError, match=r"\(ValueError: not this one\)") as raised:
        encode([Refuser()])
    assert isinstance(raised.value.__cause__, ValueError)


def test_a_value_too_deep_to_pickle_is_refused() -> None:
    value: list = []
    for _ in range(100_000):
        value = [value]
    try:
        with pytest.raises(TypeError, match="cannot send value"):
            encode(value)
    finally:
        while value:  # taking it down in one go would recurse as deep
            value = value.pop()


def test_a_failure_half_way_leaves_nothing_behind_for_the_next() -> None:
    with pytest.raises(TypeError):
        encode([np.zeros(1000), Refuser()])
    np.testing.assert_array_equal(through([np.zeros(1000)])[0], np.zeros(1000))


# --- code of the user's script --------------------------------------------------------------------

SCRIPT = """
import sys
from compiled_dag.channel.codec import encode

class Thing:
    def twice(self):
        return 2 * self.x

thing = Thing()
thing.x = 21
scale = 3
value = [thing, lambda x: x * scale, Thing]
head = encode(value)
assert not head.buffers
sys.stdout.buffer.write(head.head)
"""


@pytest.mark.proc
def test_classes_and_functions_of_a_script_arrive_where_the_script_is_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, check=True, timeout=240
    )
    thing, function, kind = decode(int(Kind.PICKLE), done.stdout, [])
    assert thing.twice() == 42
    assert function(2) == 6
    assert isinstance(thing, kind)


def test_a_lambda_arrives() -> None:
    offset = 2
    assert through(lambda x: x + offset)(1) == 3


def test_a_module_arrives_by_name() -> None:
    assert through(types) is types


def test_by_value_carries_a_local_class() -> None:
    class Local:
        x = 3

    assert pickle.loads(dumps_by_value(Local())[0]).x == 3


def test_code_keeps_the_name_of_its_file_whatever_cloudpickle_does(monkeypatch):
    # As from cloudpickle 3.1.3 on: tracebacks of functions of __main__ would show no lines.
    by_cloudpickle = cloudpickle.Pickler.dispatch_table[types.CodeType]

    def without_file(code):
        kind, arguments = by_cloudpickle(code)
        return kind, tuple("<dynamic-code>" if arg == __file__ else arg for arg in arguments)

    monkeypatch.setitem(cloudpickle.Pickler.dispatch_table.maps[0], types.CodeType, without_file)
    function = through(lambda: 1)
    assert function() == 1
    assert function.__code__.co_filename == __file__
