"""A process group of ranks that share one GPU, where NCCL refuses them: "cuda_ipc".

Every rank owns a piece of GPU memory, outside torch's caching allocator, exported once and opened
by all others (CUDA IPC), with two *sides*; and two events for each side. Meetings are those of the
`Preflight`, which stays as it is; meeting n is about side n % 2:

    rank r, operation n
      stage   stream waits for done[side] of every other rank
              copy what it brings to its side; record ready[side]
      meet    (hosts) all have staged, and bring what goes together
      run     stream waits for ready[side] of those whose memory it reads
              combine or copy, from their memory into the result; record done[side]

* A wait on an event binds to its latest record at the time of the call. That of ``ready[side]`` of
  another rank is the one of this operation: it was made before the meeting, and the next on this
  side, for operation n + 2, is made only after meeting n + 1, to which this rank comes when its
  waits are behind it. That of ``done[side]`` is the one of operation n - 2, or an older one where
  the rank read nothing: its `run` was over before it came to meeting n - 1, which this rank has
  passed, and the next is made after meeting n.
* An operation on another stream than the one before is behind all events of its own rank first.
* So no host waits for a GPU, ever, and for another host only in the meeting: it is what says that a
  peer's host has read what a side held before. Work is enqueued to the stream that is current, and
  is over for the host when `run` returns.
* All ranks combine the same elements in the order of the ranks, so they have the same bits, with
  torch's kernels, on tensors over the others' memory. Results are the rank's own.

**Growth.** What does not fit starts a new *generation* of a rank's own memory, at least twice as
large. Which one an operation uses stands beside the side, written before the meeting. Others
follow: they open it when they first read it, close the old one when their reads of that are done,
and say so; then it is freed. Allocating and freeing wait for the GPU.

**The end.** Each rank first closes what it has open of others, and says so; then it frees its own,
when the others have said so, are dead, or have opened nothing. What is not free in time is left,
and looked at again when this process joins or leaves another such group. A rank that died in an
operation may leave its events undone for ever: a survivor's stream that waits for them is set free
once the group has ended (`compiled_dag.cuda.rescue`); the host never waits for it here.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch

from collective.arithmetic import TORCH, combine_all
from collective.cuda_buffer import SIDES
from collective.exchange import WAYS
from collective.process_group import why_not_op
from compiled_dag.cuda.driver import Translating
from compiled_dag.errors import DeviceError, MemoryCapError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from collective.cuda_end import End
    from collective.exchange import Way
    from collective.preflight import Preflight
    from compiled_dag.cuda.driver import Pointer, Stream

_DTYPES: Final = frozenset(
    {torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8,
     torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64, torch.complex128}
)  # fmt: skip
_MAX_VIEWS: Final = 1024


class CudaIpcGroup:
    """One rank's end."""

    backend = "cuda_ipc"
    in_place = False

    def __init__(self, end: End, preflight: Preflight, rank: int) -> None:
        """Do operations with what joining has opened (`collective.cuda_joining`)."""
        self._end = end
        self._preflight = preflight
        self._rank = rank
        self._world_size = len(end.peers) + 1
        self._device = device = end.device
        self._driver = device.driver
        self._own = end.own
        self._peers = {peer.rank: peer for peer in end.peers}
        self._readers = [[peer.done[side] for peer in end.peers] for side in SIDES]
        self._calling = Translating(device.driver, "a collective of actors that share a GPU")
        self._views: dict[tuple[Pointer, torch.dtype, int], torch.Tensor] = {}
        """Tensors over memory: all that one consists of is the address."""

    def why_not(self, tensor: torch.Tensor, op: str) -> str | None:
        """Return why `tensor` cannot be reduced with `op`, or None."""
        if tensor.dtype not in _DTYPES:
            return f"cuda_ipc cannot reduce {tensor.dtype}"
        if op == "PRODUCT" and tensor.is_complex():
            return None
        return why_not_op(tensor, op)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, _device: Any) -> torch.Tensor:
        """Return contiguous memory of this rank's GPU."""
        with self._failures():
            return self._device.new((str(dtype).removeprefix("torch."), shape))

    def stage(self, _kind: str, tensor: torch.Tensor, _op: str | None, _root: int) -> torch.Tensor:
        """Lay `tensor` for the other ranks; returns it as it was laid."""
        with self._failures():
            if tensor.numel():
                tensor = self._here(tensor).resolve_conj().resolve_neg().contiguous()
                side = (self._preflight.turn + 1) & 1
                self._own.lay(tensor, side, self._readers[side])
            return tensor

    def _here(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return `tensor` on this GPU; the host waits for one that is elsewhere."""
        if self._device.holds(tensor):
            return tensor
        flat = tensor.cpu().resolve_conj().resolve_neg().contiguous().view(-1)
        data = flat.view(torch.uint8).numpy().tobytes()
        return self._device.from_host(data).view(tensor.dtype).view(tensor.shape)

    def run(
        self,
        kind: str,
        send: torch.Tensor | None,  # noqa: ARG002  it has been laid
        receive: torch.Tensor | None,
        *,
        op: str | None,
        root: int,
    ) -> None:
        """Enqueue what makes the result.

        Raises:
            RuntimeError: CUDA or torch failed.
        """
        with self._failures():
            side = self._preflight.turn & 1
            self._close_outgrown()
            for peer in self._end.peers:
                peer.follow(side)
            if receive is None:
                return
            stream = self._own.stream()
            try:
                self._read(WAYS[kind], receive.view(-1), op, root, side, stream)
            finally:
                self._driver.record(self._own.done[side], stream)

    def _read(
        self,
        way: Way,
        receive: torch.Tensor,
        op: str | None,
        root: int,
        side: int,
        stream: Stream,
    ) -> None:
        length = receive.numel()
        if way.read == "joined":
            length //= self._world_size
        nbytes = length * receive.itemsize
        offset = self._rank * nbytes if way.parted else 0
        ranks: Sequence[int] = (root,) if way.read == "root" else range(self._world_size)
        places = [self._place(rank, side, stream) + offset for rank in ranks]
        if way.read == "combined" and len(places) > 1:
            assert op is not None, "what is combined has a way to"
            rows = [self._view(place, receive.dtype, length) for place in places]
            combine_all(TORCH.combine[op], rows, receive)
            return
        for number, place in enumerate(places):
            target = receive.data_ptr() + number * nbytes
            self._driver.copy(target, place, nbytes, stream)

    def _place(self, rank: int, side: int, stream: Stream) -> Pointer:
        """Have a stream wait for what a rank has laid; returns where that is."""
        if rank == self._rank:
            return self._own.places[side]
        peer = self._peers[rank]
        place = peer.place(side)
        self._driver.wait(stream, peer.ready[side])
        return place

    def _view(self, place: Pointer, dtype: torch.dtype, length: int) -> torch.Tensor:
        key = place, dtype, length
        found = self._views.get(key)
        if found is None:
            if len(self._views) >= _MAX_VIEWS:
                self._views.clear()
            memory = self._device.view(place, length * dtype.itemsize, None)
            found = self._views[key] = memory.view(dtype)
        return found

    def _close_outgrown(self) -> None:
        """Close memory that others have replaced by larger, once the GPU has done with it."""
        grown = [peer for peer in self._end.peers if peer.is_behind]
        if grown and self._own.is_idle():
            for peer in grown:
                peer.close_outgrown()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Raise what fails as backends do; a lost context as it is: the process must end.

        Raises:
            RuntimeError: The group is over, or CUDA failed, or there is no memory.
            DeviceError: The CUDA context is lost.
        """
        if self._end.is_over:
            msg = "this rank has given the group up"
            raise RuntimeError(msg)
        try:
            with self._calling:
                yield
        except MemoryCapError as error:
            raise RuntimeError(str(error)) from error
        except DeviceError as error:
            if error.is_lost:
                raise
            raise RuntimeError(str(error)) from error

    def shortcut(self, *_looks: Any) -> None:
        """Return None: there is none."""

    def abort(self) -> None:
        """Close what is open of others; free this rank's own as soon as nobody has it open."""
        self._views.clear()
        self._end.leave()
