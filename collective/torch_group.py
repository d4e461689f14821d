"""torch.distributed process groups, built directly: no default world, no TCP store, loopback only.

gloo: aborts the *process* on shapes that differ and silently adds bits of dtypes that differ, so
nothing reaches it before `Preflight`. AVG is SUM and a division, on every backend and version.

When a rank of gloo dies, its neighbours raise within milliseconds and close their sockets, which
wakes the next ones; but a message that is still to be sent when its connection closes is forgotten,
and the rank waits in `waitSend` until the time-out of the operation (1 of 15 deaths among 4 ranks).
So the wait looks at the group's state ten times a second. A rank that leaves an operation so cannot
destroy the group, which would join gloo's waiting thread: it is kept, unused, until the process
ends. What does not work instead: `abort` (wakes nobody), a shorter time-out of the operation (a
rank that is stopped is not dead).

When a rank dies in an operation, gloo has others return as if nothing had happened: the root of a
broadcast has sent everything, and knows nothing of those to whom the dead rank was to pass it on.
So the ranks meet once more when gloo is done (`GlooWork`), and all go on or none does.

torch's allgather and gather have gloo work on copies, which they free, when an operation fails,
before gloo lets go of them: its thread then finds no memory where it sends from, and aborts the
process (2 of 14 deaths among 4 ranks). What every rank sends to every other, or to one, is an
all-to-all as well. That works on our own tensors, and takes as long, or half (a gather of 16 MB).

reducescatter: torch's is an allreduce whose wait heeds no time-out; so it is made of one here.
"""

from __future__ import annotations

import contextlib
import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.distributed

from collective import arithmetic
from collective.gloo_work import GlooWork, Waiting
from collective.launch import all_to_all, as_bytes, launch
from collective.meetings import Meetings
from collective.ordered import ordered
from collective.process_group import why_not_op
from collective.warm_memory import WarmMemory
from compiled_dag.shm import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collective.header import GroupHeader
    from collective.process_group import ProcessGroup, Work
    from collective.store import SharedMemoryStore
    from compiled_dag.shm.waiter import Site, Waiter

dist: Any = torch.distributed  # its C++ classes are exported but not declared

_CONNECT_TIMEOUT: Final = timedelta(seconds=20)
"""For gloo's ranks to connect, each try. They have met before: it takes milliseconds unless one
dies on the way."""

_LOOP_THREAD: Final = "gloo_tcp_loop"
"""What gloo calls the thread that reads its sockets."""

_GLOO_DTYPES: Final = frozenset(
    {torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8,
     torch.int32, torch.int64, torch.bool, torch.complex64, torch.complex128}
)  # fmt: skip


def make_group(
    backend: str, store: SharedMemoryStore, rank: int, waiter: Waiter, site: Site
) -> ProcessGroup:
    """Join a group; returns when it is usable.

    Args:
        backend: "gloo" or "nccl".
        store: Where the ranks find each other.
        rank: This one.
        waiter: How it waits.
        site: Where it waits for the others before each operation.

    Raises:
        ValueError: No such backend.
        RuntimeError: The backend failed.
    """
    if backend == "gloo":
        return GlooGroup(store, rank, waiter, site)
    if backend == "nccl":
        from collective.nccl_group import NcclGroup  # noqa: PLC0415  few groups need it

        return NcclGroup(store, rank, store.header.world_size, waiter)
    msg = f"no backend {backend!r}: use 'gloo', 'nccl', 'shm' or 'cuda_ipc'"
    raise ValueError(msg)


_abandoned: list[Any] = []
"""Groups, and operations of them that never end: see the module's head."""


def _made_elsewhere(make: Callable[[], Any], header: GroupHeader, waiter: Waiter) -> Any:
    """Return what `make` does, on a thread of its own: nothing else can leave it.

    Connecting to a peer that dies meanwhile takes gloo over a minute, receiving from one that is
    stopped as long as its operations may take.

    Raises:
        ChannelClosedError: The driver has ended the group; the thread goes on, and ends.
    """
    made: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            made.append((make(), None))
        except BaseException as error:  # noqa: BLE001  raised below
            made.append((None, error))
        header.ring_all()

    threading.Thread(target=run, name="gloo waits", daemon=True).start()
    waiter.until(lambda: bool(made), header.guard, None)
    group, error = made.pop()
    if error is not None:
        raise error
    return group


def _threads() -> set[Path]:
    return set(Path("/proc/self/task").iterdir())


def _let_lock_holders_run(before: set[Path]) -> None:
    """Have gloo's loop threads that are not in `before` preempt nobody when they wake.

    The loop thread reads the sockets. Where it finds a connection's lock taken, by the thread that
    is writing to it, it polls until the lock is free. Woken by the peer's answer on that thread's
    core, it would take the core from the very thread it waits for, and poll through a scheduler
    slice (3 ms). A thread of ``SCHED_BATCH`` waits its turn.
    """
    for thread in _threads() - before:
        with contextlib.suppress(OSError):  # it has ended, or a sandbox forbids it: only slower
            if (thread / "comm").read_text().strip() == _LOOP_THREAD:
                os.sched_setscheduler(int(thread.name), os.SCHED_BATCH, os.sched_param(0))


class GlooGroup:
    """CPU tensors over loopback sockets; GPU tensors are staged through host memory."""

    backend = "gloo"
    in_place = True
    in_host_memory = True

    def __init__(self, store: SharedMemoryStore, rank: int, waiter: Waiter, site: Site) -> None:
        world_size = store.header.world_size
        before = _threads()
        options = dist.ProcessGroupGloo._Options()
        options._devices = [dist.ProcessGroupGloo.create_device(interface="lo")]
        options._timeout = _CONNECT_TIMEOUT
        self._store = store  # the C++ side calls back into it
        self._waiter = waiter
        self._group: Any = _made_elsewhere(
            lambda: dist.ProcessGroupGloo(
                dist.PrefixStore("gloo/", store), rank, world_size, options
            ),
            store.header,
            waiter,
        )
        _let_lock_holders_run(before)
        meetings = Meetings(store.header, rank, waiter, site)
        self._waiting = Waiting(waiter, meetings, site, crowded=world_size > cores.count())
        self._running: list[GlooWork] = []
        self._memory = WarmMemory()

    def why_not(self, tensor: torch.Tensor, op: str) -> str | None:
        """Return why gloo cannot reduce `tensor` with `op`, or None."""
        if tensor.dtype not in _GLOO_DTYPES:
            instead = "" if arithmetic.why_not(tensor, op) else "; shm can"
            return f"gloo cannot reduce {tensor.dtype}{instead}"
        return why_not_op(tensor, op)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, _device: Any) -> torch.Tensor:
        """Return contiguous host memory."""
        return self._memory.empty(shape, dtype)

    def stage(self, _kind: str, tensor: torch.Tensor, _op: str | None, _root: int) -> torch.Tensor:
        """Return `tensor` in host memory, contiguous."""
        return tensor.cpu().resolve_conj().resolve_neg().contiguous()

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
        if op == "SUM" and receive is not None and receive.dtype is torch.bool:
            op = "MAX"  # gloo would add the bytes: a bool of 3 is neither True nor False
        if kind == "reducescatter":
            work = self._reduce_and_divide(send, receive, op)
        elif kind in ("allgather", "gather"):
            work = self._watched(self._gather(kind, send, receive, root), None)
        else:
            receive, finish = self._reducible(receive, op)
            started = launch(self._group, kind, send, receive, op=op, root=root)
            work = self._watched(started, finish)
        self._running = [other for other in self._running if not other.is_completed()]
        self._running.append(work)
        return work

    def exchange(
        self,
        sends: Sequence[tuple[torch.Tensor, int]],
        receives: Sequence[tuple[torch.Tensor, int]],
    ) -> None:
        """See `PairGroup`. It is done when this returns."""
        group = self._group
        if group is None:
            raise RuntimeError("the group was given up")

        def run() -> None:
            works = [group.send([one], rank, 0) for one, rank in sends]
            works += [group.recv([one], rank, 0) for one, rank in receives]
            for work in works:
                work.wait()  # not in slices: one that is over closes the connection

        _made_elsewhere(run, self._store.header, self._waiter)

    def marks(self, numbers: list[int]) -> torch.Tensor:
        """See `PairGroup`."""
        return torch.tensor(numbers, dtype=torch.uint8)

    def settle(self) -> None:
        """See `PairGroup`: nothing is under way."""

    def _reduce_and_divide(
        self, send: torch.Tensor | None, receive: torch.Tensor | None, op: str | None
    ) -> GlooWork:
        assert send is not None, "every rank brings something to a reducescatter"
        assert receive is not None, "every rank gets a part"
        part, whole = receive.reshape(-1), self.empty((send.numel(),), send.dtype, send.device)
        whole.copy_(send.reshape(-1))
        mine = whole.view(-1, part.numel())[self._group.rank()]
        reduced, finish = self._reducible(whole, op)
        started = launch(self._group, "allreduce", None, reduced, op=op, root=0)

        def divide() -> None:
            if finish is not None:
                finish()
            part.copy_(mine)

        return self._watched(started, divide)

    def _gather(
        self, kind: str, send: torch.Tensor | None, receive: torch.Tensor | None, root: int
    ) -> Any:
        """Start an allgather or a gather; see the module's head."""
        assert send is not None, "every rank brings something"
        group, part = self._group, as_bytes(send)
        size = group.size()
        if kind == "allgather":
            copies = self.empty((size, part.numel()), part.dtype, part.device)
            copies.copy_(part)
            return all_to_all(group, copies, receive)
        to = [part.numel() if rank == root else 0 for rank in range(size)]
        if receive is None:
            return all_to_all(group, part, part[:0], [0] * size, to)
        return all_to_all(group, part, receive, [part.numel()] * size, to)

    def _watched(self, started: Any, finish: Callable[[], object] | None) -> GlooWork:
        return GlooWork(started, self._store.header, self._waiting, finish)

    def _reducible(
        self, tensor: torch.Tensor | None, op: str | None
    ) -> tuple[torch.Tensor | None, Callable[[], None] | None]:
        """Return what gloo reduces as NumPy and torch would, and what is left to do then."""
        if op not in ("MAX", "MIN") or tensor is None or not tensor.is_floating_point():
            return tensor, None
        shape, device = tuple(tensor.shape), tensor.device
        return ordered(tensor, op, lambda dtype: self.empty(shape, dtype, device))

    def shortcut(self, *_looks: Any) -> None:
        """Return None: there is none."""

    def abort(self) -> None:
        """Drop the group: its sockets close, and peers that wait for this rank fail at once."""
        group, self._group = self._group, None
        self._memory.close()
        running = [work for work in self._running if not work.is_completed()]
        self._running = []
        if running:
            _abandoned.append((group, running))
        elif group is not None and hasattr(group, "shutdown"):
            group.shutdown()
