"""Logical resources: what a task or actor asks for, and what a session has left of them.

Counters only, nothing is measured. Amounts are whole numbers of 1/10,000, so that shares add
up exactly.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.gpus import GpuPool

UNITS: Final = 10_000


class Demand(NamedTuple):
    """What one task, or one actor for its life, holds."""

    num_cpus: int = 0
    """In 1/10,000."""
    num_gpus: float = 0
    others: tuple[tuple[str, int], ...] = ()
    """Custom resources by name, in 1/10,000."""

    @staticmethod
    def of(
        num_cpus: float = 0, num_gpus: float = 0, others: Mapping[str, float] | None = None
    ) -> Demand:
        """Make a demand from amounts as users give them."""
        custom = sorted((others or {}).items())
        return Demand(
            round(num_cpus * UNITS),
            num_gpus,
            tuple((name, round(amount * UNITS)) for name, amount in custom if amount),
        )

    def amounts(self) -> dict[str, float]:
        """Return what it asks for, by the names users see; nothing that is 0."""
        found = {"CPU": self.num_cpus / UNITS, "GPU": self.num_gpus}
        found |= {name: units / UNITS for name, units in self.others}
        return {name: amount for name, amount in found.items() if amount}

    def __str__(self) -> str:
        return ", ".join(f"{name}: {amount:g}" for name, amount in self.amounts().items()) or "none"


class Grant(NamedTuple):
    """What was taken for a demand."""

    demand: Demand
    gpu_ids: tuple[int, ...] = ()


class Ledger:
    """A session's resources. Any thread may use it."""

    def __init__(self, num_cpus: float, gpus: GpuPool, others: Mapping[str, float]) -> None:
        self._lock = threading.Lock()
        self._gpus = gpus
        self._totals = {"CPU": round(num_cpus * UNITS)}
        self._totals |= {name: round(amount * UNITS) for name, amount in others.items()}
        self._free = dict(self._totals)

    def missing(self, demand: Demand) -> str:
        """Return what of `demand` the session does not have even when idle; empty if nothing."""
        totals = self.totals()
        short = [
            f"{name}: {amount:g} of {totals.get(name, 0):g}"
            for name, amount in demand.amounts().items()
            if amount > totals.get(name, 0)
        ]
        if not short and not self._gpus.fits_ever(demand.num_gpus):
            short = [f"GPU: {demand.num_gpus:g} of {self._gpus.total:g}, as one device"]
        return ", ".join(short)

    def take(self, demand: Demand, *, insist: bool = False) -> Grant | None:
        """Take what is asked for, or nothing: None if there is not enough now.

        Args:
            demand: What is asked for.
            insist: Take the CPUs even if that overdraws them.
        """
        with self._lock:
            free = self._free
            if demand.num_cpus > max(free["CPU"], 0) and not insist:
                return None
            if any(units > free.get(name, 0) for name, units in demand.others):
                return None
            gpu_ids = self._gpus.take(demand.num_gpus)
            if gpu_ids is None:
                return None
            free["CPU"] -= demand.num_cpus
            for name, units in demand.others:
                free[name] -= units
            return Grant(demand, gpu_ids)

    def give_back(self, grant: Grant) -> None:
        """Return what `take` gave."""
        with self._lock:
            self._free["CPU"] += grant.demand.num_cpus
            for name, units in grant.demand.others:
                self._free[name] += units
            self._gpus.give_back(grant.gpu_ids, grant.demand.num_gpus)

    def lend_cpus(self, units: int) -> None:
        """Give CPUs of a holder that waits to others, or take them back (negative), at any rate."""
        with self._lock:
            self._free["CPU"] += units

    @property
    def overdrawn(self) -> bool:
        """Tell whether more CPUs are in use than there are: waiting holders went on."""
        return self._free["CPU"] < 0

    def totals(self) -> dict[str, float]:
        """Return the session's resources by name."""
        found = {name: units / UNITS for name, units in self._totals.items()}
        return found | ({"GPU": self._gpus.total} if self._gpus.total else {})

    def available(self) -> dict[str, float]:
        """Return what is free of them now."""
        with self._lock:
            found = {name: max(units, 0) / UNITS for name, units in self._free.items()}
            return found | ({"GPU": self._gpus.available} if self._gpus.total else {})
