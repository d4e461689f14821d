from __future__ import annotations

import builtins
import copy
import dataclasses
import errno
import json
import pickle
import sys
import threading

import pytest

from compiled_dag import TaskError
from compiled_dag.outcome import Error, Place

PLACE = Place(method="Worker.f", actor="Worker(3)", node=4, source="script.py:12")


class CodedError(Exception):
    """Its arguments are not what pickle calls `__init__` with."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"code {code}: {detail}")
        self.code = code


class LockedError(Exception):
    """It cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class ExplodingError(Exception):
    """It has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class PickyError(Exception):
    """No instance of it can be made without its argument."""

    def __new__(cls, code: int) -> PickyError:
        return super().__new__(cls, code)


class FinalError(Exception):
    """No class can be derived from it."""

    def __init_subclass__(cls) -> None:
        raise TypeError("final")


class NamesakeError(Exception):
    """It has attributes of its own under names that a task error uses."""

    def __init__(self, rank: int) -> None:
        super().__init__(rank)
        self.rank = rank


def failed(exception: BaseException, **known) -> Error:
    """Return the outcome of user code that raises `exception`."""
    try:
        raise exception
    except BaseException as caught:
        return Error.capture(caught, PLACE, **known)


def arrived(exception: BaseException, **known) -> TaskError:
    """Return what a `get` in another process raises."""
    return pickle.loads(pickle.dumps(failed(exception, **known))).exception()


@pytest.mark.parametrize(
    "exception",
    [
        ValueError("bad"),
        KeyError("key"),
        MemoryError("too much"),
        ZeroDivisionError(),
        FileNotFoundError(errno.ENOENT, "no such file", "/nowhere"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad byte"),
        json.JSONDecodeError("bad", "text", 0),
        StopIteration(3),
        NamesakeError(3),
    ],
    ids=lambda exception: type(exception).__name__,
)
def test_an_error_is_a_task_error_and_of_its_causes_class(exception) -> None:
    error = arrived(exception)
    assert isinstance(error, TaskError)
    assert isinstance(error, type(exception))
    assert type(error.cause) is type(exception)
    assert type(error).__name__ == f"TaskError({type(exception).__name__})"


def test_except_of_the_causes_class_catches_it() -> None:
    with pytest.raises(ValueError, match="bad") as raised:
        raise arrived(ValueError("bad"))
    assert isinstance(raised.value, TaskError)


def test_the_message_names_method_node_line_actor_execution_and_cause() -> None:
    error = arrived(ValueError("bad"), execution=7)
    first, *_ = str(error).splitlines()
    assert first == (
        "Worker.f (node 4, bound at script.py:12) on actor Worker(3), in execution 7, "
        "raised ValueError: bad"
    )


def test_the_message_names_the_rank_of_a_collective() -> None:
    assert "on actor Worker(3), rank 2, in execution 0, raised" in str(
        arrived(ValueError(), rank=2, execution=0)
    )


def test_what_is_known_is_on_the_error() -> None:
    error = arrived(ValueError("bad"), rank=2, execution=7)
    assert (error.rank, error.execution, error.actor) == (2, 7, "Worker(3)")
    assert error.node == "Worker.f (node 4, bound at script.py:12) on actor Worker(3)"
    assert repr(error.cause) == "ValueError('bad')"


def test_the_remote_traceback_shows_the_users_line() -> None:
    error = arrived(ValueError("bad"))
    assert "remote traceback:\nTraceback (most recent call last):" in str(error)
    assert "test_outcome.py" in error.traceback_text
    assert "raise exception" in error.traceback_text


def test_the_traceback_shows_what_caused_the_cause() -> None:
    try:
        try:
            int("x")
        except ValueError as inner:
            raise RuntimeError("outer") from inner
    except RuntimeError as outer:
        error = Error.capture(outer).exception()
    assert "invalid literal for int()" in error.traceback_text
    assert "direct cause" in error.traceback_text


def test_an_error_that_was_never_raised_has_no_traceback() -> None:
    error = Error.capture(ValueError("bad"), PLACE).exception()
    assert error.traceback_text == ""
    assert "remote traceback" not in str(error)


def test_an_ordinary_call_has_no_node_number() -> None:
    place = Place(method="Worker.f", actor="Worker(3)")
    text = str(Error.capture(ValueError("bad"), place).exception())
    assert text == "Worker.f on actor Worker(3), raised ValueError: bad"


@pytest.mark.parametrize(
    "exception", [KeyError("key"), FileNotFoundError(errno.ENOENT, "gone", "/nowhere")]
)
def test_classes_with_a_text_of_their_own_still_show_the_message(exception) -> None:
    assert str(arrived(exception)).startswith("Worker.f (node 4, ")


def test_attributes_of_the_cause_are_on_the_error() -> None:
    exception = ValueError("bad")
    exception.code = 42
    assert arrived(exception).code == 42


def test_attributes_of_builtin_causes_are_on_the_error() -> None:
    missing = arrived(FileNotFoundError(errno.ENOENT, "gone", "/nowhere"))
    assert (missing.errno, missing.strerror, missing.filename) == (errno.ENOENT, "gone", "/nowhere")
    assert arrived(StopIteration(3)).value == 3
    assert arrived(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")).object == b"\xff"


def test_attributes_that_a_task_error_has_too_are_on_the_cause() -> None:
    error = arrived(NamesakeError(3), rank=1)
    assert error.rank == 1
    assert error.cause.rank == 3


# --- causes that cannot travel, or cannot be combined ---------------------------------------------


@pytest.mark.parametrize(
    "exception",
    [LockedError("locked"), CodedError(3, detail="locked")],
    ids=lambda exception: type(exception).__name__,
)
def test_a_cause_that_cannot_be_pickled_leaves_its_text(exception) -> None:
    error = arrived(exception)
    assert type(error) is TaskError
    assert error.cause is None
    assert f"raised {type(exception).__name__}: " in str(error)
    assert "locked (the exception itself could not be pickled)" in str(error)


@pytest.mark.parametrize("exception", [PickyError(3), FinalError("x")])
def test_a_class_that_cannot_be_combined_gives_a_plain_task_error_with_the_cause(exception) -> None:
    error = arrived(exception)
    assert type(error) is TaskError
    assert type(error.cause) is type(exception)


def test_a_text_that_cannot_be_made_is_said_to_be_missing() -> None:
    assert "ExplodingError: <no text: its __str__ raised>" in str(arrived(ExplodingError()))


def test_a_cause_that_cannot_be_rebuilt_here_leaves_its_text_and_the_reason() -> None:
    error = dataclasses.replace(failed(ValueError("bad")), cause=b"no pickle").exception()
    assert type(error) is TaskError
    assert "raised ValueError: bad (the exception itself could not be rebuilt: " in str(error)


def test_what_is_no_exception_is_not_taken_for_one() -> None:
    error = dataclasses.replace(failed(ValueError("bad")), cause=pickle.dumps(3)).exception()
    assert "the exception pickles as something else" in str(error)


def test_an_error_that_is_no_exception_of_users_is_not_caught_as_one() -> None:
    error = arrived(GeneratorExit("bad"))
    assert isinstance(error, Exception)
    assert type(error.cause) is GeneratorExit


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_an_exception_group_keeps_its_members() -> None:
    ExceptionGroup = builtins.ExceptionGroup  # noqa: N806  not there in 3.10
    error = arrived(ExceptionGroup("several", [ValueError("one"), KeyError("two")]))
    assert isinstance(error, ExceptionGroup)
    assert [type(member) for member in error.exceptions] == [ValueError, KeyError]
    assert "several (2 sub-exceptions)" in str(error)
    matched, rest = error.split(ValueError)
    assert [repr(member) for member in matched.exceptions] == ["ValueError('one')"]
    assert [repr(member) for member in rest.exceptions] == ["KeyError('two')"]


# --- task errors that travel on -------------------------------------------------------------------


def test_a_task_error_survives_pickling_with_all_it_knows() -> None:
    error = arrived(ValueError("bad"), rank=2, execution=7)
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    known = ("rank", "execution", "node", "actor", "traceback_text")
    assert all(getattr(copied, name) == getattr(error, name) for name in known)


def test_a_task_error_can_be_copied() -> None:
    error = arrived(ValueError("bad"))
    assert str(copy.copy(error)) == str(error)
    assert isinstance(copy.deepcopy(error), ValueError)


def test_a_task_error_of_a_task_error_is_still_of_the_first_causes_class() -> None:
    inner = arrived(ValueError("bad"))
    outer = arrived(inner, execution=9)
    assert isinstance(outer, ValueError)
    assert type(outer) is type(inner)
    assert outer.execution == 9
    assert isinstance(outer.cause, TaskError)
    assert repr(outer.cause.cause) == "ValueError('bad')"


def test_two_errors_of_one_class_are_of_one_class() -> None:
    assert type(arrived(ValueError("a"))) is type(arrived(ValueError("b")))


# --- on the way -----------------------------------------------------------------------------------


def test_rank_and_execution_are_filled_in_once() -> None:
    error = failed(ValueError("bad"))
    there = error.at(rank=1, execution=5)
    assert (there.rank, there.execution) == (1, 5)
    assert there.at(rank=2, execution=6) == there


def test_a_shortened_error_keeps_the_head_of_the_text_and_the_tail_of_the_traceback() -> None:
    short = failed(ValueError("bad" + "x" * 5000)).shortened(100)
    assert short.cause is None
    assert short.summary == "ValueError: bad" + "x" * 85
    assert short.traceback_text.endswith("xxx\n")
    assert len(short.traceback_text) == 100
