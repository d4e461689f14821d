"""Compile options and their defaults: argument, then `DAGContext`, then environment, then default.

`DAGContext` is one mutable object per process, made on first use (when the environment is read). A
graph copies it into a frozen `CompileOptions` at compile.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, get_args

from compiled_dag import environment
from compiled_dag.communicator import Communicator
from compiled_dag.errors import GraphError
from compiled_dag.keywords import choice, strict_init
from compiled_dag.notice import warn

CapacityPolicy = Literal["raise", "block", "queue", "drop_oldest"]

_NOT_IN_ENVIRONMENT: Final = ("enable_asyncio",)
_DEFAULT_SLICE_S: Final = 0.1
_DEFAULT_BUFFER: Final = 1_000_000


@strict_init
@dataclass(slots=True)
class DAGContext:
    """Defaults for graphs compiled in this process. Change its fields, then compile.

    Environment: ``COMPILED_DAG_<FIELD>`` in capitals, for example ``COMPILED_DAG_GET_TIMEOUT``.
    """

    submit_timeout: float = 10.0
    """Seconds `execute` waits for room; 0 not at all, -1 for ever."""
    get_timeout: float = 10.0
    """Seconds `get` waits by default; 0 polls, -1 for ever."""
    teardown_timeout: float = 30.0
    """Seconds `teardown` waits for the actors."""
    compile_timeout: float = 60.0
    """Seconds compile waits for the actors."""
    buffer_size_bytes: int = _DEFAULT_BUFFER
    """First capacity of a payload slot; channels grow by themselves. Unless it is chosen, it is
    less where `max_memory_bytes` is too little for two such slots in every channel."""
    max_inflight_executions: int = 10
    """Executions that may be unfetched at one time."""
    max_buffered_results: int = 1000
    """Fetched results the driver keeps for refs not got yet."""
    max_memory_bytes: int | None = None
    """Cap on the payload memory of one graph, on hosts and GPUs, or None."""
    function_workers: int | None = None
    """Processes for calls of functions, in each graph; None: as many as can run at once."""
    capacity_policy: CapacityPolicy = "raise"
    """What `execute` does when `max_inflight_executions` are unfetched: refuse (``raise``), wait
    (``block``), keep the inputs (``queue``), or drop the oldest for the new (``drop_oldest``)."""
    max_queued_executions: int = 1000
    """Executions whose inputs may wait with ``queue``."""
    read_iteration_timeout: float = _DEFAULT_SLICE_S
    """Longest sleep, in seconds, before one that waits for a message looks again."""
    enable_asyncio: bool = False
    """Accepted for compatibility, without effect: every graph has `execute_async`."""
    overlap_gpu_communication: bool = False
    """Whether tensors that stay on GPUs are received while the method before runs."""
    enable_detect_deadlock: bool = True
    """Whether compile proves that nobody can wait for ever; without, schedules are the same."""
    visualize_schedule: bool = False
    """Whether compile draws the schedule, to ``compiled_graph_schedule.png``; needs Graphviz."""

    _current: ClassVar[DAGContext | None] = None
    _made: ClassVar[DAGContext | None] = None
    """What it was like at first."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse what is no field, which would have no effect."""
        names = [item.name for item in dataclasses.fields(self)]
        if name not in names:
            msg = f"DAGContext has no field {name!r}{choice(name, names)}"
            raise AttributeError(msg)
        object.__setattr__(self, name, value)

    @classmethod
    def get_current(cls) -> DAGContext:
        """Return this process's context; the first call reads the environment.

        Raises:
            ValueError: A variable is malformed; names it and its value.
        """
        if DAGContext._current is None:
            DAGContext._current = cls.from_environment()
            DAGContext._made = dataclasses.replace(DAGContext._current)
        return DAGContext._current

    @classmethod
    def changes(cls) -> dict[str, Any]:
        """Return what was changed in this process's context: its workers begin with the same."""
        now, made = DAGContext._current, DAGContext._made
        if now is None or made is None:
            return {}
        names = [item.name for item in dataclasses.fields(cls)]
        return {
            name: getattr(now, name) for name in names if getattr(now, name) != getattr(made, name)
        }

    @classmethod
    def apply(cls, changes: Mapping[str, Any]) -> None:
        """Make the `changes` of another process in this one's context."""
        for name, value in changes.items():
            setattr(cls.get_current(), name, value)

    @classmethod
    def source(cls, field: str) -> str:
        """Return what messages call a value of the current context: the variable that gave it."""
        variable = environment.lookup(field.upper())
        made, now = DAGContext._made, DAGContext._current
        if variable is not None and getattr(made, field, None) is getattr(now, field):
            return f"environment variable {variable.name}"
        return f"DAGContext.{field}"

    @classmethod
    def from_environment(cls) -> DAGContext:
        """Return a new context with what the environment says now; raises as `get_current`."""
        given = {}
        for item in dataclasses.fields(cls):
            variable = environment.lookup(item.name.upper())
            if variable is not None and item.name not in _NOT_IN_ENVIRONMENT:
                given[item.name] = _parse(variable.name, variable.text, item.default)
        return cls(**given)


def _parse(variable: str, text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        return _parse_switch(variable, text)
    try:
        return float(text) if isinstance(default, float) else int(text)
    except ValueError as error:
        msg = f"environment variable {variable}={text!r} is not a number"
        raise ValueError(msg) from error


def _parse_switch(variable: str, text: str) -> bool:
    """Return whether it is on: 1 and true are, all else is not; unlikely words get a warning."""
    if text.lower() in {"1", "true"}:
        return True
    if text.lower() not in {"0", "false", "no", "off", ""}:
        msg = f"environment variable {variable}={text!r} counts as off: 1 or true are on"
        warn(msg, RuntimeWarning)
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiling:
    """What is recorded of every step beside the trace. By environment, looked up at compile."""

    records: bool = False
    """``COMPILED_DAG_ENABLE_PROFILING``: see `compiled_dag.trace.records`."""
    nvtx: bool = False
    """``COMPILED_DAG_ENABLE_NVTX_PROFILING``: NVTX ranges."""
    torch: bool = False
    """``COMPILED_DAG_ENABLE_TORCH_PROFILING``: torch's profiler in every actor."""

    @classmethod
    def from_environment(cls) -> Profiling:
        """Return what the environment asks for now.

        Raises:
            GraphError: Both NVTX ranges and torch's profiler.
        """
        asked = {}
        for field, name in _PROFILING.items():
            variable = environment.lookup(name)
            if variable is not None and _parse(variable.name, variable.text, default=False):
                asked[field] = variable.name
        if "nvtx" in asked and "torch" in asked:
            msg = f"{asked['nvtx']} and {asked['torch']} are both set: choose one, unset the other"
            raise GraphError(msg)
        return cls(**dict.fromkeys(asked, True))


_PROFILING: Final = {
    "records": "ENABLE_PROFILING",
    "nvtx": "ENABLE_NVTX_PROFILING",
    "torch": "ENABLE_TORCH_PROFILING",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """What one graph is compiled with."""

    submit_timeout_s: float = 10.0
    get_timeout_s: float = 10.0
    compile_timeout_s: float = 60.0
    buffer_size_bytes: int = _DEFAULT_BUFFER
    has_chosen_buffer: bool = False
    """Whether somebody asked for slots of this size; if not, a lower cap makes them smaller."""
    max_inflight: int = 10
    max_buffered_results: int = 1000
    max_memory_bytes: int | None = None
    function_workers: int | None = None
    capacity_policy: CapacityPolicy = "raise"
    default_communicator: Communicator | Literal["create"] | None = "create"
    enable_asyncio: bool = False
    overlap_gpu_communication: bool = False
    enable_detect_deadlock: bool = True
    visualize_schedule: bool = False
    max_queued: int = 1000
    profiling: Profiling = Profiling()
    wait_slice_s: float = _DEFAULT_SLICE_S
    """Longest sleep of one that waits for a message."""

    @classmethod
    def resolve(cls, **given: Any) -> CompileOptions:
        """Check the keyword arguments of `experimental_compile` and fill in the context's values.

        Raises:
            GraphError: An option has a wrong type or range; names option, value and range.
        """
        context = DAGContext.get_current()
        resolved: dict[str, Any] = {"default_communicator": _default_communicator(given)}
        resolved["profiling"] = Profiling.from_environment()
        for option, (name, field, check, allowed) in _OPTIONS.items():
            value = given.get(option)
            if value is None:
                value = getattr(context, field)
            if not check(value):
                source = option if given.get(option) is not None else DAGContext.source(field)
                msg = f"{source}={value!r} is not {allowed}"
                raise GraphError(msg)
            resolved[name] = value
        resolved["has_chosen_buffer"] = (
            given.get("_buffer_size_bytes") is not None
            or context.buffer_size_bytes != _DEFAULT_BUFFER
        )
        teardown_timeout_s()  # it is used when the graph ends; wrong, it is better known by now
        _check_slice(resolved["wait_slice_s"], resolved["get_timeout_s"])
        return cls(**resolved)


def _default_communicator(given: dict[str, Any]) -> Any:
    """Return the one option whose None means None, not the context's value."""
    value = given.get("_default_communicator", "create")
    if not (value is None or isinstance(value, Communicator)) and not (
        isinstance(value, str) and value == "create"
    ):
        msg = f"_default_communicator={value!r} is not 'create', a Communicator, or None"
        raise GraphError(msg)
    return value


def _check_slice(slice_s: float, get_timeout_s: float) -> None:
    """Refuse a slice that was chosen and is longer than the time-out it would make late."""
    if slice_s != _DEFAULT_SLICE_S and 0 <= get_timeout_s < slice_s:
        msg = f"read_iteration_timeout={slice_s} is longer than get_timeout={get_timeout_s}"
        raise GraphError(msg)


def teardown_timeout_s() -> float:
    """Return the context's `teardown_timeout`, which counts when a graph is torn down.

    Raises:
        GraphError: It is no duration.
    """
    value = DAGContext.get_current().teardown_timeout
    if not _is_duration(value):
        msg = f"teardown_timeout={value!r} is not {_DURATION}: set DAGContext.teardown_timeout"
        raise GraphError(msg)
    return value


def is_seconds(value: object) -> bool:
    """Tell whether `value` is a time-out: not negative, or -1 for ever."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return value == -1 or (value >= 0 and not math.isnan(value))


def _is_duration(value: object) -> bool:
    return is_seconds(value) and isinstance(value, (int, float)) and 0 <= value < math.inf


def _is_slice(value: object) -> bool:
    return _is_duration(value) and value != 0


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_count_or_none(value: object) -> bool:
    return value is None or _is_count(value)


def _is_switch(value: object) -> bool:
    return isinstance(value, bool)


def _is_policy(value: object) -> bool:
    return value in get_args(CapacityPolicy)


_SECONDS: Final = "a number of seconds (0 or more, or -1 for ever)"
_DURATION: Final = "a number of seconds, 0 or more"
_COUNT: Final = "an integer of at least 1"
_Option = tuple[str, str, Callable[[object], bool], str]
_OPTIONS: Final[dict[str, _Option]] = {
    "_submit_timeout": ("submit_timeout_s", "submit_timeout", is_seconds, _SECONDS),
    "_get_timeout": ("get_timeout_s", "get_timeout", is_seconds, _SECONDS),
    "compile_timeout": ("compile_timeout_s", "compile_timeout", _is_duration, _DURATION),
    "_buffer_size_bytes": ("buffer_size_bytes", "buffer_size_bytes", _is_count, _COUNT),
    "_max_inflight_executions": ("max_inflight", "max_inflight_executions", _is_count, _COUNT),
    "_max_buffered_results": ("max_buffered_results", "max_buffered_results", _is_count, _COUNT),
    "_max_memory_bytes": (
        "max_memory_bytes",
        "max_memory_bytes",
        _is_count_or_none,
        f"{_COUNT}, or None",
    ),
    **{
        option: (option.lstrip("_"), option.lstrip("_"), _is_switch, "True or False")
        for option in (
            "enable_asyncio",
            "_overlap_gpu_communication",
            "enable_detect_deadlock",
            "visualize_schedule",
        )
    },
    "_max_queued_executions": ("max_queued", "max_queued_executions", _is_count, _COUNT),
    "read_iteration_timeout": (
        "wait_slice_s",
        "read_iteration_timeout",
        _is_slice,
        "a number of seconds over 0",
    ),
    "_function_workers": (
        "function_workers",
        "function_workers",
        _is_count_or_none,
        f"{_COUNT}, or None",
    ),
    "_capacity_policy": (
        "capacity_policy",
        "capacity_policy",
        _is_policy,
        f"one of {', '.join(map(repr, get_args(CapacityPolicy)))}",
    ),
}
