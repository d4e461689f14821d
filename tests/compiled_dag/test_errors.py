from __future__ import annotations

import inspect
import pickle

import pytest

import compiled_dag
from compiled_dag import errors
from compiled_dag.errors import ActorDiedError, ExecutorError, GraphActorDiedError

CLASSES = [item for _, item in inspect.getmembers(errors, inspect.isclass)
           if item.__module__ == errors.__name__]  # fmt: skip


def test_every_class_is_exported_here_and_from_the_package() -> None:
    assert {item.__name__ for item in CLASSES} == set(errors.__all__)
    assert set(errors.__all__) <= set(compiled_dag.__all__)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_is_an_executor_error_and_says_what_it_means(kind) -> None:
    assert issubclass(kind, ExecutorError)
    assert kind.__doc__


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_survives_pickling(kind) -> None:
    copy = pickle.loads(pickle.dumps(kind("it broke")))
    assert type(copy) is kind
    assert str(copy) == "it broke"


@pytest.mark.parametrize("kind", [ActorDiedError, GraphActorDiedError])
def test_what_is_known_of_a_death_survives_pickling(kind) -> None:
    known = {
        "exit_code": 3,
        "signal": "SIGSEGV",
        "node": "Worker.f (node 1)",
        "execution": 7,
        "stderr_tail": "last words",
    }
    copy = pickle.loads(pickle.dumps(kind("it died", **known, cause=ValueError("bad"))))
    assert {name: getattr(copy, name) for name in known} == known
    assert repr(copy.cause) == "ValueError('bad')"


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (errors.OwnerDiedError, errors.ObjectLostError),
        (errors.ActorUnavailableError, errors.ActorError),
        (errors.GraphActorDiedError, errors.ActorDiedError),
        (errors.GraphActorDiedError, errors.ChannelError),
        (errors.ChannelClosedError, errors.ChannelError),
        (errors.ChannelTimeoutError, errors.ChannelError),
        (errors.ChannelError, errors.SystemFaultError),
        (errors.CapacityExceededError, errors.SystemFaultError),
        (errors.ExecutionDroppedError, errors.CapacityExceededError),
        (errors.MemoryCapError, errors.CapacityExceededError),
        (errors.DeserializationError, errors.SystemFaultError),
        (errors.DeadlockError, errors.GraphError),
        (errors.CollectiveMismatchError, errors.CollectiveError),
        (errors.CollectiveTimeoutError, errors.CollectiveError),
    ],
)
def test_who_catches_the_wider_class_catches_the_narrower(kind, base) -> None:
    assert issubclass(kind, base)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.GraphError, ValueError),
        (errors.GraphUsageError, AssertionError),
        (errors.ChannelTimeoutError, TimeoutError),
        (errors.GetTimeoutError, TimeoutError),
        (errors.CollectiveMismatchError, ValueError),
        (errors.CollectiveTimeoutError, TimeoutError),
        (errors.ActorAlreadyExistsError, ValueError),
        (errors.ActorClassInheritanceError, TypeError),
    ],
)
def test_errors_with_a_builtin_name_for_them_are_of_that_class_too(kind, builtin) -> None:
    assert issubclass(kind, builtin)
