from __future__ import annotations

import pytest

from compiled_dag.compute import Report, bind_compute
from compiled_dag.outcome import Error
from compiled_dag.table import parse_step

STEP = 7


class Bound:
    """A compute step over slots, and what it noted."""

    def __init__(self, text: str, method, constants=()) -> None:
        self.words = memoryview(bytearray(16)).cast("Q")
        report = Report(self.words, 0, 1, STEP)
        self.step = parse_step(text)
        self.run = bind_compute(self.step, method, dict(enumerate(constants)), report, failed)

    def __call__(self, *values):
        slots = [*values, None, None, None]
        self.run(slots)
        results = [slots[slot] for slot in self.step.results]
        return results[0] if len(results) == 1 else results


def failed(error: BaseException) -> Error:
    return Error.capture(error)


def given(*args, **kwargs):
    return args, kwargs


def refuse(*_args, **_kwargs):
    raise AssertionError("it was called")


def fail(*_args):
    raise ValueError("bad")


ERROR = Error.capture(ValueError("earlier"))


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("C0 v2=f(v0)", [1, 2], ((1,), {})),
        ("C0 v2=f(v1, v0)", [1, 2], ((2, 1), {})),
        ("C0 v2=f(v0, v0)", [1, 2], ((1, 1), {})),
        ("C0 v2=f()", [1, 2], ((), {})),
        ("C0 v2=f(c0)", [1, 2], (("a",), {})),
        ("C0 v2=f(k=v1)", [1, 2], ((), {"k": 2})),
        (
            "C0 v2=f([v0, {c0: (v1, c1)}], c1, k=[v0])",
            [1, 2],
            (([1, {"a": (2, "b")}], "b"), {"k": [1]}),
        ),
    ],
)
def test_arguments_are_gathered_from_slots_and_constants(text, values, expected) -> None:
    assert Bound(text, given, ["a", "b"])(*values) == expected


@pytest.mark.parametrize(
    "text",
    [
        "C0 v2=f(v0)",
        "C0 v2=f(v1, v0)",
        "C0 v2=f([{c0: v0}])",
        "C0 v2=f(v1, k=(v0,))",
        "C0 v1,v2,=f(v0)",
    ],
)
def test_an_error_among_the_arguments_is_the_result_and_nothing_is_called(text) -> None:
    bound = Bound(text, refuse, ["a"])
    results = bound(ERROR, 2)
    assert results in (ERROR, [ERROR, ERROR])
    assert bound.words[0] == 0


def test_the_first_error_in_the_order_of_the_arguments_is_passed_on() -> None:
    other = Error.capture(ValueError("other"))
    assert Bound("C0 v2=f(v1, v0)", refuse)(ERROR, other) is other


@pytest.mark.parametrize("text", ["C0 v2=f(v0)", "C0 v2=f(v0, v1)"])
def test_an_exception_becomes_an_error(text) -> None:
    result = Bound(text, fail)(1, 2)
    assert isinstance(result, Error)
    assert result.summary == "ValueError: bad"


@pytest.mark.parametrize("text", ["C0 v2=f(v0)", "C0 v2=f(v0, v1)"])
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_the_actor_is_not_held_up(text, kind) -> None:
    def end(*_args) -> None:
        raise kind

    with pytest.raises(kind):
        Bound(text, end)(1, 2)


def test_several_returns_go_to_their_slots() -> None:
    assert Bound("C0 v2,v1,=f(v0)", lambda value: (value, "b"))(1, 2) == [1, "b"]


@pytest.mark.parametrize("value", [(1,), [1, 2, 3], 5, "ab", None, {1: 2}])
def test_a_wrong_number_of_returns_is_an_error_for_each(value) -> None:
    results = Bound("C0 v1,v2,=f(v0)", lambda _: value)(1)
    assert [result.summary.startswith("ValueError: num_returns=2, but") for result in results] == [
        True,
        True,
    ]


@pytest.mark.parametrize("text", ["C0 v2=f(v0)", "C0 v2=f(v0, v1)"])
def test_the_step_is_noted_before_the_method_runs(text) -> None:
    seen = []
    bound = Bound(text, lambda *_args: seen.append((bound.words[0], bound.words[1] > 0)))
    bound(1, 2)
    assert seen == [(STEP, True)]
