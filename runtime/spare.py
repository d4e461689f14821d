"""Memory for the result of a call, which the driver sends along with it.

The driver has what is left of earlier values (`runtime.warm`); an actor would write a large result
into new memory, which takes ten times as long. So a call of a method whose last result was large is
sent with memory of that size. The driver keeps its own descriptor: the reply only says that the
result is in there, or does not, and then nobody has it any more but the driver.

Nobody sees such memory but who writes the result: it was nobody's before, and what is in it belongs
to the reply. A process that the method forks and that returns from it, too, does not write there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from compiled_dag.shm.forks import generation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.messages import Call
    from runtime.parcel import Parcel
    from runtime.warm import WarmMemory


class Spare:
    """A segment that nobody sees, for one value at most; closed with the last reference to this."""

    __slots__ = ("_generation", "fd")

    def __init__(self, fd: int) -> None:
        """Own a descriptor."""
        self._generation = generation[0]
        self.fd = fd

    def take(self, nbytes: int) -> int:
        """Return the descriptor, which is the caller's then, if so much fits in; else -1."""
        fd = self.fd
        if fd < 0 or self._generation != generation[0] or os.fstat(fd).st_size < nbytes:
            return -1
        self.fd = -1
        return fd

    # A default, not a global name: it may run when the module's globals are already gone.
    def __del__(self, _close=os.close) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
        if self.fd >= 0:
            _close(self.fd)


class Spares:
    """What one process has been lent, by the driver. Any thread may use it: it takes no lock."""

    def __init__(self, memory: WarmMemory) -> None:
        """Begin with nothing lent; `memory` is where it comes from, and goes back to."""
        self._memory = memory
        self.sizes: dict[str, int] = {}
        """Bytes of the last result of every method whose last one was large, by its name."""
        self.lent: dict[int, Spare] = {}
        """By number of the call."""

    def lend_to(self, call: Call, name: str) -> Call:
        """Return a call with memory for its one result, if that is likely to be large.

        Args:
            call: About to be sent.
            name: Of the method or function.
        """
        nbytes = self.sizes.get(name) if self.sizes and call.num_returns == 1 else None
        fd = -1 if nbytes is None else self._memory.take(nbytes)
        if fd < 0:
            return call
        spare = self.lent[call.number] = Spare(fd)
        return call._replace(spare=spare)

    def use(self, number: int) -> int:
        """Return the memory that a call was lent: its result is there. The caller owns it.

        Raises:
            OSError: It was lent none.
        """
        spare = self.lent.pop(number, None)
        fd = -1 if spare is None else spare.take(0)
        if fd < 0:
            raise OSError(f"the result of call {number} is in memory that it was not lent")
        return fd

    def settle(self, number: int, name: str, parcels: Sequence[Parcel]) -> None:
        """Take back what a call did not use that is answered; note how large its result is.

        Args:
            number: Of the call.
            name: Of the method or function; empty: nothing is noted.
            parcels: The results.
        """
        if not self.lent and not (parcels and parcels[0].fd >= 0):
            return  # almost all calls
        large = [parcel.size for parcel in parcels if parcel.fd >= 0]
        if large and name:
            self.sizes[name] = large[0]
        else:
            self.sizes.pop(name, None)
        self._take_back(number)

    def close(self) -> None:
        """Take everything back: the process is gone. Idempotent."""
        for number in list(self.lent):
            self._take_back(number)

    def abandon(self) -> None:
        """Close the descriptors, in a forked child: the memory is its parent's."""
        self.lent.clear()

    def _take_back(self, number: int) -> None:
        spare = self.lent.pop(number, None)
        fd = -1 if spare is None else spare.take(0)
        if fd >= 0 and not self._memory.give(fd):
            os.close(fd)
