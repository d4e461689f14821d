"""NCCL, built directly: eager connection of one device per rank, non-blocking so that it can abort.

A peer that dies leaves kernels on the survivors' GPUs that never end, and with them every host that
waits for its GPU, wherever in user code that is. Only aborting the communicator ends them, and the
main thread is just what may be stuck: a thread per group sleeps on the group's state until that has
ended, and aborts it (`Watch`). What the kernels leave in memory is no result; by then the graph, or
the group, has ended for everybody.

A group that ends in peace is aborted too, but not before the GPU has done what was begun: an actor
may have long returned from a method that changes its own tensors by what NCCL brings.

All is on the process's first GPU, as everywhere (`compiled_dag.cuda.driver`), whatever other one
user code has made current: who has which GPU is what the backend was chosen by.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.distributed

from collective.header import CLOSED, OPEN
from collective.launch import OP_TIMEOUT, launch
from collective.process_group import BITWISE, why_not_op
from compiled_dag.cuda.driver import FIRST
from compiled_dag.shm.state import LONG_S, STATE_WORD, sleep_while, wake
from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collective.process_group import Work
    from collective.store import SharedMemoryStore
    from compiled_dag.shm.waiter import Waiter

dist: Any = torch.distributed  # its C++ classes are exported but not declared

LEAVE_S: Final = 5.0
"""How long the main thread has to leave a group that was closed, before its thread aborts it."""
FINISH_S: Final = 5.0
"""How long what was begun may take at the end of a group in which nothing has failed."""
_SETTLE_S: Final = 0.001
_SOON_S: Final = 0.001

_DTYPES: Final = frozenset(
    {torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8,
     torch.int32, torch.int64, torch.bool}
)  # fmt: skip


class Watch:
    """Aborts a group from a thread of its own, once the group has ended; or is told that it has."""

    def __init__(self, words: memoryview[int], abort: Callable[[], None]) -> None:
        """Begin.

        Args:
            words: Of the group's memory, whose state says whether it has ended.
            abort: What ends the group here, from any thread.
        """
        self._words = words
        self._abort = abort
        self._left = threading.Event()
        self._looked_last = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nccl watch", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Have the thread end: the group was aborted, or who calls this does that. Idempotent."""
        self._left.set()
        while self._thread.is_alive() and not self._looked_last.wait(_SOON_S):
            wake(self._words)  # again: it may have been on its way to sleep

    def _run(self) -> None:
        self._sleep()
        is_left = self._left.is_set()
        self._looked_last.set()
        if not is_left:
            self._abort()

    def _sleep(self) -> None:
        """Return when the group was left, has failed, or has been closed for a while."""
        closed_at: float | None = None
        while not self._left.is_set():
            state, still_s = self._words[STATE_WORD], LONG_S
            if state == CLOSED:
                now = time.monotonic()
                closed_at = closed_at or now
                still_s = closed_at + LEAVE_S - now
            if state not in {OPEN, CLOSED} or still_s <= 0.0:
                return
            sleep_while(self._words, state, still_s)


class _NcclWork:
    """An operation of NCCL: waiting for it orders this stream behind it, and blocks nobody."""

    def __init__(self, work: Any, note: Callable[[], None]) -> None:
        self._work = work
        self._note = note

    def wait(self, _deadline: float | None = None) -> None:
        """Have the current stream wait."""
        self._work.wait()
        self._note()


class NcclGroup:
    """One GPU per rank."""

    backend = "nccl"
    in_place = True
    in_host_memory = False

    def __init__(
        self, store: SharedMemoryStore, rank: int, world_size: int, waiter: Waiter
    ) -> None:
        device = torch.device("cuda", FIRST)
        # Its kernels begin as soon as those of methods that run meanwhile leave some room.
        options = dist.ProcessGroupNCCL.Options(is_high_priority_stream=True)
        options.config.blocking = False
        options._timeout = OP_TIMEOUT
        options.global_ranks_in_group = list(range(world_size))
        self._store = store
        self._device = device
        self._waiter = waiter
        self._lock = threading.Lock()
        self._behind: Any = None
        """The stream that waits for the operation that was waited for last."""
        self._group: Any = dist.ProcessGroupNCCL(
            dist.PrefixStore("nccl/", store), rank, world_size, options
        )
        self._group._set_sequence_number_for_group()
        self._watch = Watch(store.header.words, self._abort)
        self._alive().eager_connect_single_device(device)
        self._warm_up()

    def _alive(self) -> Any:
        """Return torch's group.

        Raises:
            RuntimeError: It was aborted.
            ChannelClosedError: The driver has ended the group.
        """
        group = self._group
        if group is None:
            self._store.header.guard()
            raise RuntimeError("the group was aborted")
        return group

    def _warm_up(self) -> None:
        """Connect the ring now, not in the first execution."""
        one = torch.zeros(1, device=self._device)
        self.run("allreduce", one, one, op="SUM", root=0).wait()
        self.settle()

    def why_not(self, tensor: torch.Tensor, op: str) -> str | None:
        """Return why NCCL cannot reduce `tensor` with `op`, or None."""
        if tensor.dtype not in _DTYPES:
            return f"NCCL cannot reduce {tensor.dtype}"
        if op in BITWISE:
            return f"NCCL has no {op}: use transport='gloo'"
        return why_not_op(tensor, op)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, _device: Any) -> torch.Tensor:
        """Return contiguous memory of this rank's GPU."""
        return torch.empty(shape, dtype=dtype, device=self._device)

    def stage(self, _kind: str, tensor: torch.Tensor, _op: str | None, _root: int) -> torch.Tensor:
        """Return `tensor` on this rank's GPU, contiguous."""
        return tensor.to(self._device).resolve_conj().resolve_neg().contiguous()

    def run(
        self,
        kind: str,
        send: torch.Tensor | None,
        receive: torch.Tensor | None,
        *,
        op: str | None,
        root: int,
    ) -> Work:
        """Start an operation."""
        work = launch(self._alive(), kind, send, receive, op=op, root=root)
        return _NcclWork(work, self._note)

    def _note(self) -> None:
        self._behind = torch.cuda.current_stream(self._device)

    def exchange(
        self,
        sends: Sequence[tuple[torch.Tensor, int]],
        receives: Sequence[tuple[torch.Tensor, int]],
    ) -> None:
        """See `PairGroup`. The current stream waits for it, and nobody else."""
        group = self._alive()
        group._start_coalescing()
        try:
            for one, rank in sends:
                group.send([one], rank, 0)
            for one, rank in receives:
                group.recv([one], rank, 0)
        except BaseException:
            # NCCL counts what is begun by thread: left open, no other group here would launch.
            with contextlib.suppress(RuntimeError):  # what it says has been said
                group._end_coalescing()
            raise
        group._end_coalescing().wait()
        self._note()

    def marks(self, numbers: list[int]) -> torch.Tensor:
        """See `PairGroup`."""
        return torch.tensor(numbers, dtype=torch.uint8, device=self._device)

    def settle(self) -> None:
        """Wait for the current stream where the end of the group is noticed."""
        event: Any = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        site = Site(calm=True, slice_s=_SETTLE_S)
        self._waiter.until(event.query, self._store.header.guard, None, site)

    def shortcut(self, *_looks: Any) -> None:
        """Return None: there is none."""

    def abort(self) -> None:
        """Give the communicator up, once what was begun is done if nothing has failed."""
        self._watch.leave()  # this thread looks at the group's state from here on
        try:
            if self._group is not None and self._behind is not None:
                self._finish()
        finally:
            self._abort()

    def _finish(self) -> None:
        """Wait a moment for the GPU, unless a peer has died or a backend failed.

        Operations of one communicator are done in order: the last one stands for all.
        """
        header, event = self._store.header, torch.cuda.Event()

        def is_over() -> bool:
            return header.state not in {OPEN, CLOSED} or event.query()

        deadline, site = time.monotonic() + FINISH_S, Site(calm=True, slice_s=_SETTLE_S)
        with contextlib.suppress(RuntimeError):  # the context is lost: who uses it next is told
            event.record(self._behind)
            self._waiter.until(is_over, _no_guard, deadline, site)

    def _abort(self) -> None:
        """Abort the communicator, from any thread; kernels that wait for a dead peer end."""
        with self._lock:
            group, self._group = self._group, None
        if group is not None:
            group.abort()


def _no_guard() -> None:
    """The group may have ended already."""
