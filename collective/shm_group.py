"""A process group over shared memory: tensors in host memory, actors on one machine.

What the ranks do with each other's memory is `collective.exchange`; here is where that memory is,
and how ranks meet, wait, and stop waiting.

*Memory.* Behind the group's header, in the same memfd: two slots per rank, of a fixed size. The
file is sparse: a page costs something once a tensor reached it, is faulted in once per process, and
stays. Larger tensors go through in pieces, so nothing ever grows, and nothing has to be agreed on.
It is all gone with the group's last descriptor and mapping, whoever dies.

*Meetings.* The first meeting of an operation is the `Preflight`, further ones are `Meetings`. The
number of a meeting, which tells the side of the memory, is the sum of both counts.

*Order.* A rank lays, then counts up; another sees the count, then reads. x86-64 keeps stores in
order, and loads too, so nothing is needed between; streaming stores, which it does not keep in
order, are fenced by those who use them (memcpy in glibc). aarch64 keeps nothing in order: there
`fence` stands between laying and counting, and between seeing and reading. The same two keep a rank
from overwriting what others still read: they count up after their reads, it lays after it has seen
that, and neither crosses its fence. Sleeping and waking are those of `shm.board`.

*The end.* Waits are on the process's doorbell, with a guard: it ends them when the driver has
ended the group (a peer's death, the end of the graph), and when another rank has given it up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from collective import arithmetic
from collective.exchange import Exchange
from collective.meetings import Meetings
from collective.slots import memory_bytes
from collective.warm_memory import WarmMemory
from compiled_dag.outcome import Error

if TYPE_CHECKING:
    import torch

    from collective.exchange import Look
    from collective.header import GroupHeader
    from collective.preflight import Preflight
    from collective.shortcut import SmallShortcut
    from compiled_dag.shm.waiter import Waiter

_PARTED: Final = ("reducescatter", "scatter", "all_to_all")


class _Meetings(Meetings):
    """The meetings of one rank: preflights, and those that follow them."""

    def __init__(
        self, header: GroupHeader, preflight: Preflight, rank: int, waiter: Waiter
    ) -> None:
        super().__init__(header, rank, waiter)
        self._rank = rank
        self._preflight = preflight

    @property
    def reached(self) -> int:
        """The number of the last meeting."""
        return self._preflight.turn + self.count

    def spoil(self, failure: Exception) -> None:
        """Show the others that the operation under way has failed here."""
        error = Error.capture(failure, rank=self._rank)
        self._header.spoil(self._rank, self._preflight.turn, error)

    def spoiled(self) -> Error | None:
        """Return how the operation under way has failed on a rank, if it has."""
        return self._header.spoiled(self._preflight.turn)


class SharedMemoryGroup:
    """One rank's end. GPU tensors are staged through host memory."""

    backend = "shm"
    in_place = False

    def __init__(self, exchange: Exchange) -> None:
        """Do operations by `exchange`."""
        self._exchange = exchange
        self._staged: tuple[Look, Any] | None = None
        """What this rank brings to the operation under way, and its array."""
        self._memory = WarmMemory()

    @classmethod
    def join(
        cls, header: GroupHeader, preflight: Preflight, rank: int, waiter: Waiter
    ) -> SharedMemoryGroup:
        """Be a rank of the group that has this header."""
        world_size = header.world_size
        memory = header.segment.map(header.end_of_log, memory_bytes(world_size)).view()
        meetings = _Meetings(header, preflight, rank, waiter)
        return cls(Exchange(memory, rank, world_size, meetings))

    def why_not(self, tensor: torch.Tensor, op: str) -> str | None:
        """Return why `tensor` cannot be reduced with `op`, or None."""
        return arithmetic.why_not(tensor, op)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, _device: Any) -> torch.Tensor:
        """Return contiguous host memory."""
        return self._memory.empty(shape, dtype)

    def stage(self, kind: str, tensor: torch.Tensor, op: str | None, root: int) -> torch.Tensor:
        """Lay the first piece of `tensor` for the other ranks; returns `tensor` itself."""
        if tensor.numel():
            look = self._look(kind, tensor, op, root)
            array = self._exchange.arithmetic(look).array(tensor)
            self._exchange.lay(look, array)
            self._staged = look, array
        return tensor

    def run(
        self,
        kind: str,
        send: torch.Tensor | None,
        receive: torch.Tensor | None,
        *,
        op: str | None,
        root: int,
    ) -> None:
        """Do an operation to its end.

        Raises:
            OperationError: It failed here, or on another rank; the group goes on.
            RuntimeError: Another rank has given the group up.
            ChannelClosedError: The driver has ended the group.
        """
        staged, self._staged = self._staged, None
        if send is None:
            assert receive is not None, "a rank that brings nothing gets something"
            look, array = (kind, op, root, receive.dtype, receive.numel()), None
        else:
            assert staged is not None, "what is sent has been staged"
            look, array = staged
        self._exchange.run(look, array, receive)

    def shortcut(
        self,
        kind: str,
        tensor: torch.Tensor,
        op: str | None,
        root: int,
        shape_of_result: tuple[int, ...] | None,
    ) -> SmallShortcut | None:
        """Return a shortcut for small tensors like this one."""
        if not tensor.numel():
            return None
        look = self._look(kind, tensor, op, root)
        return self._exchange.shortcut(look, tuple(tensor.shape), shape_of_result)

    def _look(self, kind: str, tensor: torch.Tensor, op: str | None, root: int) -> Look:
        count = tensor.numel()
        length = count // self._exchange.world_size if kind in _PARTED else count
        return kind, op, root, tensor.dtype, length

    def abort(self) -> None:
        """Forget the operation under way; peers see by the group's state that it is over."""
        self._staged = None
        self._memory.close()
