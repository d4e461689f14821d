"""One rank's end of an eager group: its operations, one after the other.

Every operation meets the other ranks in the group's header first (`collective.preflight`), for as
long as the group's `timeout_s`; only what all agree on reaches the backend. What goes wrong
with one rank's tensors is an error of that operation on all ranks, and the group goes on. A rank
that comes too late, dies, leaves or is interrupted breaks the group (`collective.standing`).
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from collective.courier import Courier
from collective.header import OPEN
from collective.lane import Lane, Work, from_here
from collective.process_group import OperationError
from collective.record import describe, mismatch_text
from collective.standing import AGAIN, BrokenError, Noted, Standing
from compiled_dag.errors import (
    ChannelClosedError,
    CollectiveError,
    CollectiveMismatchError,
    CollectiveTimeoutError,
)
from compiled_dag.outcome import Error, Place

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from collective.home import Home
    from collective.operands import Operands
    from collective.preflight import Preflight
    from collective.rank import RankGroup
    from collective.standing import MemberPart, Patience
    from compiled_dag.shm.segment import Segment

_Buffers: TypeAlias = "tuple[torch.Tensor | None, torch.Tensor | None]"


class Member:
    """This process as one rank of a group. Any thread may use it."""

    def __init__(
        self, home: Home, part: MemberPart, pairs: Segment, end: RankGroup, patience: Patience
    ) -> None:
        """Take what joining has made; owns all of it.

        Args:
            home: The way to the session's groups.
            part: Which rank of what.
            pairs: The memory between two ranks each.
            end: The backend, the header, and how to meet the others.
            patience: How the backend waits.
        """
        self.name = part.name
        self.rank = part.rank
        self.world_size = len(part.processes)
        self.backend = end.process_group.backend
        self.timeout_s = part.timeout_s
        self.group_id = part.group_id
        self._home = home
        self._header = end.header
        self._pairs = pairs
        self._end = end
        self._flight: Preflight = end.preflight
        self._patience = patience
        self._standing = Standing(home, part, end.header, end.process_group)
        self._lane = Lane(f"group {part.name!r}")
        self._noted = Noted(home, end.header, part, -1)
        self._records: dict[str, tuple[Any, bytes]] = {}
        self._couriers: dict[tuple[int, bool], Courier] = {}
        self._making = threading.Lock()

    def __repr__(self) -> str:
        return f"<rank {self.rank} of {self.world_size} of the {self.backend} group {self.name!r}>"

    @property
    def is_over(self) -> bool:
        """Whether the group was destroyed from outside, or left."""
        return self._standing.is_over

    # --- operations

    def collective(self, text: str, make: Callable[[], Operands], *, async_op: bool) -> Work | None:
        """Do an operation of all ranks.

        Args:
            text: What messages call it; the same on all ranks.
            make: Makes this rank's part of it, or raises what is wrong with its tensors.
            async_op: Return at once, with a handle.
        """
        operands, error = self._prepared(text, make)

        def operate() -> None:
            self._operate(text, operands, error)

        return self._do(self._lane, text, operate, self._noted, async_op=async_op)

    def barrier(self, *, async_op: bool) -> Work | None:
        """Wait until all ranks are there."""

        def operate() -> None:
            self._operate("barrier", None, None)

        return self._do(self._lane, "barrier", operate, self._noted, async_op=async_op)

    def message(
        self, peer: int, make: Callable[[], torch.Tensor], *, sends: bool, async_op: bool
    ) -> Work | None:
        """Send a tensor to a rank, or receive one from it."""
        tensor: torch.Tensor | None = None
        reason: Exception | None = None
        courier = self._courier(peer, sends=sends)
        try:
            tensor = make()
        except (TypeError, ValueError) as error:
            reason = _of(self._standing.of(courier.text), error)

        def operate() -> None:
            courier.carry(tensor, reason)

        return self._do(courier.lane, courier.text, operate, courier.noted, async_op=async_op)

    def _do(
        self, lane: Lane, text: str, operate: Callable[[], None], noted: Noted, *, async_op: bool
    ) -> Work | None:
        if not async_op and lane.enter():
            try:
                with noted:
                    operate()
            finally:
                lane.leave()
            return None
        if self._standing.closed:
            raise self._standing.destroyed(text)
        work = lane.add(Work(self._standing.of(text), from_here(operate), lambda: noted))
        if async_op:
            return work
        work.wait()
        return None

    def _courier(self, peer: int, *, sends: bool) -> Courier:
        found = self._couriers.get((peer, sends))
        if found is None:
            with self._making:
                found = self._couriers.get((peer, sends))
                if found is None:
                    found = Courier(self._standing, self._pairs, peer, sends=sends)
                    self._couriers[peer, sends] = found
        return found

    # --- of all ranks

    def _prepared(
        self, text: str, make: Callable[[], Operands]
    ) -> tuple[Operands | None, Exception | None]:
        """Return this rank's part, or what is wrong with it, which all ranks are to hear."""
        try:
            operands = make()
        except (TypeError, ValueError) as error:
            return None, _of(self._standing.of(text), error)
        group = self._end.process_group
        lacks = getattr(group, "lacks", None)
        why: str | None = None
        if lacks is not None and lacks(operands.kind.name):
            why = f"the backend {self.backend!r} has no {operands.kind.name}"
        elif operands.op is not None:
            why = group.why_not(operands.tensor, operands.op)
        return operands, None if why is None else _of(self._standing.of(text), TypeError(why))

    def _operate(self, text: str, operands: Operands | None, error: Exception | None) -> None:
        deadline = self._standing.begin(text)
        buffers: _Buffers = (None, None)
        if operands is not None and error is None:
            try:
                buffers = operands.buffers(self._end.process_group)
            except RuntimeError as failure:  # no memory
                error = failure
        try:
            wrong = self._do_together(text, operands, buffers, error, deadline)
        except BrokenError as broken:
            self._standing.fail(broken.error)
        except ChannelClosedError:
            raise self._standing.ended(text) from None
        except BaseException:
            self._standing.interrupted(text)
            raise
        if wrong is not None:
            raise wrong
        if operands is not None:
            operands.finish()

    def _do_together(
        self,
        text: str,
        operands: Operands | None,
        buffers: _Buffers,
        error: Exception | None,
        deadline: float,
    ) -> BaseException | None:
        """Meet the other ranks, and launch; returns what is wrong, where the group goes on."""
        met = self._meet(text, operands, error, deadline)
        if error is not None:
            return error
        if met is not None:
            return self._difference(text, met)
        if operands is None or not operands.tensor.numel():
            return None
        return self._launch(text, operands, buffers, deadline)

    def _meet(
        self, text: str, operands: Operands | None, error: Exception | None, deadline: float
    ) -> list[bytes] | Error | None:
        """Meet the other ranks, and compare."""
        flight, standing = self._flight, self._standing
        if error is not None:
            place = Place(method=text, actor=standing.part.labels[self.rank])
            flight.arrive(b"", Error.capture(error, place, rank=self.rank))
        else:
            flight.arrive(self._record(text, operands), None)
        try:
            return flight.meet(waiter=self._home.waiter, guard=standing.guard, deadline=deadline)
        except TimeoutError:
            late = self._header.late(self.rank)
            raise BrokenError(standing.late(text, late)) from None

    def _launch(
        self, text: str, operands: Operands, buffers: _Buffers, deadline: float
    ) -> BaseException | None:
        """Do the operation, which all ranks agree on; returns as `_do_together`."""
        group, what = self._end.process_group, self._standing.of(text)
        self._patience.deadline = deadline
        try:
            if self._header.state != OPEN:
                raise RuntimeError("another rank has given the group up")  # noqa: TRY301
            work = group.run(operands.kind.name, *buffers, op=operands.op, root=operands.root)
            if work is not None:
                work.wait(deadline)
        except OperationError as failed:
            return self._failure(text, failed)
        except TimeoutError:
            msg = (
                f"{what}: all ranks came, and one of them has not done its part within "
                f"{self.timeout_s} s, the group's timeout_s. {AGAIN}"
            )
            raise BrokenError(CollectiveTimeoutError(msg)) from None
        except RuntimeError as failure:
            who = self._standing.name(self.rank)
            text = f"{what} failed in {group.backend} on {who}: {failure}. {AGAIN}"
            error = CollectiveError(text)
            # At once: others fail because of this rank, and the first cause is to be known.
            self._home.tell("suspect", self.group_id, error)
            self._end.give_up(self._home.waiter, text)
            self._header.guard()
            raise BrokenError(error) from failure
        return None

    def _failure(self, text: str, failed: OperationError) -> BaseException:
        failure = failed.failure
        if not isinstance(failure, Error):
            return failure
        assert failure.rank is not None, "the rank that failed is known"
        place = Place(method=text, actor=self._standing.part.labels[failure.rank])
        return replace(failure, place=place).exception()

    def _difference(self, text: str, met: list[bytes] | Error) -> Exception:
        if isinstance(met, Error):
            return met.exception()
        names = [(label,) for label in self._standing.part.labels]
        what = self._standing.of(text)
        return CollectiveMismatchError(mismatch_text(what, met, names, ("actor",)))

    def _record(self, text: str, operands: Operands | None) -> bytes:
        if operands is None:
            return _BARRIER
        tensor = operands.tensor
        looks = (tensor.dtype, tensor.shape, tensor.device)
        known = self._records.get(text)
        if known is None or known[0] != looks:
            known = self._records[text] = looks, describe(text, tensor)
        return known[1]

    def close(self) -> None:
        """Leave the group. Idempotent; waits a moment for an operation that runs."""
        if self._standing.closed:
            return
        self._standing.closed = True
        self._header.leave(self.rank)
        lanes = self._lane, *(courier.lane for courier in self._couriers.values())
        for lane in lanes:
            lane.close()
        # What waits for ranks that have not come is broken off: it would blame them later.
        self._standing.ends_waits = True
        for lane in lanes:
            lane.close()
        self._end.close()
        self._pairs.close()


_BARRIER = b"barrier"


def _of(text: str, error: TypeError | ValueError) -> TypeError | ValueError:
    """Return what is wrong with a rank's tensors, said of an operation."""
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(f"{text}: {error}")
