"""Misspelt keywords and options, told alike everywhere: the near name, then all there are."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_Function = TypeVar("_Function", bound="Callable[..., Any]")
_Class = TypeVar("_Class", bound=type)


def near(name: str, known: Iterable[str], most: int) -> list[str]:
    """Return the names like `name`, the nearest first."""
    import difflib  # noqa: PLC0415  for a mistake only

    return difflib.get_close_matches(name, list(known), most)


def nearest(name: str, known: Iterable[str], most: int = 3) -> str:
    """Return a hint at the names like `name`, to be put behind a message; it may be empty."""
    close = near(name, known, most)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def choice(name: str, known: Iterable[str]) -> str:
    """Return the name that is most like `name`, and all there are, to be put behind a message."""
    names = list(known)
    hint = nearest(name, names, most=1) or "."
    return f"{hint} Known: {', '.join(names)}"


def refuse_unknown(function: Callable[..., Any], unknown: Mapping[str, object]) -> None:
    """Refuse the keywords that `function` got and does not have.

    Raises:
        TypeError: There are some; names the first, those like it, and all that `function` has.
    """
    if unknown:
        name = min(unknown)
        what = f"{_label(function)}() got an unexpected keyword argument {name!r}"
        raise TypeError(f"{what}{choice(name, keywords_of(function))}")


def strict_keywords(function: _Function) -> _Function:
    """Have `function` refuse keywords that it does not have by `refuse_unknown`."""
    known = frozenset(keywords_of(function))

    @functools.wraps(function)
    def strict(*args: Any, **given: Any) -> Any:
        if given and not known.issuperset(given):
            refuse_unknown(strict, {name: given[name] for name in given.keys() - known})
        return function(*args, **given)

    return cast("_Function", strict)


def strict_init(cls: _Class) -> _Class:
    """Have the constructor of `cls` do so."""
    setattr(cls, "__init__", strict_keywords(cls.__init__))  # type: ignore[misc]  # noqa: B010
    return cls


def keywords_of(function: Callable[..., Any]) -> list[str]:
    """Return the keywords that `function` has, in its order."""
    code = getattr(function, "__wrapped__", function).__code__
    last = code.co_argcount + code.co_kwonlyargcount
    names: tuple[str, ...] = code.co_varnames[code.co_posonlyargcount : last]
    return [name for name in names if name != "self"]


def _label(function: Callable[..., Any]) -> str:
    """Return what users call it: of a constructor, the class."""
    if function.__name__ == "__init__":
        return function.__qualname__.removesuffix(".__init__")
    return function.__name__
