"""Collective operations over memory that all ranks see. Knows neither processes nor how they wait.

Every rank has a slot on each of two *sides* of the memory. Ranks lay something in their own slot,
meet, and read in each other's; then they lay the next thing on the other side, and meet again::

    meeting     n - 1             n              n + 1
    side        odd               even           odd
    rank 0      | read n-1, lay n | read n, lay n+1 | ...
    rank 1      | read n-1, lay n | read n, lay n+1 | ...

One meeting a piece is enough: who lays for meeting n + 1 has passed meeting n, so all have arrived
there, and had read what was laid for meeting n - 1, on the same side. So the rule is: *what is laid
for meeting n is on side n % 2, and is read after that meeting, before arriving at the next*.

The first piece is laid before the ranks compare what they bring, and their meeting then is its
meeting: an operation on a small tensor is one meeting in all. A large tensor goes in pieces, which
stay in the processors' caches and keep the memory small, whatever the size of the tensors.

Three ways to lay and read do for all kinds. Laid is a piece of the tensor, or of each of the W
parts of it (then each rank reads at its own part's place). Read is: all slots, combined; all slots,
joined; or the root's slot.

Reducing, every rank combines everything (W = 2, or little), or every rank combines one of W slices
of a piece, and the ranks read each other's results after the next meeting, for which the next piece
has been laid too. The first reads W times the tensor, the second 2 times, with a meeting more.

Nothing is left to be finished later, or by a thread: all ranks are there when they have met, and
moving memory takes the same core as computing does. So an operation is over when `run` returns,
memory of two pieces is enough for any number of operations, and no rank waits in `Work.wait`.

A rank on which something is raised, of memory or by a library, goes on meeting the others until the
last meeting, and shows before that that the operation is spoilt: then it fails on all ranks, which
all are where they are after any other. What is raised after the last meeting fails there alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from collective.arithmetic import NUMPY, Arithmetic, arithmetic_for, combine_all
from collective.process_group import OperationError
from collective.shortcut import SmallShortcut
from compiled_dag.channel.warm import LARGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch

    from collective.arithmetic import Combine
    from compiled_dag.outcome import Error

Look: TypeAlias = "tuple[str, str | None, int, torch.dtype, int]"
"""Kind, reduce op, root, dtype, and elements of a part."""

_SLICED_BYTES: Final = 64 * 1024
"""What is smaller is combined by everybody, among any number: a meeting costs more."""

_FEW: Final = 2
"""So few ranks combine everything, whatever its size; and each takes what it brings itself from
where it has it, not from its slot, so that a slot's lines go from one core to the other and no
further: 1 MiB takes 75 us instead of 171."""

_ALIGNED: Final = 64
"""Elements: pieces and slices begin on lines of the cache, whatever the dtype."""

_MAX_PLANS: Final = 256


class Meetings(Protocol):
    """How the ranks meet."""

    @property
    def reached(self) -> int:
        """The number of the last meeting: the same on all ranks."""
        ...

    def meet(self) -> None:
        """Go to the next meeting; what was laid before it can be read after it."""
        ...

    def spoil(self, failure: Exception) -> None:
        """Show the others, from the next meeting on, that this operation has failed here."""
        ...

    def spoiled(self) -> Error | None:
        """Return how this operation has failed on a rank, if it has."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the operations of a kind lay and read."""

    parted: bool
    """Whether a piece is one of each rank's part, or one of the whole."""
    read: Literal["combined", "joined", "root"]


WAYS: Final = {
    "allreduce": Way(parted=False, read="combined"),
    "reduce": Way(parted=False, read="combined"),
    "reducescatter": Way(parted=True, read="combined"),
    "allgather": Way(parted=False, read="joined"),
    "gather": Way(parted=False, read="joined"),
    "all_to_all": Way(parted=True, read="joined"),
    "broadcast": Way(parted=False, read="root"),
    "scatter": Way(parted=True, read="root"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an operation on tensors of one look does."""

    arithmetic: Arithmetic
    read: Literal["combined", "joined", "root"]
    root: int
    combine: Combine | None
    parts: int
    """Of the tensor that is laid: 1, or one per rank."""
    length: int
    """Of a part, in elements."""
    piece: int
    """Elements of a part between two meetings."""
    slice: int
    """Elements that each rank combines for all; 0 if every rank combines everything."""
    mine: tuple[Any, Any]
    """By side: this rank's slot, as parts of one piece."""
    rows: tuple[Sequence[Any], Sequence[Any]]
    """By side: what to read of every slot."""
    table: tuple[Any, Any]
    """By side: the same as one array of two dimensions."""
    results: tuple[Sequence[Any], Sequence[Any]]
    """By side: the slices that the ranks have combined."""

    @property
    def pieces(self) -> int:
        """How many there are."""
        return -(-self.length // self.piece)

    @property
    def meetings(self) -> int:
        """How many there are, the first of which is that of what the ranks bring."""
        return self.pieces + bool(self.slice)


class Exchange:
    """One rank's part in all operations."""

    def __init__(self, memory: memoryview, rank: int, world_size: int, meetings: Meetings) -> None:
        """Share `memory` with the other ranks.

        Args:
            memory: `memory_bytes(world_size)` bytes, seen by all ranks.
            rank: This one.
            world_size: How many there are.
            meetings: How they meet.
        """
        self._memory = memory
        self._rank = rank
        self.world_size = world_size
        self._meetings = meetings
        self._plans: dict[Look, Plan] = {}

    def lay(self, look: Look, send: Any) -> None:
        """Lay the first piece of `send`, for the meeting to come."""
        plan = self._plans.get(look) or self._plan(look)
        if plan.slice:
            self._lay_slices(plan, send, 0, 1 - (self._meetings.reached & 1))
        else:
            self._lay(plan, send, 0, 1 - (self._meetings.reached & 1))

    def run(self, look: Look, send: Any, receive: torch.Tensor | None) -> None:
        """Do the rest of an operation, once the ranks have met.

        Args:
            look: The same on all ranks.
            send: A flat array of the look's arithmetic; None on ranks that bring nothing.
            receive: Contiguous memory for the result; None on ranks that get nothing.

        Raises:
            OperationError: It failed here, or on another rank.
        """
        plan = self._plans.get(look) or self._plan(look)
        meetings, last = self._meetings, plan.meetings - 1
        do = self._do_slice if plan.slice else self._do_piece
        into, failure = None, None
        for number in range(last + 1):
            if failure is None:
                try:
                    if receive is not None and into is None:
                        into = plan.arithmetic.array(receive)
                    do(plan, send, into, number, meetings.reached & 1)
                except Exception as raised:  # noqa: BLE001  the others must not wait for this rank
                    failure = raised
                    if number != last:
                        meetings.spoil(raised)
            if number != last:
                meetings.meet()
        spoiled = meetings.spoiled() if last else None
        if failure is not None:
            raise OperationError(failure, everywhere=spoiled is not None) from failure
        if spoiled is not None:
            raise OperationError(spoiled, everywhere=True)

    def shortcut(
        self, look: Look, shape: tuple[int, ...], shape_of_result: tuple[int, ...] | None
    ) -> SmallShortcut | None:
        """Return a shortcut for tensors of one shape; None if they are too large for it.

        Args:
            look: As for `run`.
            shape: Of the tensors.
            shape_of_result: None on ranks that get nothing.
        """
        plan = self._plans.get(look) or self._plan(look)
        if plan.arithmetic is not NUMPY or plan.slice or plan.pieces != 1:
            return None
        if math.prod(shape_of_result or ()) * look[3].itemsize >= LARGE_BYTES:
            return None  # it would be in new memory, which takes longer than it saves
        divisor = self.world_size if look[1] == "AVG" else 1
        own = self._rank if len(plan.rows[0]) == _FEW and not WAYS[look[0]].parted else None
        return SmallShortcut(plan, self._meetings, shape, shape_of_result, divisor, own)

    def arithmetic(self, look: Look) -> Arithmetic:
        """Return what arrays are to be made with."""
        return (self._plans.get(look) or self._plan(look)).arithmetic

    # --- one piece --------------------------------------------------------------------------------

    def _do_piece(self, plan: Plan, send: Any, receive: Any, number: int, side: int) -> None:
        """Read a piece, and lay the next one for the meeting to come."""
        if receive is not None:
            self._read(plan, send, receive, number, side)
        if send is not None and number + 1 < plan.pieces:
            self._lay(plan, send, number + 1, 1 - side)

    def _lay(self, plan: Plan, send: Any, number: int, side: int) -> None:
        parts, mine = send.reshape(plan.parts, plan.length), plan.mine[side]
        if plan.piece != plan.length:
            start = number * plan.piece
            parts = parts[:, start : start + plan.piece]
            mine = mine[:, : parts.shape[1]]
        plan.arithmetic.copy(mine, parts)

    def _read(self, plan: Plan, send: Any, receive: Any, number: int, side: int) -> None:
        start = number * plan.piece
        size = min(plan.piece, plan.length - start)
        rows: Any = plan.rows[side]
        copy = plan.arithmetic.copy
        if plan.read == "joined":
            target = receive.reshape(self.world_size, plan.length)[:, start : start + size]
            copy(target, plan.table[side][:, :size])
            return
        if size != plan.piece:
            rows = [row[:size] for row in rows]
        target = receive if size == plan.length else receive[start : start + size]
        if plan.combine is None:
            copy(target, rows[plan.root])
        elif len(rows) == 1:
            copy(target, rows[0])
        else:
            if len(rows) == _FEW and send is not None:
                rows = list(rows)
                rows[self._rank] = self._own(plan, send, start, size)
            combine_all(plan.combine, rows, target)

    def _own(self, plan: Plan, send: Any, start: int, size: int) -> Any:
        """Return what of `send` is a row on this rank."""
        parts = send.reshape(plan.parts, plan.length)
        return parts[self._rank if plan.parts > 1 else 0][start : start + size]

    # --- pieces of which every rank combines a slice ----------------------------------------------

    def _do_slice(self, plan: Plan, send: Any, receive: Any, number: int, side: int) -> None:
        """Read the results of a piece, combine a slice of the next one, and lay one more."""
        if number and receive is not None:
            self._read_results(plan, receive, number - 1, side)
        if number < plan.pieces:
            self._combine_slice(plan, send, receive, number, side)
        if number + 1 < plan.pieces:
            self._lay_slices(plan, send, number + 1, 1 - side)

    def _lay_slices(self, plan: Plan, send: Any, number: int, side: int) -> None:
        """Lay a piece without the slice that this rank combines itself."""
        start = number * plan.piece
        piece, mine = send[start : start + plan.piece], plan.mine[side][0]
        before, after = self._rank * plan.slice, (self._rank + 1) * plan.slice
        size = len(piece)
        for low, high in ((0, min(before, size)), (min(after, size), size)):
            if low < high:
                plan.arithmetic.copy(mine[low:high], piece[low:high])

    def _combine_slice(self, plan: Plan, send: Any, receive: Any, number: int, side: int) -> None:
        """Combine this rank's slice, and lay the result for the meeting to come."""
        low, high = self._slice(plan, number, self._rank)
        size = high - low
        if size <= 0:
            return
        start = number * plan.piece
        rows = [row[low - start : high - start] for row in plan.rows[side]]
        rows[self._rank] = send[low:high]
        result = plan.results[1 - side][self._rank][:size]
        assert plan.combine is not None
        combine_all(plan.combine, rows, result)
        if receive is not None:  # only now: it may be the memory of `send`
            plan.arithmetic.copy(receive[low:high], result)

    def _read_results(self, plan: Plan, receive: Any, number: int, side: int) -> None:
        for rank, result in enumerate(plan.results[side]):
            low, high = self._slice(plan, number, rank)
            if rank != self._rank and low < high:
                plan.arithmetic.copy(receive[low:high], result[: high - low])

    def _slice(self, plan: Plan, number: int, rank: int) -> tuple[int, int]:
        """Return where in the tensor a rank's slice of a piece is."""
        start = number * plan.piece
        end = min(start + plan.piece, plan.length)
        low = start + rank * plan.slice
        return low, min(low + plan.slice, end)

    # --- plans ------------------------------------------------------------------------------------

    def _plan(self, look: Look) -> Plan:
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        plan = self._plans[look] = self._make_plan(*look)
        return plan

    def _make_plan(
        self, name: str, op: str | None, root: int, dtype: torch.dtype, length: int
    ) -> Plan:
        way, ranks, itemsize = WAYS[name], self.world_size, dtype.itemsize
        combined = way.read == "combined" and not way.parted
        sliced = combined and ranks > _FEW and length * itemsize > _SLICED_BYTES
        alike = combined and not sliced
        arithmetic = arithmetic_for(dtype, length * itemsize, alike=alike)
        sides = [self._side(side, arithmetic, dtype) for side in (0, 1)]
        room, parts, size = sides[0].shape[1], 1, 0
        if way.parted:
            parts = ranks
            piece = _even(length, room // ranks)
        elif sliced:
            piece = _even(length, (room - _ALIGNED) * ranks // (ranks + 1))
            size = _even(piece, -(-piece // ranks) + _ALIGNED - 1)
        else:
            piece = _even(length, room)
        place = self._rank * piece if way.parted else 0
        tables = [side[:, place : place + piece] for side in sides]
        return Plan(
            arithmetic=arithmetic,
            read=way.read,
            root=root,
            combine=None if op is None else arithmetic.combine[op],
            parts=parts,
            length=length,
            piece=piece,
            slice=size,
            mine=_both(side[self._rank][: parts * piece].reshape(parts, piece) for side in sides),
            rows=_both(list(table) for table in tables),
            table=_both(tables),
            results=_both(list(side[:, piece : piece + size]) for side in sides),
        )

    def _side(self, side: int, arithmetic: Arithmetic, dtype: torch.dtype) -> Any:
        """Return one side of the memory as an array of two dimensions, a row per rank."""
        half = len(self._memory) // 2
        flat = arithmetic.view(self._memory[side * half : (side + 1) * half], dtype)
        return flat.reshape(self.world_size, -1)


def _both(pair: Iterable[Any]) -> tuple[Any, Any]:
    even, odd = pair
    return even, odd


def _even(length: int, room: int) -> int:
    """Return the size of equal pieces of `length` elements that fit into `room`, aligned."""
    if length <= room:
        return length
    pieces = -(-length // room)
    size = -(-length // pieces)
    return min(-(-size // _ALIGNED) * _ALIGNED, room)
