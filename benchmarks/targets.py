"""Say what figures are to be reached, and which were: pure data and comparison.

A target names rows by their fields and one figure of them. The ratio to the floor, taken in one run
on one machine, binds; the ratio to Ray is beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.registry import Row, Scalar

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """One figure to reach."""

    rows: Mapping[str, Scalar]
    """Fields that the rows have which it is about."""
    figure: str
    """The field that counts."""
    limit: float
    above: bool = False
    """Whether it is to be at least `limit`; otherwise at most."""

    def fits(self, row: Row) -> bool:
        """Tell whether it is about a row that has the figure."""
        same = all(row.get(name) == value for name, value in self.rows.items())
        return same and isinstance(row.get(self.figure), (int, float))

    def is_met(self, row: Row) -> bool:
        """Tell whether such a row reaches it."""
        value = row[self.figure]
        assert isinstance(value, (int, float))
        return value >= self.limit if self.above else value <= self.limit

    def __str__(self) -> str:
        about = " ".join(str(value) for value in self.rows.values())
        return f"{about}: {self.figure} {'at least' if self.above else 'at most'} {self.limit:g}"


def at_least(limit: float, figure: str = "ray_ratio", **rows: Scalar) -> Target:
    """Return a target from below."""
    return Target(rows, figure, limit, above=True)


def at_most(limit: float, figure: str = "ratio", **rows: Scalar) -> Target:
    """Return a target from above."""
    return Target(rows, figure, limit)


TARGETS = (
    at_most(1.8, case="chain", actors=1),
    at_most(1.7, case="chain", actors=4),
    at_most(1.7, case="chain", actors=8),
    at_least(7, case="chain", actors=1),
    at_least(10, case="chain", actors=4),
    at_least(10, case="chain", actors=8),
    at_least(10, case="fan-out", actors=4),
    at_least(6, case="pipelined", actors=1),
    at_least(10, case="pipelined", actors=4),
    at_most(1.3, case="payload", what="numpy in", bytes=MIB),
    at_most(1.3, case="payload", what="numpy echo", bytes=MIB),
    at_most(1.3, case="payload", what="numpy between", bytes=MIB),
    at_most(1.3, case="payload", what="torch in", bytes=MIB),
    at_most(1.3, case="payload", what="torch in", bytes=64 * MIB),
    at_least(20, case="payload", what="torch in", bytes=MIB),
    at_least(20, case="payload", what="torch in", bytes=64 * MIB),
    at_most(1.15, "memcpy_ratio", case="payload", what="numpy between", bytes=64 * MIB),
    at_most(1.3, case="readers", what="numpy", actors=4, bytes=64 * MIB),
    at_most(1.3, case="readers", what="bytes", actors=4, bytes=64 * MIB),
    at_least(5, case="awaited", actors=1),
    at_least(5, case="awaited", actors=4),
    at_least(12, case="core", what="actor call"),
    at_least(12, case="core", what="task"),
    at_least(8, case="core", what="put, get in an actor, int"),
    at_least(5, case="core", what="put, get in an actor, 1 MiB"),
    at_most(1.15, case="collectives", what="gloo inside", bytes=MIB),
    at_most(1.15, case="collectives", what="gloo inside", bytes=64 * MIB),
    at_most(1.3, case="collectives", what="gloo inside", bytes=4),
    at_most(1.5, "shm_ratio", case="collectives", what="shm inside", bytes=MIB),
    at_most(1.5, "shm_ratio", case="collectives", what="shm inside", bytes=64 * MIB),
    at_most(1 / 15, case="collectives", what="shm inside", bytes=4),
    at_most(1000, "us_per_node", case="compile-nodes", nodes=32, actors=4),
    at_most(1000, "us_per_node", case="compile-nodes", nodes=1000, actors=4),
    at_most(10_000, "ours_us", case="compile-nodes", what="teardown", nodes=32, actors=4),
    at_least(4, case="memory", what="compiled chain", actors=4),
    at_most(1, "ours_percent", case="idle"),
    at_most(1, "pipe_p99_ratio", case="hog", actors=1),
    at_most(1, "pipe_p99_ratio", case="hog", actors=4),
    at_most(1.15, "tail", case="scaling"),
    at_most(1.2, "copies_ratio", case="gpu", what="hop", bytes=64 * MIB, device="cuda"),
    at_most(30, "ours_us", case="gpu", what="host", device="cuda"),
    at_most(100, "overhead_us", case="gpu", what="pipeline", device="cuda"),
)


def verdicts(
    rows: Sequence[Row], targets: Sequence[Target] = TARGETS
) -> Iterator[tuple[Target, Row, bool]]:
    """Yield every target with each row it is about, and whether that reaches it."""
    for target in targets:
        for row in filter(target.fits, rows):
            yield target, row, target.is_met(row)
