"""Hold what can be measured and against whom; cases and peers register themselves.

A new case is a module in `MODULES` with a function under `@case`. A new peer calls `peer(...)`
in its module; every case that compares sides then takes it through `Config.peer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from benchmarks.rounds import Side

MODULES = (
    "benchmarks.shapes",
    "benchmarks.payloads",
    "benchmarks.lives",
    "benchmarks.collectives",
    "benchmarks.gpu",
    "benchmarks.core",
    "benchmarks.startup",
    "benchmarks.weights",
    "benchmarks.hog",
    "benchmarks.scaling",
    "benchmarks.instructions",
    "benchmarks.peers",
)

Scalar: TypeAlias = str | int | float | bool
Row: TypeAlias = dict[str, Scalar]
"""One measured configuration, as it is printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another system that cases can be run against."""

    name: str
    help: str
    open: Callable[[str, str, Config], AbstractContextManager[Side]]
    """Start the peer's side, by the peer's name and that of the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One configuration to measure."""

    actors: int
    rounds: int
    trips: int
    """Timed trips per block and side."""
    what: str = ""
    """Which part of the case, where it has several."""
    nbytes: int = 0
    """Bytes of what is sent, where that matters."""
    quick: bool = False
    peer: Peer | None = None

    def open_peer(self, what: str) -> AbstractContextManager[Side | None]:
        """Start the peer's side of a work; none where no peer is asked for."""
        if self.peer is None:
            return nullcontext()
        return self.peer.open(self.peer.name, what, self)


Run: TypeAlias = Callable[[Config], Iterator[Row]]


NO_WHATS, NO_SIZES = ("",), (0,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The parameters of a case: a configuration for every combination."""

    actors: tuple[int, ...]
    rounds: int
    trips: int = 1
    whats: tuple[str, ...] = NO_WHATS
    sizes: tuple[int, ...] = NO_SIZES
    """Bytes."""
    quick: bool = False
    peer: Peer | None = None

    def configs(self) -> Iterator[Config]:
        """Yield the configurations in order."""
        for what, nbytes, actors in product(self.whats, self.sizes, self.actors):
            yield Config(
                actors=actors,
                rounds=self.rounds,
                trips=self.trips,
                what=what,
                nbytes=nbytes,
                quick=self.quick,
                peer=self.peer,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Something to measure."""

    name: str
    help: str
    run: Run
    full: Plan
    quick: Plan
    limit_s: float
    """When a configuration of this case is broken off."""

    def plan(
        self,
        *,
        quick: bool,
        actors: tuple[int, ...] | None,
        rounds: int | None,
        peer: Peer | None,
        parts: tuple[str, ...] = (),
        sizes: tuple[int, ...] = (),
    ) -> Plan:
        """Return this case's plan with what the command line set.

        Raises:
            ValueError: the case has no such part, or none at all; or nothing of any size.
        """
        plan = self.quick if quick else self.full
        if sizes and plan.sizes == NO_SIZES:
            raise ValueError(f"--bytes: {self.name} sends nothing whose size can be chosen")
        return replace(
            plan,
            whats=self._whats(parts) or plan.whats,
            sizes=sizes or plan.sizes,
            actors=actors or plan.actors,
            rounds=rounds or plan.rounds,
            quick=quick,
            peer=peer,
        )

    def _whats(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """Return the parts, also those that quick runs leave out, that have one of these words."""
        known = self.full.whats
        for part in parts:
            if not any(part in what for what in known):
                listed = f"its parts are {', '.join(known)}" if known != NO_WHATS else "it has none"
                raise ValueError(f"--what: {self.name} has no part {part!r}; {listed}")
        return tuple(what for what in known if any(part in what for part in parts))


CASES: dict[str, Case] = {}
PEERS: dict[str, Peer] = {}


def case(*, full: Plan, quick: Plan, limit_s: float = 120.0) -> Callable[[Run], Run]:
    """Register the decorated function as a case; its first docstring line is the case's help."""

    def register(run: Run) -> Run:
        name = run.__name__.replace("_", "-")
        if name in CASES:
            raise ValueError(f"there is already a case {name!r}")
        about = (run.__doc__ or "").partition("\n")[0]
        CASES[name] = Case(name=name, help=about, run=run, full=full, quick=quick, limit_s=limit_s)
        return run

    return register


def peer(new: Peer) -> Peer:
    """Register a peer."""
    if new.name in PEERS:
        raise ValueError(f"there is already a peer {new.name!r}")
    PEERS[new.name] = new
    return new


def load() -> None:
    """Import every module that registers something."""
    for module in MODULES:
        import_module(module)
