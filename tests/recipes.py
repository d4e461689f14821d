"""Random graphs: a recipe is data, drawn as nodes on any actors or worked out in plain Python.

Plain Python is the oracle: calling the same methods on the same kind of objects, one call after the
other in bind order, with an error in place of everything that depends on a call that raised.
"""

from __future__ import annotations

import random
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from collective import allreduce
from compiled_dag import InputNode, MultiOutputNode, TaskError
from compiled_dag.node import DAGNode

LEASED = 70_000
"""Bytes: enough for a value to be held where it was written."""


class Machine:
    """An actor that remembers: what it returns depends on everything it was ever given."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls = 0
        self.held: deque[Any] = deque(maxlen=3)

    def mix(self, *args: Any, **kwargs: Any) -> int:
        self.calls += 1
        return digest((self.number, self.calls, args, kwargs))

    def split(self, count: int, *args: Any, **kwargs: Any) -> tuple[int, ...]:
        value = self.mix(*args, **kwargs)
        return tuple(value + part for part in range(count))

    def fuss(self, *args: Any, **kwargs: Any) -> int:
        value = self.mix(*args, **kwargs)
        if value % 3 == 0:
            raise ValueError(f"machine {self.number} fusses about {value}")
        return value

    def blow(self, *args: Any, **kwargs: Any) -> np.ndarray:
        value = self.mix(*args, **kwargs)
        return np.full((LEASED, 16)[value % 2], value % 251, np.uint8)

    def hold(self, *args: Any, **kwargs: Any) -> int:
        self.held.append((args, kwargs))
        return self.mix(*self.held)

    def grad(self, *_args: Any) -> Any:
        raise NotImplementedError  # collectives are only ever compiled here, never run


def digest(value: Any) -> int:
    """Return a number that any change of value, type or structure changes."""
    return zlib.crc32(_text(value).encode())


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"array {value.dtype} {value.shape} {zlib.crc32(np.ascontiguousarray(value))}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({','.join(map(_text, value))})"
    if isinstance(value, dict):
        return f"dict({','.join(f'{key!r}:{_text(item)}' for key, item in value.items())})"
    return f"{type(value).__name__} {value!r}"


@dataclass(frozen=True)
class Failed:
    """What the oracle has in place of a value that could not be made."""

    text: str


@dataclass(frozen=True)
class Ref:
    """The value of the given number: inputs first, then results in bind order."""

    number: int


@dataclass(frozen=True)
class Call:
    actor: int
    method: str
    args: tuple[Any, ...]
    """Constants, refs, and containers of them."""
    kwargs: tuple[tuple[str, Any], ...]
    num_returns: int = 1


@dataclass(frozen=True)
class Reduce:
    """A collective over one value of each actor that has one."""

    values: tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    num_actors: int
    keys: tuple[int | str, ...] | None
    """Fields of the input; None if it is used whole."""
    steps: tuple[Call | Reduce, ...]
    outputs: tuple[Any, ...]

    @property
    def num_inputs(self) -> int:
        return 1 if self.keys is None else len(self.keys)

    def arguments(self, values: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return what to call `execute` with, so that input i is ``values[i]``."""
        if self.keys is None:
            return [values[0]], {}
        pairs = list(zip(self.keys, values, strict=True))
        last = max((key for key in self.keys if isinstance(key, int)), default=-1)
        by_key = dict(pairs)
        positional = [by_key.get(position, "unused") for position in range(last + 1)]
        return positional, {key: value for key, value in pairs if isinstance(key, str)}


def place(value: Any, of: Callable[[int], Any]) -> Any:
    """Put what `of` gives for each ref into a copy of `value`."""
    match value:
        case Ref(number):
            return of(number)
        case list() | tuple():
            return type(value)(place(item, of) for item in value)
        case dict():
            return {key: place(item, of) for key, item in value.items()}
    return value


def refs(value: Any) -> list[int]:
    """Return the numbers of the refs in `value`, left to right."""
    found: list[int] = []
    place(value, found.append)
    return found


def draw(recipe: Recipe, actors: Sequence[Any]) -> DAGNode:
    """Bind the recipe's calls on `actors`."""
    with InputNode() as inp:
        nodes = [inp] if recipe.keys is None else [inp[key] for key in recipe.keys]
    for step in recipe.steps:
        if isinstance(step, Reduce):
            nodes += allreduce.bind([nodes[number] for number in step.values])
            continue
        method = getattr(actors[step.actor], step.method)
        if step.num_returns > 1:
            method = method.options(num_returns=step.num_returns)
        args = place(step.args, nodes.__getitem__)
        bound = method.bind(*args, **place(dict(step.kwargs), nodes.__getitem__))
        nodes += bound if step.num_returns > 1 else [bound]
    return MultiOutputNode(list(place(recipe.outputs, nodes.__getitem__)))


def work_out(recipe: Recipe, machines: Sequence[Machine], inputs: Sequence[Any]) -> list[Any]:
    """Return the outputs of one execution, by plain calls."""
    values = list(inputs)
    for step in recipe.steps:
        assert isinstance(step, Call)
        values += _outcome(step, machines[step.actor], values)
    return [place(output, values.__getitem__) for output in recipe.outputs]


def _outcome(step: Call, machine: Machine, values: list[Any]) -> list[Any]:
    for number in refs((step.args, dict(step.kwargs))):
        if isinstance(values[number], Failed):
            return [values[number]] * step.num_returns
    args = place(step.args, values.__getitem__)
    kwargs = place(dict(step.kwargs), values.__getitem__)
    try:
        result = getattr(machine, step.method)(*args, **kwargs)
    except ValueError as error:
        return [Failed(str(error))] * step.num_returns
    return list(result) if step.num_returns > 1 else [result]


def values_of(results: Any, timeout: float = 30) -> Any:
    """Return values, with what was raised in place of what raised."""
    if isinstance(results, list):
        return [values_of(result, timeout) for result in results]
    try:
        return results.get(timeout)
    except TaskError as error:
        return Failed(str(error.cause))


# --- strategies -----------------------------------------------------------------------------------
#
# Made once: refs are drawn as any number and taken modulo the values there are.

plain = st.one_of(st.integers(-9, 9), st.sampled_from(["", "text", None, True, 2.5]))
inputs = st.one_of(plain, st.sampled_from([16, LEASED]).map(lambda n: np.arange(n, dtype=np.uint8)))

_any_number = st.integers(0, 63)
_leaf = st.one_of(plain, st.builds(Ref, _any_number), st.builds(Ref, _any_number))
_argument = st.one_of(
    _leaf,
    st.lists(_leaf, max_size=2),
    st.tuples(st.lists(_leaf, max_size=2)),
    st.dictionaries(st.sampled_from(["a", "b", 3]), st.one_of(_leaf, st.tuples(_leaf)), max_size=2),
)
_call = st.tuples(
    _any_number,
    st.sampled_from(["mix", "mix", "split", "fuss", "blow", "hold"]),
    st.lists(_argument, max_size=3).map(tuple),
    st.dictionaries(st.sampled_from(["p", "q", "a b", "class", "|"]), _argument, max_size=2),
)
_key = st.one_of(st.integers(0, 3), st.sampled_from(["rate", "x", "two words"]))
_keys = st.none() | st.lists(_key, min_size=1, max_size=3, unique=True).map(tuple)
_extra_outputs = st.lists(_leaf, max_size=2)
_order = st.randoms(use_true_random=False)


def recipes(*, collectives: bool = False, max_steps: int = 8) -> st.SearchStrategy[Recipe]:
    """Strategy: any legal graph over up to four actors."""
    steps = st.lists(_call, min_size=1, max_size=max_steps)
    reduce = st.just(collectives)
    return st.builds(_recipe, st.integers(1, 4), _keys, steps, _extra_outputs, _order, reduce)


def _recipe(
    num_actors: int,
    keys: tuple[int | str, ...] | None,
    drawn: Sequence[tuple[Any, ...]],
    extra: Sequence[Any],
    order: random.Random,
    reduce: bool,
) -> Recipe:
    homes: list[int | None] = [None] * (1 if keys is None else len(keys))  # actor of each value
    steps: list[Call | Reduce] = []
    for number, spec in enumerate(drawn):
        call = _call_of(spec, num_actors, len(homes), first=number == 0)
        steps.append(call)
        homes += [call.actor] * call.num_returns
        if reduce and number % 3 == 2:
            together = _one_per_actor(homes, order)
            steps.append(Reduce(together))
            homes += [homes[value] for value in together]
    used = {number for step in steps for number in _used(step)}
    leaves = [Ref(number) for number in range(len(homes)) if number not in used]
    outputs = [*leaves, *place(list(extra), lambda number: Ref(number % len(homes)))]
    order.shuffle(outputs)
    return Recipe(num_actors, keys, tuple(steps), tuple(outputs))


def _call_of(spec: tuple[Any, ...], num_actors: int, num_values: int, *, first: bool) -> Call:
    actor, method, args, kwargs = place(spec, lambda number: Ref(number % num_values))
    if first:
        args = (Ref(0), *args)
    num_returns = 1
    if method == "split":
        num_returns = 2 + actor % 2
        args = (num_returns, *args)
    return Call(actor % num_actors, method, args, tuple(kwargs.items()), num_returns)


def _one_per_actor(homes: Sequence[int | None], order: random.Random) -> tuple[int, ...]:
    by_actor = {home: number for number, home in enumerate(homes) if home is not None}
    chosen = list(by_actor.values())
    order.shuffle(chosen)
    return tuple(chosen)


def _used(step: Call | Reduce) -> list[int]:
    return list(step.values) if isinstance(step, Reduce) else refs((step.args, dict(step.kwargs)))
