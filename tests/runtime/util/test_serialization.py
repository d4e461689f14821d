"""Serializers of users' own, and what keeps a value from being sent."""

from __future__ import annotations

import io
import threading

import pytest

import runtime
from compiled_dag import InputNode
from runtime import ids
from runtime.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from runtime.util.serialization import (
    deregister_serializer,
    inspect_serializability,
    register_serializer,
)


class Connection:
    """What pickle refuses."""

    def __init__(self, address):
        self.address = address
        self.lock = threading.Lock()


@runtime.remote
class Reader:
    def address(self, connection):
        return connection.address

    def open(self, address):
        register()
        return Connection(address)


def register():
    register_serializer(Connection, serializer=lambda c: c.address, deserializer=Connection)


@pytest.mark.proc
def test_a_serializer_counts_for_calls_objects_and_graphs(session) -> None:
    register()
    try:
        reader = Reader.remote()
        connection = Connection("here")
        assert runtime.get(reader.address.remote(connection)) == "here"
        assert runtime.get(runtime.put([connection]))[0].address == "here"
        assert runtime.get(reader.open.remote("there")).address == "there"
        with InputNode() as inp:
            dag = reader.address.bind(inp)
        with dag.experimental_compile() as compiled:
            assert runtime.get(compiled.execute(connection)) == "here"
    finally:
        deregister_serializer(Connection)
    deregister_serializer(Connection)
    with pytest.raises(TypeError, match="lock"):
        runtime.put(connection)


def test_what_is_registered_must_be_a_class_and_functions() -> None:
    with pytest.raises(TypeError, match="takes a class, not 3"):
        register_serializer(3, serializer=str, deserializer=int)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="deserializer=None cannot be called"):
        register_serializer(Connection, serializer=str, deserializer=None)  # type: ignore[arg-type]


def test_what_can_be_sent_is_found_so() -> None:
    out = io.StringIO()
    assert inspect_serializability({"a": [1]}, name="mine", print_file=out) == (True, set())
    assert out.getvalue() == "mine can be sent\n"


def test_the_culprits_are_found_in_attributes_containers_and_closures() -> None:
    out = io.StringIO()
    held = {"list": [1, Connection("a")]}

    def function():
        return held

    fine, failures = inspect_serializability(function, depth=5, print_file=out)
    assert not fine
    (failure,) = failures
    assert failure.name == "lock"
    assert failure.obj is held["list"][1].lock
    assert failure.parent is held["list"][1]
    assert "cannot be sent, because of\n  lock: " in out.getvalue()
    _, shallow = inspect_serializability(held, depth=1, print_file=out)
    assert [failure.name for failure in shallow] == ["['list']"]


def test_affinity_to_the_one_machine() -> None:
    assert NodeAffinitySchedulingStrategy(ids.NODE, soft=False).node_id == ids.NODE
    assert NodeAffinitySchedulingStrategy("another", soft=True).soft
    with pytest.raises(ValueError, match="node_id='another': there is one machine"):
        NodeAffinitySchedulingStrategy("another", soft=False)
