from __future__ import annotations

import math

import pytest

from compiled_dag import CompileOptions, DAGContext, GraphError
from compiled_dag.options import is_seconds, teardown_timeout_s
from tests.communicators import Bare


@pytest.fixture(autouse=True)
def _fresh_context(monkeypatch) -> None:
    monkeypatch.setattr(DAGContext, "_current", None)
    monkeypatch.setattr(DAGContext, "_made", None)


def test_defaults_are_the_documented_ones() -> None:
    assert CompileOptions.resolve() == CompileOptions(
        submit_timeout_s=10.0,
        get_timeout_s=10.0,
        compile_timeout_s=60.0,
        buffer_size_bytes=1_000_000,
        max_inflight=10,
        max_buffered_results=1000,
        max_memory_bytes=None,
        capacity_policy="raise",
        default_communicator="create",
    )


@pytest.mark.parametrize(
    ("variable", "text", "option", "value"),
    [
        ("SUBMIT_TIMEOUT", "2.5", "submit_timeout_s", 2.5),
        ("GET_TIMEOUT", "-1", "get_timeout_s", -1.0),
        ("COMPILE_TIMEOUT", "5", "compile_timeout_s", 5.0),
        ("BUFFER_SIZE_BYTES", "4096", "buffer_size_bytes", 4096),
        ("MAX_INFLIGHT_EXECUTIONS", "3", "max_inflight", 3),
        ("MAX_BUFFERED_RESULTS", "7", "max_buffered_results", 7),
        ("MAX_MEMORY_BYTES", "100000", "max_memory_bytes", 100_000),
        ("FUNCTION_WORKERS", "3", "function_workers", 3),
        ("CAPACITY_POLICY", "block", "capacity_policy", "block"),
        ("MAX_QUEUED_EXECUTIONS", "5", "max_queued", 5),
        ("READ_ITERATION_TIMEOUT", "0.5", "wait_slice_s", 0.5),
        ("OVERLAP_GPU_COMMUNICATION", "1", "overlap_gpu_communication", True),
    ],
)
def test_the_environment_sets_a_default(monkeypatch, variable, text, option, value) -> None:
    monkeypatch.setenv(f"COMPILED_DAG_{variable}", text)
    assert getattr(CompileOptions.resolve(), option) == value


@pytest.mark.parametrize("option", ["enable_asyncio", "_overlap_gpu_communication"])
def test_a_switch_is_true_or_false(option) -> None:
    assert getattr(CompileOptions.resolve(**{option: True}), option.lstrip("_")) is True
    for wrong in (1, "yes"):
        with pytest.raises(GraphError, match=f"{option}={wrong!r} is not True or False"):
            CompileOptions.resolve(**{option: wrong})


def test_an_argument_wins_over_the_context_and_that_over_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("COMPILED_DAG_MAX_INFLIGHT_EXECUTIONS", "3")
    assert CompileOptions.resolve().max_inflight == 3
    DAGContext.get_current().max_inflight_executions = 4
    assert CompileOptions.resolve().max_inflight == 4
    assert CompileOptions.resolve(_max_inflight_executions=5).max_inflight == 5


def test_changes_are_told_and_applied_over_another_environment(monkeypatch) -> None:
    assert DAGContext.changes() == {}
    monkeypatch.setenv("COMPILED_DAG_GET_TIMEOUT", "3")
    DAGContext.get_current().max_inflight_executions = 4
    assert DAGContext.changes() == {"max_inflight_executions": 4}
    monkeypatch.setattr(DAGContext, "_current", None)
    monkeypatch.setenv("COMPILED_DAG_GET_TIMEOUT", "5")
    DAGContext.apply({"max_inflight_executions": 4})
    context = DAGContext.get_current()
    assert (context.get_timeout, context.max_inflight_executions) == (5.0, 4)


def test_the_environment_is_read_once(monkeypatch) -> None:
    first = DAGContext.get_current()
    monkeypatch.setenv("COMPILED_DAG_GET_TIMEOUT", "3")
    assert DAGContext.get_current() is first
    assert first.get_timeout == 10.0


def test_a_malformed_variable_is_named_with_its_value(monkeypatch) -> None:
    monkeypatch.setenv("COMPILED_DAG_GET_TIMEOUT", "soon")
    with pytest.raises(ValueError, match=r"COMPILED_DAG_GET_TIMEOUT='soon' is not a number"):
        DAGContext.get_current()


def test_a_value_out_of_range_is_called_by_where_it_comes_from(monkeypatch) -> None:
    monkeypatch.setenv("COMPILED_DAG_GET_TIMEOUT", "nan")
    with pytest.raises(GraphError, match=r"^environment variable COMPILED_DAG_GET_TIMEOUT=nan is"):
        CompileOptions.resolve()
    with pytest.raises(GraphError, match=r"^_get_timeout=-2 is not a number of seconds"):
        CompileOptions.resolve(_get_timeout=-2)
    DAGContext.get_current().get_timeout = -3
    with pytest.raises(GraphError, match=r"^DAGContext.get_timeout=-3 is not a number of seconds"):
        CompileOptions.resolve()


@pytest.mark.parametrize("name", ["ENABLE_PROFILING", "OVERLAP_GPU_COMMUNICATION"])
def test_a_switch_that_is_neither_on_nor_off_is_warned_about(monkeypatch, name) -> None:
    monkeypatch.setenv(f"COMPILED_DAG_{name}", "maybe")
    with pytest.warns(RuntimeWarning, match=f"COMPILED_DAG_{name}='maybe' counts as off: 1 or tr"):
        options = CompileOptions.resolve()
    assert not options.profiling.records
    assert not options.overlap_gpu_communication


def test_a_slice_that_was_chosen_may_not_be_longer_than_the_time_out() -> None:
    context = DAGContext.get_current()
    assert CompileOptions.resolve(_get_timeout=0.01).wait_slice_s == 0.1
    context.read_iteration_timeout = 0.5
    assert CompileOptions.resolve(_get_timeout=-1).wait_slice_s == 0.5
    with pytest.raises(ValueError, match=r"read_iteration_timeout=0.5 is longer than get_timeout"):
        CompileOptions.resolve(_get_timeout=0.2)
    for wrong in (0, -1, math.inf, "1"):
        context.read_iteration_timeout = wrong
        with pytest.raises(GraphError, match="read_iteration_timeout=.* is not a number of secon"):
            CompileOptions.resolve()


def test_enable_asyncio_is_there_and_no_variable_sets_it(monkeypatch) -> None:
    monkeypatch.setenv("COMPILED_DAG_ENABLE_ASYNCIO", "1")
    assert DAGContext.get_current().enable_asyncio is False


COUNTS = [
    "_buffer_size_bytes",
    "_max_inflight_executions",
    "_max_buffered_results",
    "_max_queued_executions",
]
SECONDS = ["_submit_timeout", "_get_timeout"]


@pytest.mark.parametrize("option", [*COUNTS, "_max_memory_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "10"])
def test_a_count_out_of_range_is_refused_by_name(option, value) -> None:
    with pytest.raises(GraphError, match=f"^{option}={value!r} is not an integer of at least 1"):
        CompileOptions.resolve(**{option: value})


@pytest.mark.parametrize("option", SECONDS)
@pytest.mark.parametrize("value", [-2, -0.5, math.nan, True, "10"])
def test_a_time_out_of_range_is_refused_by_name(option, value) -> None:
    with pytest.raises(GraphError, match=f"^{option}={value!r} is not a number of seconds"):
        CompileOptions.resolve(**{option: value})


def test_an_unknown_capacity_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        GraphError, match=r"_capacity_policy='drop' is not one of 'raise', 'block', 'qu"
    ):
        CompileOptions.resolve(_capacity_policy="drop")


@pytest.mark.parametrize("value", [None, "create", Bare([])])
def test_no_default_communicator_is_a_choice_too(value) -> None:
    options = CompileOptions.resolve(_default_communicator=value)
    assert options.default_communicator is value


@pytest.mark.parametrize("value", ["nccl", 3, Bare, False])
def test_another_default_communicator_is_refused(value) -> None:
    with pytest.raises(GraphError, match="is not 'create', a Communicator, or None"):
        CompileOptions.resolve(_default_communicator=value)


def test_a_wrong_value_in_the_context_is_refused_at_compile() -> None:
    DAGContext.get_current().max_inflight_executions = 0
    with pytest.raises(GraphError, match="^DAGContext.max_inflight_executions=0 is"):
        CompileOptions.resolve()


@pytest.mark.parametrize("value", [-1, math.inf, math.nan])
def test_compile_never_waits_for_ever(value) -> None:
    DAGContext.get_current().compile_timeout = value
    with pytest.raises(
        GraphError, match="^DAGContext.compile_timeout=.* is not a number of seconds, 0 or"
    ):
        CompileOptions.resolve()


@pytest.mark.parametrize("value", [-1, math.inf, math.nan, "10", True, None])
def test_a_wrong_teardown_timeout_is_refused_at_compile_and_at_teardown(value) -> None:
    DAGContext.get_current().teardown_timeout = value
    for use in (CompileOptions.resolve, teardown_timeout_s):
        with pytest.raises(GraphError, match=r"^teardown_timeout=.* is not a .*: set DAGContext"):
            use()


def test_a_wrong_option_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match="_max_inflight_executions"):
        CompileOptions.resolve(_max_inflight_executions=0)


@pytest.mark.parametrize(
    ("value", "is_time"),
    [(0, True), (-1, True), (2.5, True), (math.inf, True), (-2, False), (math.nan, False)],
)
def test_a_time_is_not_negative_or_minus_one(value, is_time) -> None:
    assert is_seconds(value) == is_time


def test_options_cannot_be_changed_after_compile() -> None:
    with pytest.raises(AttributeError):
        CompileOptions().max_inflight = 3


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("True", True), ("0", False), ("", False), ("off", False)]
)
@pytest.mark.parametrize("name", ["visualize_schedule", "enable_detect_deadlock"])
def test_a_switch_in_the_environment(monkeypatch, name, text, value) -> None:
    monkeypatch.setenv(f"COMPILED_DAG_{name.upper()}", text)
    assert getattr(DAGContext.from_environment(), name) is value
    monkeypatch.setattr(DAGContext, "_current", DAGContext.from_environment())
    assert getattr(CompileOptions.resolve(), name) is value
