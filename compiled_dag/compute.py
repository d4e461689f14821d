"""A compute step as a closure: gather the arguments, call the method, keep its value or its error.

The case of one positional argument and one result, most calls there are, is flat.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from compiled_dag.outcome import Error
from compiled_dag.tree import Arguments, Const, Tree, Val, fill

if TYPE_CHECKING:
    from compiled_dag.program import Compute

Slots: TypeAlias = list[Any]
Run: TypeAlias = Callable[[Slots], None]
Failed: TypeAlias = Callable[[BaseException], Error]
Gather: TypeAlias = Callable[[Slots], tuple[Sequence[Any], dict[str, Any]]]


class Report(NamedTuple):
    """Where to write that this step has begun, for hang reports and death messages."""

    words: memoryview
    step_word: int
    since_word: int
    number: int


def bind_compute(
    step: Compute,
    method: Callable[..., Any],
    constants: dict[int, Any],
    report: Report,
    failed: Failed,
) -> Run:
    """Return the closure of `step`.

    Args:
        step: The step.
        method: The bound method it calls.
        constants: Constants of the graph, by number.
        report: Where to note its beginning.
        failed: Turns what the method raised into an `Error`.
    """
    arguments = step.arguments
    leaf = arguments.args[0] if len(arguments.args) == 1 and not arguments.kwargs else None
    if isinstance(leaf, Val) and not step.unpack:
        return _bind_one(leaf.id, step.results[0], method, report, failed)
    return _bind_any(step, method, _bind_gather(arguments, constants), report, failed)


def _bind_one(
    source: int, target: int, method: Callable[..., Any], report: Report, failed: Failed
) -> Run:
    words, step_word, since_word, number = report
    clock = time.monotonic_ns

    def run(slots: Slots) -> None:
        value = slots[source]
        if value.__class__ is Error:
            slots[target] = value
            return
        words[step_word] = number
        words[since_word] = clock()
        try:
            slots[target] = method(value)
        except (SystemExit, KeyboardInterrupt):
            raise  # these end the actor
        except BaseException as error:  # noqa: BLE001  user code may raise anything
            slots[target] = failed(error)

    return run


def _bind_any(
    step: Compute, method: Callable[..., Any], gather: Gather, report: Report, failed: Failed
) -> Run:
    words, step_word, since_word, number = report
    clock = time.monotonic_ns
    used, results, unpack = step.arguments.values(), step.results, step.unpack

    def run(slots: Slots) -> None:
        for slot in used:
            if slots[slot].__class__ is Error:
                for target in results:
                    slots[target] = slots[slot]
                return
        words[step_word] = number
        words[since_word] = clock()
        try:
            args, kwargs = gather(slots)
            value = method(*args, **kwargs)
            values = _unpacked(value, len(results)) if unpack else (value,)
        except (SystemExit, KeyboardInterrupt):
            raise  # these end the actor
        except BaseException as error:  # noqa: BLE001  user code may raise anything
            values = (failed(error),) * len(results)
        for target, item in zip(results, values, strict=True):
            slots[target] = item

    return run


def _bind_gather(arguments: Arguments, constants: dict[int, Any]) -> Gather:
    """Return how to collect the arguments from slots and constants."""
    positional = [_getter(tree, constants) for tree in arguments.args]
    named = [(name, _getter(tree, constants)) for name, tree in arguments.kwargs]

    def gather(slots: Slots) -> tuple[Sequence[Any], dict[str, Any]]:
        return [get(slots) for get in positional], {name: get(slots) for name, get in named}

    return gather


def _getter(tree: Tree, constants: dict[int, Any]) -> Callable[[Slots], Any]:
    match tree:
        case Val(number):
            return lambda slots: slots[number]
        case Const(number):
            constant = constants[number]
            return lambda _: constant
        case _:
            return lambda slots: fill(tree, slots.__getitem__, constants.__getitem__)


def _unpacked(value: Any, count: int) -> Sequence[Any]:
    """Return the values of a call with several returns.

    Raises:
        ValueError: Not `count` of them.
    """
    if not isinstance(value, (tuple, list)):
        msg = f"num_returns={count}, but what was returned is one {type(value).__name__}"
        raise ValueError(msg)  # noqa: TRY004  a wrong count and a wrong type are one error
    if len(value) != count:
        msg = f"num_returns={count}, but {len(value)} values were returned"
        raise ValueError(msg)
    return value
