"""Importing ``ray`` and its submodules: modules whose attributes are looked up in the table."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from runtime.alias.entries import UnresolvedError, exists, resolve
from runtime.alias.table import MODULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT: Final = "ray"


class AliasModule(ModuleType):
    """A module of Ray's name; an attribute is found when it is first asked for."""

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return offered(self.__name__)
        if name.startswith("__") and name not in MODULES[self.__name__]:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        full_name = f"{self.__name__}.{name}"
        entry = MODULES[self.__name__].get(name)
        if entry is not None:
            try:
                value = resolve(full_name, entry)
            except UnresolvedError as error:
                raise AttributeError(str(error), name=name, obj=self) from None
            vars(self)[name] = value
            return value
        if full_name in MODULES:
            return importlib.import_module(full_name)
        raise AttributeError(_unknown(full_name), name=name, obj=self)

    def __dir__(self) -> Iterable[str]:
        return sorted({*vars(self), *offered(self.__name__), *_submodules(self.__name__)})

    def __reduce__(self) -> Any:
        return importlib.import_module, (self.__name__,)


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

    def create_module(self, spec: ModuleSpec) -> AliasModule:
        """Return the module, empty."""
        return AliasModule(spec.name, f"{spec.name}, as far as compiled-dag offers it.")

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing: attributes come when they are asked for."""


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
