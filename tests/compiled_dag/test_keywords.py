"""Misspelt keywords are told alike by all that users call."""

from __future__ import annotations

import inspect

import pytest

import collective
import compiled_dag
import runtime
import runtime.testing
import runtime.util
from compiled_dag import DAGContext, InputNode, TorchTensorType
from compiled_dag.driver import CompiledDAG
from compiled_dag.keywords import choice, nearest, refuse_unknown, strict_init, strict_keywords
from compiled_dag.node import DAGNode
from compiled_dag.options import CompileOptions
from runtime.util.queue import Queue
from runtime.util.serialization import register_serializer

FUNCTIONS = [
    runtime.cancel, runtime.get, runtime.get_actor, runtime.kill, runtime.put, runtime.shutdown,
    runtime.timeline, runtime.wait, runtime.testing.check_communicator,
    runtime.util.as_completed, runtime.util.map_unordered, register_serializer, Queue,
    compiled_dag.plot, compiled_dag.register_accelerator_context, DAGContext, TorchTensorType,
    compiled_dag.AutoTransportType, collective.create_collective_group,
    collective.destroy_collective_group, collective.get_collective_groups,
    collective.get_collective_group_size, collective.get_group_handle, collective.get_rank,
    collective.init_collective_group, collective.is_group_initialized, collective.recv,
    collective.register_collective_backend, collective.send,
]  # fmt: skip
METHODS = [
    (DAGNode, "experimental_compile"),
    (DAGNode, "with_tensor_transport"),
    *((CompiledDAG, name) for name in ("teardown", "timeline", "trace", "visualize")),
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_functions_and_classes_tell_the_name_that_may_be_meant_and_all_there_are(function) -> None:
    names = [name for name in inspect.signature(function).parameters if name != "unknown"]
    text = rf"^{function.__name__}\(\) got an unexpected keyword argument '{names[-1]}_'; "
    text += rf"did you mean '{names[-1]}'\? Known: {', '.join(names)}$"
    with pytest.raises(TypeError, match=text):
        function(*[None] * (function is runtime.get), **{f"{names[-1]}_": None})


@pytest.mark.parametrize(("cls", "name"), METHODS)
def test_methods_do_so_too(cls, name) -> None:
    method = getattr(cls, name)
    _, *names = inspect.signature(method).parameters
    text = rf"^{name}\(\) got an unexpected keyword argument 'x{names[0]}'; did you mean "
    with pytest.raises(TypeError, match=rf"{text}'{names[0]}'\? Known: {', '.join(names)}$"):
        method(object(), **{f"x{names[0]}": None})


def test_the_options_of_compile_are_found_without_their_underscore() -> None:
    with InputNode() as inp, pytest.raises(TypeError) as raised:
        inp.experimental_compile(max_inflight_executions=3)
    assert "did you mean '_max_inflight_executions'?" in str(raised.value)
    assert "Known: _submit_timeout, _buffer_size_bytes, enable_asyncio, " in str(raised.value)


def test_a_field_that_the_context_has_not_is_refused_when_it_is_set() -> None:
    context = DAGContext()
    with pytest.raises(AttributeError, match=r"no field 'get_timeouts'; did you mean 'get_timeo"):
        context.get_timeouts = 3
    context.get_timeout = 3
    assert context.get_timeout == 3
    assert CompileOptions.resolve().get_timeout_s == DAGContext.get_current().get_timeout


def test_nothing_is_near_and_the_names_are_told_all_the_same() -> None:
    assert nearest("zzz", ["one", "two"]) == ""
    assert nearest("on", ["one", "ton"]) == "; did you mean 'ton' or 'one'?"
    assert choice("zzz", ["one", "two"]) == ". Known: one, two"
    assert choice("on", ["one", "ton"]) == "; did you mean 'ton'? Known: one, ton"


def test_what_is_strict_does_what_it_did() -> None:
    @strict_keywords
    def function(first, /, second=2, *, third=3):
        """Return them."""
        return first, second, third

    assert function(1) == (1, 2, 3)
    assert function(1, third=4, second=5) == (1, 5, 4)
    assert function.__doc__ == "Return them."
    assert str(inspect.signature(function)) == "(first, /, second=2, *, third=3)"
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'first'.* Known: second, th"):
        function(1, first=1)
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'first'"):
        function()


def test_a_class_is_told_by_its_name() -> None:
    @strict_init
    class Thing:
        def __init__(self, size: int = 0) -> None:
            self.size = size

    assert Thing(size=3).size == 3
    with pytest.raises(TypeError, match=r"Thing\(\) got an unexpected keyword argument 'sise'"):
        Thing(sise=3)


def test_no_unknown_keywords_are_no_mistake() -> None:
    refuse_unknown(runtime.get, {})


@pytest.mark.parametrize(
    ("module", "wrong", "meant"),
    [
        (runtime, "gets", "get"),
        (compiled_dag, "InputNodes", "InputNode"),
        (collective, "all_reduce", "allreduce"),
    ],
)
def test_a_name_that_a_package_has_not_is_told_with_the_one_that_may_be_meant(
    module, wrong, meant
) -> None:
    text = rf"^module '{module.__name__}' has no attribute '{wrong}'; did you mean '{meant}'"
    with pytest.raises(AttributeError, match=text):
        getattr(module, wrong)
    with pytest.raises(AttributeError, match=r"has no attribute '__wrong__'$"):
        getattr(module, "__wrong__")  # noqa: B009  mypy knows that there is none
