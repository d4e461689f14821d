"""Options of actors and tasks: defaults and checks, before any process starts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from compiled_dag.keywords import choice
from runtime import gpus
from runtime.checks import (
    Check,
    check_amount,
    check_flag,
    check_groups,
    check_lifetime,
    check_num_returns,
    check_resources,
    check_retry_exceptions,
    check_text,
    integer,
    none_or,
)
from runtime.environment import check_runtime_env
from runtime.resources import Demand

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessOptions:
    """What decides about a process: its share of the machine, and its surroundings."""

    num_cpus: float | None = None
    num_gpus: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    gpu_visibility: gpus.Visibility | None = None
    env_vars: Mapping[str, str] = field(default_factory=dict)
    working_dir: str | None = None

    @property
    def num_threads(self) -> int:
        """Threads for torch and OpenMP."""
        return max(1, int(self.num_cpus or 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorOptions(ProcessOptions):
    """What an actor may ask for."""

    name: str | None = None
    namespace: str | None = None
    get_if_exists: bool = False
    lifetime: str | None = None
    max_restarts: int = 0
    max_task_retries: int = 0
    max_concurrency: int | None = None
    """None: 1, or 1000 if any method is a coroutine."""
    max_pending_calls: int = -1
    concurrency_groups: Mapping[str, int] = field(default_factory=dict)

    @property
    def demand(self) -> Demand:
        """What it holds while it lives: nothing unless something was asked for."""
        if self.num_cpus is None and self.num_gpus is None and not self.resources:
            return Demand()
        return Demand.of(
            1 if self.num_cpus is None else self.num_cpus, self.num_gpus or 0, self.resources
        )

    @property
    def required(self) -> Demand:
        """What of it must be free for the actor to start.

        The CPU that comes with other resources is counted but not insisted on: four actors with a
        (fake) GPU each shall start on two cores.
        """
        demand = self.demand
        return demand if self.num_cpus is not None else demand._replace(num_cpus=0)

    def updated(self, options: Mapping[str, Any], *, decorator: bool = False) -> ActorOptions:
        """Return these options with those a user gave.

        Raises:
            ValueError: An unknown option, or a value that is out of range.
            TypeError: A value of the wrong type.
        """
        if not decorator and "concurrency_groups" in options:
            raise ValueError("concurrency_groups belongs into @remote(...), not into .options(...)")
        made = _updated(self, options, _ACTOR_CHECKS, "an actor")
        if made.get_if_exists and not made.name:
            raise ValueError("get_if_exists=True needs a name")
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions(ProcessOptions):
    """What a task may ask for."""

    name: str | None = None
    num_returns: int | None = None
    """None: 1, or a stream if the function is a generator."""
    max_retries: int = 3
    """After the death of its process; -1: for ever."""
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    max_calls: int = 0
    """A worker ends after so many calls of the function; 0: never."""

    @property
    def demand(self) -> Demand:
        """What it holds while it runs."""
        return Demand.of(
            1 if self.num_cpus is None else self.num_cpus, self.num_gpus or 0, self.resources
        )

    def updated(self, options: Mapping[str, Any], *, decorator: bool = False) -> TaskOptions:
        """Return these options with those a user gave; raises as `ActorOptions.updated`."""
        if not decorator and "max_calls" in options:
            raise ValueError("max_calls belongs into @remote(...), not into .options(...)")
        return _updated(self, options, _TASK_CHECKS, "a task")


_Options = TypeVar("_Options", ActorOptions, TaskOptions)


def _updated(
    base: _Options, options: Mapping[str, Any], checks: Mapping[str, Check], whose: str
) -> _Options:
    changes: dict[str, Any] = {}
    for name, value in options.items():
        if name == "runtime_env":
            changes |= check_runtime_env(value)
        elif name in checks:
            changes[name] = checks[name](name, value)
        elif name not in _WITHOUT_EFFECT:
            known = sorted({*checks, *_WITHOUT_EFFECT, "runtime_env"})
            raise ValueError(f"{name!r} is no option of {whose}{choice(name, known)}")
    made = dataclasses.replace(base, **changes)
    _check_together(made)
    return made


def _check_together(options: ProcessOptions) -> None:
    count = options.num_gpus or 0
    if count > 1 and count % 1:
        raise ValueError(f"num_gpus={count!r}: give a whole number, or a share below 1")
    if not count and options.gpu_visibility in ("assigned_first", "assigned_only"):
        raise ValueError(
            f"gpu_visibility={options.gpu_visibility!r} needs num_gpus > 0. "
            "For an actor without GPUs choose 'none' or 'inherit'"
        )


METHOD_OPTIONS: Final = (
    "num_returns",
    "concurrency_group",
    "max_task_retries",
    "retry_exceptions",
    "name",
    "enable_task_events",
    "tensor_transport",
    "cuda_graph",
)


def check_method_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a method that have an effect, checked.

    Raises:
        ValueError: An unknown option, or a value that is out of range.
        TypeError: A value of the wrong type.
        NotImplementedError: A tensor transport: that is an option of a graph's edges here.
    """
    unknown = [name for name in options if name not in METHOD_OPTIONS]
    if unknown:
        name = unknown[0]
        raise ValueError(f"{name!r} is no option of a method{choice(name, METHOD_OPTIONS)}")
    if options.get("tensor_transport") is not None:
        raise NotImplementedError(
            "tensor_transport is not an option of methods: in a graph use .with_tensor_transport()"
        )
    checked: dict[str, Any] = {}
    if options.get("num_returns") is not None:
        checked["num_returns"] = check_num_returns("num_returns", options["num_returns"])
    if options.get("concurrency_group") is not None:
        checked["concurrency_group"] = check_text("concurrency_group", options["concurrency_group"])
    if options.get("max_task_retries") is not None:
        checked["max_task_retries"] = integer(-1)("max_task_retries", options["max_task_retries"])
    if options.get("retry_exceptions") is not None:
        checked["retry_exceptions"] = check_retry_exceptions(
            "retry_exceptions", options["retry_exceptions"]
        )
    if options.get("cuda_graph") is not None:
        checked["cuda_graph"] = check_flag("cuda_graph", options["cuda_graph"])
    return checked


_PROCESS_CHECKS: Final[Mapping[str, Check]] = {
    "num_cpus": none_or(check_amount),
    "num_gpus": none_or(check_amount),
    "resources": check_resources,
    "gpu_visibility": none_or(lambda _, value: gpus.check_visibility(value)),
    "name": none_or(check_text),
}
_ACTOR_CHECKS: Final[Mapping[str, Check]] = {
    **_PROCESS_CHECKS,
    "namespace": none_or(check_text),
    "get_if_exists": check_flag,
    "lifetime": none_or(check_lifetime),
    "max_restarts": integer(-1),
    "max_task_retries": integer(-1),
    "max_concurrency": none_or(integer(1)),
    "max_pending_calls": integer(-1),
    "concurrency_groups": check_groups,
}
_TASK_CHECKS: Final[Mapping[str, Check]] = {
    **_PROCESS_CHECKS,
    "num_returns": check_num_returns,
    "max_retries": integer(-1),
    "retry_exceptions": check_retry_exceptions,
    "max_calls": integer(0),
}
_WITHOUT_EFFECT: Final = frozenset(
    {
        "accelerator_type",
        "allow_out_of_order_execution",
        "enable_task_events",
        "label_selector",
        "memory",
        "scheduling_strategy",
    }
)
"""Options of Ray's that mean nothing on one machine; accepted."""
