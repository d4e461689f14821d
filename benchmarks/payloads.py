"""The cases of payloads: numpy arrays, tensors, bytes and dictionaries of arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import floor_payloads
from benchmarks.registry import Config, Plan, Row, case
from benchmarks.sides import fewer, measure
from benchmarks.values import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB, MIB = 1 << 10, 1 << 20
_SIZES = (KIB, 64 * KIB, MIB, 16 * MIB, 64 * MIB)
_WAYS = ("in", "out", "echo", "between")


@case(
    full=Plan(
        actors=(1,),
        rounds=7,
        trips=200,
        sizes=_SIZES,
        whats=tuple(f"{kind} {way}" for kind in KINDS for way in _WAYS),
    ),
    quick=Plan(
        actors=(1,),
        rounds=3,
        trips=50,
        sizes=(KIB, MIB),
        whats=tuple(f"{kind} {way}" for kind in KINDS for way in ("in", "between")),
    ),
)
def payload(config: Config) -> Iterator[Row]:
    """A payload in, out, in and out, or from one actor to another."""
    kind, way = config.what.split()
    below = floor_payloads.payload(kind, way, config.nbytes)
    copy = floor_payloads.memcpy(config.nbytes)
    row = measure(config, f"payload {config.what} {config.nbytes}", below, [copy], fewer(config))
    yield row | {"actors": 2 if way == "between" else 1}


@case(
    full=Plan(actors=(1, 2, 4), rounds=7, trips=200, sizes=(MIB, 64 * MIB), whats=KINDS),
    quick=Plan(actors=(1, 4), rounds=3, trips=50, sizes=(MIB,), whats=KINDS),
)
def readers(config: Config) -> Iterator[Row]:
    """One payload from the driver to several actors."""
    below = floor_payloads.readers(config.what, config.actors, config.nbytes)
    work = f"readers {config.what} {config.actors} {config.nbytes}"
    copy = floor_payloads.memcpy(config.nbytes)
    yield measure(config, work, below, [copy], fewer(config))


@case(
    full=Plan(actors=(1,), rounds=7, trips=200, sizes=(12 * KIB, 768 * KIB, 12 * MIB)),
    quick=Plan(actors=(1,), rounds=3, trips=50, sizes=(12 * KIB, 768 * KIB)),
)
def nested(config: Config) -> Iterator[Row]:
    """Three dictionaries of four arrays each, in and out."""
    below = floor_payloads.nested(config.nbytes)
    yield measure(config, f"nested {config.nbytes}", below, trips=fewer(config))
