"""Installing the alias in this process and for the processes it starts, and undoing that."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from compiled_dag import environment
from runtime.alias.finder import ROOT, AliasFinder, is_alias

if TYPE_CHECKING:
    from types import ModuleType

SHIM: Final = str(Path(__file__).parent / "shim")
"""A folder with a package ``ray`` that installs the alias when it is imported."""
VARIABLE: Final = "COMPILED_DAG_RAY_ALIAS"
_PATH_VARIABLE: Final = "PYTHONPATH"


@dataclass(frozen=True, slots=True)
class _Before:
    """What `uninstall` puts back."""

    finder: AliasFinder
    flag: str | None
    """Of `VARIABLE`."""
    added_to_path: bool
    added_to_environment: bool


class _State:
    before: _Before | None = None


def install() -> None:
    """Make ``import ray`` mean this project, here and in the processes started from now on.

    Idempotent. Actors and workers, too, and any Python program started with this environment.

    Raises:
        RuntimeError: The real ray was imported already.
    """
    if _State.before is not None:
        return
    _check_not_imported()
    finder = AliasFinder()
    sys.meta_path.insert(0, finder)
    flag = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    added_to_path = SHIM not in sys.path
    if added_to_path:  # actors and workers have the path of their driver
        sys.path.insert(min(1, len(sys.path)), SHIM)
    added = SHIM not in _python_path(os.environ)
    if added:
        os.environ.update(with_alias(os.environ))
    environment.fall_back_on(_read_rays_variable)
    _State.before = _Before(finder, flag, added_to_path, added)


def uninstall() -> None:
    """Undo `install`: the next ``import ray`` finds the real one, if there is any. Idempotent."""
    before, _State.before = _State.before, None
    if before is None:
        return
    environment.fall_back_on(None)
    sys.meta_path.remove(before.finder)
    for name in [name for name, module in sys.modules.items() if _is_ours(name, module)]:
        del sys.modules[name]
    if before.added_to_path and SHIM in sys.path:
        sys.path.remove(SHIM)
    if before.flag is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = before.flag
    if before.added_to_environment:
        left = [entry for entry in _python_path(os.environ) if entry != SHIM]
        if left:
            os.environ[_PATH_VARIABLE] = os.pathsep.join(left)
        else:
            os.environ.pop(_PATH_VARIABLE, None)


def is_installed() -> bool:
    """Tell whether ``import ray`` means this project."""
    return _State.before is not None


def with_alias(variables: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """Return an environment in which Python programs have the alias."""
    path = [SHIM, *(entry for entry in _python_path(variables) if entry != SHIM)]
    return {**variables, VARIABLE: "1", _PATH_VARIABLE: os.pathsep.join(path)}


def _python_path(variables: os._Environ[str] | dict[str, str]) -> list[str]:
    given = variables.get(_PATH_VARIABLE)
    return given.split(os.pathsep) if given else []


def _check_not_imported() -> None:
    module = sys.modules.get(ROOT)
    if module is None or _is_ours(ROOT, module):
        return
    where = getattr(module, "__file__", None) or "no file"
    raise RuntimeError(
        f"ray was imported already ({where}), and what holds it would go on using it: install the "
        "alias first (compiled-dag run script.py, or runtime.alias.install() before import ray)"
    )


def _is_ours(name: str, module: ModuleType) -> bool:
    """Tell whether `module` is one of the alias's, or the package of the shim folder."""
    if is_alias(module):
        return True
    file = getattr(module, "__file__", None) if name == ROOT else None
    return file is not None and str(file).startswith(SHIM + os.sep)


def _read_rays_variable(name: str) -> environment.Variable | None:
    """Return Ray's variable for a setting: ``RAY_CGRAPH_get_timeout`` for ``GET_TIMEOUT``.

    Its settings of time may bear a unit (``_s``) in their names, ours do not.
    """
    for variable in (name.lower(), f"{name.lower()}_s", name, f"{name}_S"):
        text = os.environ.get(f"RAY_CGRAPH_{variable}")
        if text is not None:
            return environment.Variable(f"RAY_CGRAPH_{variable}", text)
    return None
