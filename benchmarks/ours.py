"""Our side of each case: used as a user would."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import runtime
from benchmarks.rounds import Side
from benchmarks.systems import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.works import Work


@contextmanager
def session() -> Iterator[None]:
    """Start the runtime and shut it down again, so that no case inherits another's processes."""
    runtime.init()
    try:
        yield
    finally:
        runtime.shutdown()


@contextmanager
def side(work: Work) -> Iterator[Side]:
    """Start a work in the running session."""
    with work(OURS) as block:
        yield Side(name="ours", block=block)
