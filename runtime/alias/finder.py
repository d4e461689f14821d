"""Importing ``ray`` and its submodules: modules whose attributes are looked up in the table."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any, Final

from runtime.alias.entries import UnresolvedError, exists, resolve
from runtime.alias.table import MODULES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

ROOT: Final = "ray"


class AliasFinder:
    """Finds ``ray`` and everything below, and nothing else; a finder and loader of modules.

    Not a subclass of what `importlib.abc` has: importing that takes longer than all of this.
    """

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002  the signature of finders
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return how to make the module.

        Raises:
            ModuleNotFoundError: It is a module of Ray's that is not offered.
        """
        if fullname != ROOT and not fullname.startswith(f"{ROOT}."):
            return None
        if fullname in MODULES:
            return ModuleSpec(fullname, self, is_package=True)  # type: ignore[arg-type]
        if _is_only_looking():
            return None
        # Without `name`: with it, ``from ray import x`` would show a text of its own, not ours.
        raise ModuleNotFoundError(_why_no_module(fullname))

    def create_module(self, spec: ModuleSpec) -> None:
        """Have an ordinary module made: one of another class takes 40 ns longer per attribute."""

    def exec_module(self, module: ModuleType) -> None:
        """Have attributes looked up when they are first asked for."""
        module.__doc__ = f"{module.__name__}, as far as compiled-dag offers it."
        vars(module)["__getattr__"] = partial(_attribute, module)
        vars(module)["__dir__"] = partial(_names, module)


def is_alias(module: ModuleType) -> bool:
    """Tell whether `module` was made here."""
    return isinstance(getattr(module, "__loader__", None), AliasFinder)


def _attribute(module: ModuleType, name: str) -> Any:
    """Return an attribute that `module` lacks so far; it has it from then on.

    Raises:
        AttributeError: It is not offered; the message says why, and what to use instead.
    """
    if name == "__all__":
        return offered(module.__name__)
    rows = MODULES[module.__name__]
    if name.startswith("__") and name not in rows:
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
    full_name = f"{module.__name__}.{name}"
    if name in rows:
        try:
            value = vars(module)[name] = resolve(full_name, rows[name])
        except UnresolvedError as error:
            raise AttributeError(str(error), name=name, obj=module) from None
        return value
    if full_name in MODULES:
        return importlib.import_module(full_name)
    raise AttributeError(_unknown(full_name), name=name, obj=module)


def _names(module: ModuleType) -> list[str]:
    """Return what ``dir(module)`` shows."""
    name = module.__name__
    return sorted({*vars(module), *offered(name), *_submodules(name)})


def offered(module: str) -> list[str]:
    """Return the names that `module` has."""
    return sorted(name for name, entry in MODULES[module].items() if exists(entry))


def _submodules(module: str) -> set[str]:
    prefix = f"{module}."
    below = (name[len(prefix) :] for name in MODULES if name.startswith(prefix))
    return {name for name in below if "." not in name}


def _is_only_looking() -> bool:
    """Tell whether `importlib.util.find_spec` asks, for whom no module is an answer, no error."""
    frame = sys._getframe(2)  # noqa: SLF001  the import system has no other way to tell
    while frame.f_back is not None and frame.f_globals.get("__name__") in _IMPORT_SYSTEM:
        frame = frame.f_back
    return bool(frame.f_globals.get("__name__") == "importlib.util")


_IMPORT_SYSTEM: Final = frozenset({"importlib._bootstrap", "_frozen_importlib"})


def _why_no_module(fullname: str) -> str:
    """Return why there is no such module: the reason given for the nearest name above it."""
    name = fullname
    while name != ROOT:
        parent, _, last = name.rpartition(".")
        entry = MODULES.get(parent, {}).get(last)
        if entry is not None:
            try:
                resolve(fullname, entry)
            except UnresolvedError as error:
                return str(error)
            break
        name = parent
    return _unknown(fullname)


def _unknown(full_name: str) -> str:
    return (
        f"{full_name} is not offered by compiled-dag, which stands in for Ray here. "
        "docs/migrating-from-ray.md lists what is; `compiled-dag names` prints it"
    )
