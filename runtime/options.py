"""Options of sessions, actors and methods: defaults and checks, before any process starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from runtime import gpus

_SMALLEST: Final = 0.0001
"""Of a resource: shares are counted in these."""

_LATER: Final[dict[str, object]] = {
    "accelerator_type": None,
    "allow_out_of_order_execution": None,
    "concurrency_groups": None,
    "enable_task_events": True,
    "get_if_exists": False,
    "label_selector": None,
    "lifetime": None,
    "max_concurrency": 1,
    "max_pending_calls": -1,
    "max_restarts": 0,
    "max_task_retries": 0,
    "memory": None,
    "name": None,
    "namespace": None,
    "resources": None,
    "scheduling_strategy": None,
}
"""Known options that so far accept only the value that means "as usual"."""
_WITHOUT_EFFECT: Final = {"enable_task_events", "accelerator_type", "memory", "scheduling_strategy"}

THREAD_VARIABLES: Final = frozenset({"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"})

_FRESH_PREFIXES: Final = ("OMP", "MKL", "TORCH", "PYTORCH", "NCCL", "CUDA", "KMP", "OPENBLAS")
"""Variables that libraries read when they are imported: too late in a forked process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorOptions:
    """What an actor may ask for."""

    num_cpus: float | None = None
    num_gpus: float | None = None
    gpu_visibility: gpus.Visibility | None = None
    env_vars: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_threads(self) -> int:
        """Threads for torch and OpenMP."""
        return max(1, int(self.num_cpus or 1))

    def updated(self, options: Mapping[str, Any]) -> ActorOptions:
        """Return these options with those a user gave.

        Raises:
            ValueError: An unknown option, or a value that is out of range.
            TypeError: A value of the wrong type.
            NotImplementedError: An option that has no effect yet.
        """
        changes: dict[str, Any] = {}
        for name, value in options.items():
            if name in ("num_cpus", "num_gpus"):
                changes[name] = None if value is None else check_amount(name, value)
            elif name == "gpu_visibility":
                changes[name] = None if value is None else gpus.check_visibility(value)
            elif name == "runtime_env":
                changes["env_vars"] = check_runtime_env(value)
            else:
                _check_later(name, value)
        made = dataclasses.replace(self, **changes)
        _check_together(made)
        return made


def needs_fresh_interpreter(env_vars: Mapping[str, str]) -> bool:
    """Tell whether variables come too late for a forked process."""
    return any(name.startswith(_FRESH_PREFIXES) for name in env_vars)


def check_amount(name: str, value: object) -> float:
    """Return `value` if it is a possible amount of a resource.

    Raises:
        TypeError: It is not a number.
        ValueError: It is negative, or too small a share.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__} ({value!r})")
    if value < 0 or 0 < value < _SMALLEST:
        raise ValueError(f"{name}={value!r}: give 0 or at least {_SMALLEST}")
    return value


def _check_later(name: str, value: object) -> None:
    known = sorted({"num_cpus", "num_gpus", "gpu_visibility", "runtime_env", *_LATER})
    if name not in _LATER:
        raise ValueError(f"{name!r} is no option of an actor. Known: {', '.join(known)}")
    if value != _LATER[name] and value is not None and name not in _WITHOUT_EFFECT:
        raise NotImplementedError(
            f"{name}={value!r}: this option is not there yet; leave it out (as {_LATER[name]!r})"
        )


def _check_together(options: ActorOptions) -> None:
    count = options.num_gpus or 0
    if count > 1 and count % 1:
        raise ValueError(f"num_gpus={count!r}: give a whole number, or a share below 1")
    if not count and options.gpu_visibility in ("assigned_first", "assigned_only"):
        raise ValueError(
            f"gpu_visibility={options.gpu_visibility!r} needs num_gpus > 0. "
            "For an actor without GPUs choose 'none' or 'inherit'"
        )


def check_runtime_env(runtime_env: object) -> dict[str, str]:
    """Return the environment variables of a `runtime_env`.

    Raises:
        TypeError: It is no mapping, or the variables are not all text.
        NotImplementedError: It has other keys.
    """
    if runtime_env is None:
        return {}
    if not isinstance(runtime_env, Mapping):
        raise TypeError(f"runtime_env must be a dict, not {type(runtime_env).__name__}")
    unknown = [key for key in runtime_env if key != "env_vars"]
    if unknown:
        raise NotImplementedError(f"runtime_env: only 'env_vars' is there yet, not {unknown}")
    variables = runtime_env.get("env_vars", {})
    for name, value in variables.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"runtime_env: env_vars must map str to str, not {name!r}: {value!r}")
    return dict(variables)
