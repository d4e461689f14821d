"""Rows of a ring: what is whole, what is torn, what was broken off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiled_dag.channel.layout import TRACE_BYTES, Layout
from compiled_dag.table import parse_step
from compiled_dag.trace.ring import (
    BEGIN,
    FAILED_SHIFT,
    TAG,
    Columns,
    Ring,
    valid_rows,
)

STEPS = tuple(map(parse_step, ["R0 v0", "C1 v1=f(v0)", "D v0", "C2 v2=f(v1)", "W1 v2", "D v1,v2"]))
WIDTH = 7


def test_every_step_that_takes_time_has_a_column_of_its_own() -> None:
    columns = Columns.of(STEPS)
    assert columns.width == WIDTH
    assert columns.done == (3, 4, 4, 5, 6, 6)
    assert [columns.before(step) for step in range(len(STEPS))] == [BEGIN, 3, 4, 4, 5, 6]


@given(st.integers(1, 40), st.integers(2, 10_000))
def test_rings_are_inside_their_traces_and_apart(participant, width) -> None:
    layout = Layout.of(42, ())
    ring = Ring.of(layout, participant, Columns((), width))
    assert ring.rows == TRACE_BYTES // (8 * width)
    assert ring.first == layout.trace(participant)
    assert ring.first + ring.rows * ring.row_bytes <= layout.trace(participant + 1)


# --- what a reader believes -----------------------------------------------------------------------


class Copied:
    """A ring as a reader copies it: rows of a writer that may be in the middle of one."""

    def __init__(self, rows: int) -> None:
        self.rows = [[0] * WIDTH for _ in range(rows)]

    def write(self, execution: int, stamps: int = WIDTH) -> None:
        row = self.rows[execution % len(self.rows)]
        whole = [execution + 1, *range(execution * 100, execution * 100 + WIDTH - 1)]
        row[:stamps] = whole[:stamps]

    def executions(self, before: int, after: int | None = None) -> list[int]:
        after = before if after is None else after
        return [row.execution for row in valid_rows(self.rows, before, after)]


def test_an_empty_ring_has_no_rows() -> None:
    assert Copied(4).executions(0) == []


def test_rows_come_in_order_the_newest_last() -> None:
    ring = Copied(8)
    for execution in range(11):
        ring.write(execution)
    assert ring.executions(11) == [4, 5, 6, 7, 8, 9, 10]


def test_rows_that_came_while_it_was_copied_are_left_out_and_so_are_those_they_overwrote() -> None:
    ring = Copied(8)
    for execution in range(11):
        ring.write(execution)
    assert ring.executions(9, 12) == [5, 6, 7, 8]
    assert ring.executions(3, 12) == []


@given(st.integers(0, 50), st.integers(0, WIDTH), st.booleans())
def test_what_may_be_torn_is_never_shown(count, stored, counted) -> None:
    """The writer is in row `count`: it is not there, in part, or whole; perhaps counted since."""
    ring = Copied(8)
    for execution in range(count):
        ring.write(execution)
    ring.write(count, stored)
    rows = valid_rows(ring.rows, count, count + (counted and stored == WIDTH))
    for row in rows:
        whole = (row.execution + 1, *range(row.execution * 100, row.execution * 100 + WIDTH - 1))
        assert row.stamps == whole
    assert len(rows) >= min(count, 6)


@pytest.mark.parametrize("step", [0, 3, 70_000])
def test_the_tag_carries_execution_and_failed_step(step) -> None:
    ring = Copied(4)
    ring.write(2)
    ring.rows[2][TAG] |= step << FAILED_SHIFT
    row = valid_rows(ring.rows, 3, 3)[-1]
    assert (row.execution, row.failed) == (2, step)
