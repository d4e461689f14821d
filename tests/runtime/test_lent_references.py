"""References and handles inside values of graphs: kept as long as somebody may need them."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

import runtime
from compiled_dag import InputNode
from tests.crew import wait_for_file
from tests.live import LONG_S
from tests.runtime.actors import wait_until_dead

pytestmark = pytest.mark.proc


@runtime.remote
class Keeper:
    def __init__(self):
        self.kept = None

    def pid(self):
        import os

        return os.getpid()

    def value(self, held):
        return runtime.get(held["ref"])

    def make(self, number):
        return {"ref": runtime.put([number])}

    def keep(self, held):
        if "path" in held:
            wait_for_file(held["path"])
        self.kept, before = held, self.kept
        return before is not None

    def fail(self, held):
        raise HoldsError(held)

    def drop(self, _):
        self.kept = None

    def drive(self, other):
        """Compile a graph here, and send references that nobody else has."""
        with InputNode() as inp:
            graph = other.value.bind(inp).experimental_compile()
        with graph:
            return [graph.execute({"ref": runtime.put(n)}).get(LONG_S) for n in range(3)]


@runtime.remote
def fail(held):
    raise HoldsError(held)


def compiled(*methods, **options):
    with InputNode() as node:
        for method in methods:
            node = method.bind(node)  # noqa: PLW2901  a chain
    return node.experimental_compile(**options)


def end_of(ref) -> threading.Event:
    gone = threading.Event()
    weakref.finalize(ref, gone.set)
    return gone


def test_what_an_input_refers_to_goes_when_the_actors_have_taken_it(session) -> None:
    keeper, other = Keeper.remote(), Keeper.remote()
    with compiled(keeper.value) as values, compiled(keeper.keep, other.drop) as kept:
        ref = runtime.put("a value")
        gone, result = end_of(ref), values.execute({"ref": ref})
        del ref
        assert result.get(LONG_S) == "a value"
        assert gone.wait(LONG_S)

        ref = runtime.put("kept by the actor")
        gone, result = end_of(ref), kept.execute({"ref": ref})
        del ref
        result.get(LONG_S)
        assert runtime.get(keeper.value.remote({"ref": runtime.put(1)})) == 1
        assert not gone.is_set()
        with compiled(keeper.drop) as dropping:
            dropping.execute(0).get(LONG_S)
            assert gone.wait(LONG_S)


def test_a_handle_in_an_input_keeps_its_actor_as_long_as_it_is_needed(session) -> None:
    keeper, other = Keeper.remote(), Keeper.remote()
    pid = runtime.get(other.pid.remote())
    with compiled(keeper.keep) as graph, compiled(keeper.drop) as dropping:
        result = graph.execute({"actor": other})
        del other
        result.get(LONG_S)
        assert runtime.get(keeper.pid.remote()) != pid
        assert wait_until_dead([pid], 0) == [pid]
        dropping.execute(0).get(LONG_S)
        assert not wait_until_dead([pid], LONG_S)


def test_what_an_actor_lends_goes_with_its_next_message_or_the_graph(session) -> None:
    maker, keeper = Keeper.remote(), Keeper.remote()
    with InputNode() as inp:
        made = maker.make.bind(inp)
        graph = keeper.value.bind(made).experimental_compile()
    with InputNode() as inp:
        returned = maker.make.bind(inp).experimental_compile()
    with graph, returned:
        assert [graph.execute(n).get(LONG_S) for n in range(12)] == [[n] for n in range(12)]
        first = returned.execute(1).get(LONG_S)["ref"]
        gone = end_of(first)
        del first
        last = returned.execute(2).get(LONG_S)["ref"]
        assert gone.wait(LONG_S)
        assert runtime.get(last) == [2]
        gone = end_of(last)
        del last
    assert gone.wait(LONG_S)


def test_inputs_that_wait_keep_what_they_refer_to(session, tmp_path) -> None:
    keeper = Keeper.remote()
    gate = tmp_path / "gate"
    options = {"_capacity_policy": "queue", "_max_inflight_executions": 1}
    with compiled(keeper.keep, **options) as graph:
        first = graph.execute({"path": str(gate)})
        ref = runtime.put("late")
        gone, second = end_of(ref), graph.execute({"ref": ref})
        del ref
        gate.touch()
        assert first.get(LONG_S) is False
        assert second.get(LONG_S) is True
        assert runtime.get(keeper.keep.remote({})) is True
        assert gone.wait(LONG_S)


def test_an_input_that_is_refused_keeps_nothing(session) -> None:
    with compiled(Keeper.remote().keep, _max_memory_bytes=1 << 20) as graph:
        ref = runtime.put(1)
        gone = end_of(ref)
        with pytest.raises(TypeError, match="cannot be pickled"):
            graph.execute([ref, threading.Lock()])
        with pytest.raises(runtime.exceptions.MemoryCapError):
            graph.execute({"ref": ref, "large": bytes(2 << 20)})
        del ref
        assert gone.wait(LONG_S)


class HoldsError(Exception):
    def __init__(self, held):
        super().__init__("it holds a reference")
        self.held = held


def test_what_an_exception_refers_to_goes_with_it(session) -> None:
    keeper, other = Keeper.remote(), Keeper.remote()
    with compiled(keeper.fail, other.drop) as graph:
        for call in (
            lambda ref: graph.execute({"ref": ref}).get(LONG_S),
            lambda ref: runtime.get(keeper.fail.remote({"ref": ref}), timeout=LONG_S),
            lambda ref: runtime.get(fail.remote({"ref": ref}), timeout=LONG_S),
        ):
            ref = runtime.put("a value")
            gone = end_of(ref)
            with pytest.raises(HoldsError) as raised:
                call(ref)
            del ref
            assert runtime.get(raised.value.held["ref"]) == "a value"
            assert runtime.get(raised.value.cause.held["ref"]) == "a value"
            assert not gone.is_set()
            del raised
            graph_goes_on(graph)
            gc.collect()
            assert gone.wait(LONG_S)


def graph_goes_on(graph) -> None:
    """Have what writers kept for the last message go with the next one."""
    with pytest.raises(HoldsError):
        graph.execute({}).get(LONG_S)


def test_references_in_values_of_a_graph_that_an_actor_drives(session) -> None:
    driver, other = Keeper.remote(), Keeper.remote()
    assert runtime.get(driver.drive.remote(other), timeout=LONG_S) == [0, 1, 2]
