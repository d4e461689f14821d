"""Argument templates: where values and constants go in a call's arguments.

A tree is a leaf or a list, tuple or dict of trees. Leaves are values (numbered) and constants
(numbered, kept in a table beside the graph). It prints as Python would (``[v3, c0]``) and parses
back, and it fills in with one comprehension per container.
"""

from __future__ import annotations

import ast
import keyword
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Val:
    """A numbered value: a node in the graph, a slot in a program."""

    id: int

    def __str__(self) -> str:
        return f"v{self.id}"


@dataclass(frozen=True, slots=True)
class Const:
    """A numbered constant."""

    id: int

    def __str__(self) -> str:
        return f"c{self.id}"


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of trees."""

    items: tuple[Tree, ...]

    def __str__(self) -> str:
        return f"[{', '.join(map(str, self.items))}]"


@dataclass(frozen=True, slots=True)
class TupleOf:
    """A tuple of trees."""

    items: tuple[Tree, ...]

    def __str__(self) -> str:
        inner = ", ".join(map(str, self.items))
        return f"({inner},)" if len(self.items) == 1 else f"({inner})"


@dataclass(frozen=True, slots=True)
class DictOf:
    """A dict from constants to trees."""

    items: tuple[tuple[Const, Tree], ...]

    def __str__(self) -> str:
        return "{" + ", ".join(f"{key}: {value}" for key, value in self.items) + "}"


Tree: TypeAlias = "Val | Const | ListOf | TupleOf | DictOf"


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of one call."""

    args: tuple[Tree, ...] = ()
    kwargs: tuple[tuple[str, Tree], ...] = ()

    def __str__(self) -> str:
        named = [_named(name, tree) for name, tree in self.kwargs]
        return ", ".join([*map(str, self.args), *named])

    def trees(self) -> Iterator[Tree]:
        """Yield every argument."""
        yield from self.args
        for _, tree in self.kwargs:
            yield tree

    def values(self) -> tuple[int, ...]:
        """Return the values used, each once, in order of appearance."""
        found: dict[int, None] = {}
        for tree in self.trees():
            for leaf in leaves(tree):
                if isinstance(leaf, Val):
                    found[leaf.id] = None
        return tuple(found)

    def map(self, leaf: Callable[[Val | Const], Tree]) -> Arguments:
        """Return the same arguments with every leaf replaced."""
        return Arguments(
            tuple(map_leaves(tree, leaf) for tree in self.args),
            tuple((name, map_leaves(tree, leaf)) for name, tree in self.kwargs),
        )

    @classmethod
    def parse(cls, text: str) -> Arguments:
        """Parse what `str` printed.

        Raises:
            ValueError: The text is something else.
        """
        try:
            call = ast.parse(f"f({text})", mode="eval").body
        except SyntaxError as error:
            msg = f"not an argument list: {text!r}"
            raise ValueError(msg) from error
        if not isinstance(call, ast.Call):
            msg = f"not an argument list: {text!r}"
            raise ValueError(msg)  # noqa: TRY004  the text is wrong, not a type
        return cls(
            tuple(_parse(item) for item in call.args),
            tuple(_parse_named(item) for item in call.keywords),
        )


def leaves(tree: Tree) -> Iterator[Val | Const]:
    """Yield the leaves of `tree`, keys of dicts included, left to right."""
    match tree:
        case Val() | Const():
            yield tree
        case ListOf(items) | TupleOf(items):
            for item in items:
                yield from leaves(item)
        case DictOf(pairs):
            for key, value in pairs:
                yield key
                yield from leaves(value)


def map_leaves(tree: Tree, leaf: Callable[[Val | Const], Tree]) -> Tree:
    """Return `tree` with every leaf but dict keys replaced by ``leaf(it)``."""
    match tree:
        case ListOf(items):
            return ListOf(tuple(map_leaves(item, leaf) for item in items))
        case TupleOf(items):
            return TupleOf(tuple(map_leaves(item, leaf) for item in items))
        case DictOf(pairs):
            return DictOf(tuple((key, map_leaves(value, leaf)) for key, value in pairs))
        case _:
            return leaf(tree)


def fill(tree: Tree, value: Callable[[int], Any], constant: Callable[[int], Any]) -> Any:
    """Return the Python object `tree` stands for."""
    match tree:
        case Val(id):
            return value(id)
        case Const(id):
            return constant(id)
        case ListOf(items):
            return [fill(item, value, constant) for item in items]
        case TupleOf(items):
            return tuple(fill(item, value, constant) for item in items)
        case DictOf(pairs):
            return {constant(key.id): fill(item, value, constant) for key, item in pairs}


def _named(name: str, tree: Tree) -> str:
    """Print a keyword argument; a name that Python would not take, or change, as a dict's key."""
    plain = name.isidentifier() and not keyword.iskeyword(name)
    if plain and unicodedata.is_normalized("NFKC", name):
        return f"{name}={tree}"
    quoted = repr(name).replace("|", r"\x7c")  # in a table it would end the cell
    return f"**{{{quoted}: {tree}}}"


def _parse_named(item: ast.keyword) -> tuple[str, Tree]:
    match item:
        case ast.keyword(arg=str(name), value=value):
            return name, _parse(value)
        case ast.keyword(value=ast.Dict(keys=[ast.Constant(value=str(name))], values=[value])):
            return name, _parse(value)
    msg = f"not a keyword argument: {ast.unparse(item)!r}"
    raise ValueError(msg)


def _parse(item: ast.expr) -> Tree:
    match item:
        case ast.Name(id=name) if name[:1] in "vc" and name[1:].isdigit():
            number = int(name[1:])
            return Val(number) if name[0] == "v" else Const(number)
        case ast.List(elts=items):
            return ListOf(tuple(map(_parse, items)))
        case ast.Tuple(elts=items):
            return TupleOf(tuple(map(_parse, items)))
        case ast.Dict(keys=keys, values=values):
            pairs = []
            for key, value in zip(keys, values, strict=True):
                parsed = _parse(key) if key is not None else None
                if not isinstance(parsed, Const):
                    break
                pairs.append((parsed, _parse(value)))
            else:
                return DictOf(tuple(pairs))
    msg = f"not a template: {ast.unparse(item)!r}"
    raise ValueError(msg)
