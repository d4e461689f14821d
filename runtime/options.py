"""Options of actors and tasks: defaults and checks, before any process starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from runtime import gpus
from runtime.resources import Demand

STREAM: Final = 0xFFFF
"""Number of returns that stands for a stream of them."""
_SMALLEST: Final = 0.0001
"""Of a resource: shares are counted in these."""

THREAD_VARIABLES: Final = frozenset({"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"})

_FRESH_PREFIXES: Final = ("OMP", "MKL", "TORCH", "PYTORCH", "NCCL", "CUDA", "KMP", "OPENBLAS")
"""Variables that libraries read when they are imported: too late in a forked process."""


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
_Check = Callable[[str, Any], Any]


def _updated(
    base: _Options, options: Mapping[str, Any], checks: Mapping[str, _Check], whose: str
) -> _Options:
    changes: dict[str, Any] = {}
    for name, value in options.items():
        if name == "runtime_env":
            changes |= check_runtime_env(value)
        elif name in checks:
            changes[name] = checks[name](name, value)
        elif name not in _WITHOUT_EFFECT:
            known = sorted({*checks, *_WITHOUT_EFFECT, "runtime_env"})
            raise ValueError(f"{name!r} is no option of {whose}. Known: {', '.join(known)}")
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


def needs_fresh_interpreter(env_vars: Mapping[str, str]) -> bool:
    """Tell whether variables come too late for a forked process."""
    return any(name.startswith(_FRESH_PREFIXES) for name in env_vars)


# --- checks of single values ----------------------------------------------------------------------


def check_amount(name: str, value: object) -> float:
    """Return `value` if it is a possible amount of a resource.

    Raises:
        TypeError: It is not a number.
        ValueError: It is negative, or too small a share.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__} ({value!r})")
    if not value >= 0 or 0 < value < _SMALLEST or value == float("inf"):
        raise ValueError(f"{name}={value!r}: give 0 or at least {_SMALLEST}")
    return value


def check_bytes(name: str, value: object) -> int | None:
    """Return `value` if it is a possible size in bytes, or None.

    Raises:
        TypeError: It is no integer.
        ValueError: It is not positive.
    """
    return None if value is None else int(_integer(1)(name, value))


def check_resources(name: str, resources: object) -> dict[str, float]:
    """Return the custom resources of an option.

    Raises:
        TypeError: It is no mapping of names to numbers.
        ValueError: An amount is out of range, or a name has an option of its own.
    """
    if resources is None:
        return {}
    if not isinstance(resources, Mapping):
        raise TypeError(f"{name} must be a dict, not {type(resources).__name__} ({resources!r})")
    for key, amount in resources.items():
        if not isinstance(key, str):
            raise TypeError(f"{name}: a name must be a str, not {key!r}")
        if key in _OWN_OPTIONS:
            raise ValueError(f"{name}: {key!r} is no custom resource, use {_OWN_OPTIONS[key]}")
        check_amount(f"{name}[{key!r}]", amount)
    return dict(resources)


_OWN_OPTIONS: Final = {"CPU": "num_cpus", "GPU": "num_gpus"}


def check_runtime_env(runtime_env: object) -> dict[str, Any]:
    """Return the options that a `runtime_env` stands for.

    Raises:
        TypeError: It is no mapping, or the variables are not all text.
        ValueError: The folder does not exist.
        NotImplementedError: It has other keys.
    """
    if runtime_env is None:
        return {}
    if not isinstance(runtime_env, Mapping):
        raise TypeError(f"runtime_env must be a dict, not {type(runtime_env).__name__}")
    unknown = [key for key in runtime_env if key not in ("env_vars", "working_dir")]
    if unknown:
        raise NotImplementedError(
            f"runtime_env: there are 'env_vars' and 'working_dir' so far, not {unknown}"
        )
    variables = runtime_env.get("env_vars") or {}
    for name, value in variables.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"runtime_env: env_vars must map str to str, not {name!r}: {value!r}")
    found: dict[str, Any] = {"env_vars": dict(variables)}
    folder = runtime_env.get("working_dir")
    if folder is not None:
        found["working_dir"] = _check_folder(folder)
    return found


def _check_folder(folder: object) -> str:
    if not isinstance(folder, (str, Path)):
        raise TypeError(f"runtime_env: working_dir must be a path, not {folder!r}")
    path = Path(folder).absolute()
    if not path.is_dir():
        raise ValueError(f"runtime_env: working_dir {str(path)!r} is no folder")
    return str(path)


def check_num_returns(name: str, value: object) -> int | None:
    """Return `value` if a call can have so many return values.

    Raises:
        TypeError: It is no integer.
        ValueError: It is negative.
    """
    if value is None or value in ("streaming", "dynamic"):
        return None if value is None else STREAM
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"{name} must be an integer or 'streaming', not {type(value).__name__} ({value!r})"
        )
    if not 0 <= value < STREAM:
        raise ValueError(f"{name}={value}: give 0 to {STREAM - 1}")
    return value


def _none_or(check: _Check) -> _Check:
    return lambda name, value: None if value is None else check(name, value)


def _integer(least: int) -> _Check:
    def check(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, not {type(value).__name__} ({value!r})")
        if value < least:
            raise ValueError(f"{name}={value}: give {least} or more")
        return value

    return check


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__} ({value!r})")
    if not value:
        raise ValueError(f"{name} is empty: give a name, or leave it out")
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def _lifetime(name: str, value: object) -> str:
    if value not in ("detached", "non_detached"):
        raise ValueError(f"{name}={value!r}: give 'detached', 'non_detached' or None")
    return str(value)


def check_retry_exceptions(name: str, value: object) -> bool | tuple[type[BaseException], ...]:
    """Return which exceptions are worth another attempt."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be True, False or a list of exceptions, not {value!r}")
    for kind in value:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{name}: {kind!r} is no exception class")
    return tuple(value)


def _groups(name: str, value: object) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of names to numbers, not {value!r}")
    for key, size in value.items():
        _text(f"{name}: the name of a group", key)
        _integer(1)(f"{name}[{key!r}]", size)
    return dict(value)


METHOD_OPTIONS: Final = (
    "num_returns",
    "concurrency_group",
    "max_task_retries",
    "retry_exceptions",
    "name",
    "enable_task_events",
    "tensor_transport",
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
        raise ValueError(f"{unknown[0]!r} is no option of a method. Known: {METHOD_OPTIONS}")
    if options.get("tensor_transport") is not None:
        raise NotImplementedError(
            "tensor_transport is not an option of methods: in a graph use .with_tensor_transport()"
        )
    checked: dict[str, Any] = {}
    if options.get("num_returns") is not None:
        checked["num_returns"] = check_num_returns("num_returns", options["num_returns"])
    if options.get("concurrency_group") is not None:
        checked["concurrency_group"] = _text("concurrency_group", options["concurrency_group"])
    if options.get("max_task_retries") is not None:
        checked["max_task_retries"] = _integer(-1)("max_task_retries", options["max_task_retries"])
    if options.get("retry_exceptions") is not None:
        checked["retry_exceptions"] = check_retry_exceptions(
            "retry_exceptions", options["retry_exceptions"]
        )
    return checked


_PROCESS_CHECKS: Final[Mapping[str, _Check]] = {
    "num_cpus": _none_or(check_amount),
    "num_gpus": _none_or(check_amount),
    "resources": check_resources,
    "gpu_visibility": _none_or(lambda _, value: gpus.check_visibility(value)),
    "name": _none_or(_text),
}
_ACTOR_CHECKS: Final[Mapping[str, _Check]] = {
    **_PROCESS_CHECKS,
    "namespace": _none_or(_text),
    "get_if_exists": _flag,
    "lifetime": _none_or(_lifetime),
    "max_restarts": _integer(-1),
    "max_task_retries": _integer(-1),
    "max_concurrency": _none_or(_integer(1)),
    "max_pending_calls": _integer(-1),
    "concurrency_groups": _groups,
}
_TASK_CHECKS: Final[Mapping[str, _Check]] = {
    **_PROCESS_CHECKS,
    "num_returns": check_num_returns,
    "max_retries": _integer(-1),
    "retry_exceptions": check_retry_exceptions,
    "max_calls": _integer(0),
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
