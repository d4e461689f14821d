"""What the table of Ray's names consists of: where a name is here, or why it is not."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compiled_dag.errors import ExecutorError


@dataclass(frozen=True, slots=True)
class Here:
    """The same thing under a name of ours."""

    where: str
    """``package.module:attribute``."""


@dataclass(frozen=True, slots=True)
class Later:
    """Not there yet; the name works as soon as `where` exists."""

    where: str
    instead: str
    """What to do meanwhile."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A name of Ray's that this project does not offer."""

    why: str
    instead: str
    """What to do; empty if there is nothing to be done."""


Entry = Here | Later | Missing
Rows = Mapping[str, Entry]
"""The names of one module of Ray's."""


class UnresolvedError(ExecutorError):
    """A name is not offered; the message says why, and what to use instead."""


def same(package: str, *names: str) -> dict[str, Entry]:
    """Return entries for names that are the same in `package`."""
    return {name: Here(f"{package}:{name}") for name in names}


def later(package: str, *names: str, instead: str) -> dict[str, Entry]:
    """Return entries for names that `package` will have."""
    return {name: Later(f"{package}:{name}", instead) for name in names}


def missing(*names: str, why: str, instead: str = "") -> dict[str, Entry]:
    """Return entries for names that there is one reason not to have."""
    return {name: Missing(why, instead) for name in names}


def find(where: str) -> Any:
    """Return what `where` names.

    Raises:
        LookupError: There is no such module, or no such attribute in it.
    """
    module_name, _, name = where.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise  # something that the module needs
        raise LookupError(f"no module {error.name}") from None
    try:
        return getattr(module, name)
    except AttributeError:
        raise LookupError(f"{module_name} has no {name}") from None


def resolve(full_name: str, entry: Entry) -> Any:
    """Return what Ray's name stands for here.

    Raises:
        UnresolvedError: It is not offered.
    """
    match entry:
        case Here(where):
            return find(where)
        case Later(where, instead):
            try:
                return find(where)
            except LookupError:
                raise UnresolvedError(_text(full_name, "it is not there yet", instead)) from None
        case Missing(why, instead):
            raise UnresolvedError(_text(full_name, why, instead))


def exists(entry: Entry) -> bool:
    """Tell whether the name can be used."""
    try:
        resolve("", entry)
    except UnresolvedError:
        return False
    return True


def _text(full_name: str, why: str, instead: str) -> str:
    advice = f". Instead: {instead}" if instead else ""
    return f"compiled-dag, which stands in for Ray here, does not offer {full_name}: {why}{advice}"
