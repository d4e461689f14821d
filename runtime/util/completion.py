"""Results in the order in which they come: `as_completed` and `map_unordered`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import runtime
from compiled_dag.errors import GetTimeoutError
from compiled_dag.keywords import strict_keywords
from runtime.checks import check_count, check_seconds
from runtime.function import RemoteFunction
from runtime.objects import ObjectRef
from runtime.waiting import Arrivals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


@strict_keywords
def as_completed(
    refs: Sequence[ObjectRef],
    *,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> Iterator[Any]:
    """Yield the values of `refs` as they become ready, `chunk_size` at a time.

    Those of one chunk come in the order of `refs`. Each is waited for once, however many there are.

    Args:
        refs: References, each once.
        chunk_size: How many must be ready before any of them is yielded; fewer at the end.
        yield_obj_refs: Yield the references instead of the values.
        timeout: Seconds that a chunk may take; None for ever.
        fetch_local: No effect on a single machine.

    Raises:
        GetTimeoutError: A chunk was not ready in time.
        TypeError: An item is no `ObjectRef`.
        ValueError: A reference comes twice, or `chunk_size` or `timeout` is out of range.
    """
    del fetch_local
    _check(chunk_size, timeout)
    refs = list(refs)
    for position, ref in enumerate(refs):
        if not isinstance(ref, ObjectRef):
            raise TypeError(
                f"as_completed: item {position} is no ObjectRef but {type(ref).__name__}"
            )
    if len(set(refs)) != len(refs):
        raise ValueError("as_completed: the list holds a reference twice")
    return _completed(refs, _Chunks(chunk_size, timeout, yield_obj_refs))


def _completed(refs: list[ObjectRef], chunks: _Chunks) -> Iterator[Any]:
    if refs:
        arrivals = Arrivals(refs[0].session)
        arrivals.add(refs)
        refs.clear()
        yield from chunks.rest(arrivals)


@strict_keywords
def map_unordered(
    fn: RemoteFunction,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> Iterator[Any]:
    """Yield ``fn(item)`` for all `items`, in the order in which the tasks end.

    Items are taken, and tasks submitted, as results are consumed.

    Args:
        fn: A remote function of one argument.
        items: Its arguments; may be endless where `backpressure_size` is given.
        backpressure_size: How many tasks may be under way; None for all at once.
        chunk_size: How many must be ready before any of them is yielded; fewer at the end.
        yield_obj_refs: Yield references instead of values.
        timeout: Seconds that a chunk may take; None for ever.
        fetch_local: No effect on a single machine.

    Raises:
        GetTimeoutError: A chunk was not ready in time.
        TypeError: `fn` is no remote function.
        ValueError: `chunk_size` exceeds `backpressure_size`, or a number is out of range.
    """
    del fetch_local
    _check(chunk_size, timeout)
    if not isinstance(fn, RemoteFunction):
        raise TypeError(f"map_unordered takes a remote function, not {type(fn).__name__}")
    if backpressure_size is not None:
        check_count("backpressure_size", backpressure_size)
        if chunk_size > backpressure_size:
            raise ValueError(
                f"chunk_size={chunk_size} tasks can never be ready with "
                f"backpressure_size={backpressure_size} under way: make it smaller"
            )
    return _mapped(fn, items, backpressure_size, _Chunks(chunk_size, timeout, yield_obj_refs))


def _mapped(
    fn: RemoteFunction, items: Iterable[Any], most: int | None, chunks: _Chunks
) -> Iterator[Any]:
    arrivals: Arrivals | None = None
    for item in items:
        ref = fn.remote(item)
        arrivals = arrivals or Arrivals(ref.session)
        arrivals.add([ref])
        if most is not None and arrivals.num_left >= most:
            yield from chunks.next(arrivals)
    if arrivals is not None:
        yield from chunks.rest(arrivals)


def _check(chunk_size: int, timeout: float | None) -> None:
    if check_count("chunk_size", chunk_size) < 1:
        raise ValueError(f"chunk_size={chunk_size}: it must be at least 1")
    if timeout is not None:
        check_seconds("timeout", timeout)


@dataclass(frozen=True, slots=True)
class _Chunks:
    """How results are taken from those that arrive."""

    size: int
    timeout: float | None
    as_refs: bool

    def next(self, arrivals: Arrivals) -> Iterator[Any]:
        """Yield one chunk."""
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        size = min(self.size, arrivals.num_left)
        found = arrivals.take(size, deadline)
        if len(found) < size:
            raise GetTimeoutError(
                f"of {size} results {len(found)} were ready after {self.timeout:g} s. "
                "The tasks go on"
            )
        found.reverse()
        while found:  # each lives as long as somebody needs it
            yield found.pop() if self.as_refs else runtime.get(found.pop())

    def rest(self, arrivals: Arrivals) -> Iterator[Any]:
        """Yield all that is left, in chunks."""
        while arrivals.num_left:
            yield from self.next(arrivals)
