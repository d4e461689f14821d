"""What processes start in: `runtime_env`, variables and folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from compiled_dag.errors import RuntimeEnvSetupError
from compiled_dag.notice import warn

THREAD_VARIABLES: Final = frozenset({"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"})

_FRESH_PREFIXES: Final = (
    *("OMP", "MKL", "TORCH", "PYTORCH", "NCCL", "CUDA", "KMP", "OPENBLAS"),
    *("PYTHON", "LD_", "MALLOC_", "GLIBC_"),
)
"""Variables that are read when a library is imported or an interpreter starts: a forked process
comes too late for them."""

_warned: Final[set[str]] = set()
"""Keys of `runtime_env` without effect that users have been told of."""


def needs_fresh_interpreter(env_vars: Mapping[str, str]) -> bool:
    """Tell whether variables come too late for a forked process."""
    return any(name.startswith(_FRESH_PREFIXES) for name in env_vars)


def import_path(env_vars: Mapping[str, str], folder: str | None, rest: Iterable[str]) -> list[str]:
    """Return ``sys.path`` for a process: its own folder and variable come before the driver's."""
    own = [] if folder is None else [folder]
    own += [entry for entry in env_vars.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return [*own, *rest]


def check_set_up(folder: str | None) -> None:
    """Refuse to start a process in a folder that is gone.

    Raises:
        RuntimeEnvSetupError: It is.
    """
    if folder is not None and not os.path.isdir(folder):
        raise RuntimeEnvSetupError(
            f"runtime_env['working_dir'] {folder!r} is no folder any more: nothing can start there"
        )


def check_runtime_env(runtime_env: object) -> dict[str, Any]:
    """Return the options that a `runtime_env` stands for; warns once of keys without effect.

    Raises:
        TypeError: It is no mapping, or the variables are not all text.
        ValueError: The folder does not exist, or a variable cannot.
    """
    if runtime_env is None:
        return {}
    if not isinstance(runtime_env, Mapping):
        raise TypeError(f"runtime_env must be a dict, not {type(runtime_env).__name__}")
    _warn_about([str(key) for key in runtime_env if key not in ("env_vars", "working_dir")])
    found: dict[str, Any] = {"env_vars": _check_variables(runtime_env.get("env_vars"))}
    folder = runtime_env.get("working_dir")
    if folder is not None:
        found["working_dir"] = _check_folder(folder)
    return found


def _warn_about(keys: Iterable[str]) -> None:
    new = sorted(set(keys) - _warned)
    if new:
        _warned.update(new)
        warn(
            f"runtime_env: {', '.join(map(repr, new))} without effect: there are 'env_vars' and "
            "'working_dir'. Processes run with the packages of the driver"
        )


def _check_variables(variables: object) -> dict[str, str]:
    if variables is None:
        return {}
    if not isinstance(variables, Mapping):
        raise TypeError(f"runtime_env: env_vars must be a dict, not {type(variables).__name__}")
    for name, value in variables.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"runtime_env: env_vars must map str to str, not {name!r}: {value!r}")
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"runtime_env: env_vars {name!r}: {value!r} cannot be a variable")
    return dict(variables)


def _check_folder(folder: object) -> str:
    from pathlib import Path  # noqa: PLC0415  5 ms that few scripts need

    if not isinstance(folder, (str, Path)):
        raise TypeError(f"runtime_env: working_dir must be a path, not {folder!r}")
    path = Path(folder).absolute()
    if not path.is_dir():
        raise ValueError(f"runtime_env: working_dir {str(path)!r} is no folder")
    return str(path)
