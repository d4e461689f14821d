"""A GPU in host memory, for `compiled_dag.cuda.device.open_device`: no test of CUDA, but of us.

What the documentation promises holds here and no more, and every use that it calls undefined ends
the process with a message, so that a protocol which is right here relies on nothing else:

* memory is a memfd; a handle is the exporter's process id and descriptor. It cannot be opened by
  who exported it; opened twice it counts. Freeing what a living process has open is a violation.
* a stream is a thread that does its work in order, late: after random pauses. A copy is a copy of
  what is there *then*; memory that is gone by then is a violation. So is memory of the host that is
  not pinned: all but reading a little, which is done before the call returns.
* an event is two words in shared memory: how often it was recorded, and up to where that is done.
  A wait binds to the latest record at the time of the call. The event of a process that died is
  never done, unless somebody else who has it open records it. A stream that waits for another
  process's event has it open until it has got past.
* another device may be current: what is made then is there, and so is the default stream.
* new memory, and a tensor's memory when the tensor is gone, is filled with a pattern, in order with
  the current stream, as torch's allocator would give it to the next tensor.

What cannot be seen here: what real drivers do where we keep to the rules, how fast they are, what
becomes of a survivor's GPU when a peer dies, and everything between two devices.

A tensor of this GPU is a CPU tensor of torch over memory of `new`. Kernels are functions given to
`launch` with the tensors they use, which they do not keep alive; `synchronize` waits for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import math
import os
import random
import struct
import sys
import threading
import time
from bisect import bisect_right, insort
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import torch

from compiled_dag.cuda import ring
from compiled_dag.cuda.driver import HANDLE_BYTES
from compiled_dag.errors import MemoryCapError
from compiled_dag.shm.segment import PAGE, Mapping, round_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from compiled_dag.channel.tensor import Look

SETTINGS: Final = "FAKE_CUDA"
"""Environment: words of `Settings`, and ``pause_us=N``, ``memory=BYTES`` and ``close_s=N``."""
PATIENCE_S: Final = 60.0
"""Ends of a graph wait so long for each other: on a busy machine, too, only a fault takes that."""
POISON: Final = 0xA5
VIOLATION: Final = 66
"""Exit code."""
_HANDLE: Final = struct.Struct("QQQQ")
_INVALID, _MEMORY, _NOT_SUPPORTED, _ALREADY_MAPPED = 1, 2, 801, 208
_CAPTURING: Final = 900
_REGISTERED: Final = 712
_TAKEN_OVER: Final = 64 * 1024
"""Of memory that is not pinned: so much is read before `copy` returns."""
DEFAULT: Final = 1000
"""Handle of the default stream."""
_USERS: Final = 64
"""Words in the first page of shared memory that name processes which have it open."""
_FIRST_USER: Final = 8


class FakeCudaError(RuntimeError):
    """Has a status, as cupy's."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(f"cudaError{status}: {text}")
        self.status = status


def violation(text: str) -> None:
    """End the process: CUDA would be in undefined behaviour."""
    sys.stderr.write(f"fake CUDA: undefined behaviour: {text}\n")
    sys.stderr.flush()
    os._exit(VIOLATION)


class Settings:
    """What this GPU refuses, and how late it is."""

    def __init__(self, text: str) -> None:
        words = dict(part.partition("=")[::2] for part in text.split(",") if part)
        self.memory = int(words.get("memory", 1 << 34))
        self.pause_s = float(words.get("pause_us", 200)) / 1e6
        self.refuses_memory = "no_memory" in words
        self.refuses_events = "no_events" in words
        self.imitates_nccl = "nccl" in words
        self.backend = words.get("backend", "nccl" if self.imitates_nccl else "gloo")
        self.refuses_pinning = "no_pinning" in words
        self.is_mig = "mig" in words
        self.is_other = "other" in words
        self.spoils_imports = "spoils_imports" in words
        self.close_s = float(words.get("close_s", PATIENCE_S))


# --- shared memory ----------------------------------------------------------------------------


class _Shared:
    """A memfd whose first page says who has it open."""

    def __init__(self, fd: int, nbytes: int) -> None:
        self.fd, self.nbytes = fd, nbytes
        self.mapping = Mapping(fd, 0, PAGE + round_up(nbytes))
        self.view = self.mapping.view()
        self.words = self.view[:PAGE].cast("Q")
        self.address = self.mapping.address + PAGE

    @classmethod
    def make(cls, nbytes: int) -> _Shared:
        fd = os.memfd_create("fake-cuda", os.MFD_CLOEXEC)
        os.ftruncate(fd, PAGE + round_up(nbytes))
        return cls(fd, nbytes)

    def handle(self) -> bytes:
        inode = os.fstat(self.fd).st_ino
        return _HANDLE.pack(os.getpid(), self.fd, inode, self.nbytes).ljust(HANDLE_BYTES, b"\0")

    @classmethod
    def open(cls, handle: bytes) -> _Shared:
        assert len(handle) == HANDLE_BYTES
        pid, number, inode, nbytes = _HANDLE.unpack_from(handle)
        if pid == os.getpid():
            raise FakeCudaError(_ALREADY_MAPPED, "a process cannot open what it exported itself")
        try:
            fd = os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise FakeCudaError(_INVALID, f"no such handle: {error}") from error
        if os.fstat(fd).st_ino != inode:
            os.close(fd)
            raise FakeCudaError(_INVALID, "the handle is of something that is gone")
        made = cls(fd, nbytes)
        made.note_user(os.getpid())
        return made

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self.fd, fcntl.LOCK_UN)

    def note_user(self, pid: int) -> None:
        with self.locked():
            for word in range(_FIRST_USER, _FIRST_USER + _USERS):
                if not self.words[word]:
                    self.words[word] = pid
                    return
        raise AssertionError("too many have it open")

    def forget_user(self, pid: int) -> None:
        with self.locked():
            for word in range(_FIRST_USER, _FIRST_USER + _USERS):
                if self.words[word] == pid:
                    self.words[word] = 0
                    return
        raise AssertionError("it was not open")

    def users(self) -> list[int]:
        found = self.words[_FIRST_USER : _FIRST_USER + _USERS].tolist()
        return [pid for pid in found if pid and _lives(pid)]

    def close(self) -> None:
        os.close(self.fd)


def _lives(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


# --- events and streams -----------------------------------------------------------------------

_RECORDED, _DONE = 0, 1


class _Event:
    def __init__(self, shared: _Shared, *, is_imported: bool) -> None:
        self.shared, self.is_imported = shared, is_imported
        self.words = shared.words
        self._uses = 1
        self._lock = threading.Lock()

    def is_done(self, number: int) -> bool:
        return self.words[_DONE] >= number

    def use(self) -> None:
        with self._lock:
            self._uses += 1

    def let_go(self) -> None:
        """Be done with one use: the handle's, or a stream's that waits."""
        with self._lock:
            self._uses -= 1
            if self._uses:
                return
        if self.is_imported:
            self.shared.forget_user(os.getpid())
        self.shared.close()


ASKED, STILL = 0, 1
"""Words of shared memory in which who looks at a stream asks it, and what it last answered."""


class FakeStream:
    """A thread that does what it is given, in order, and late.

    One that is watched says, when asked, that it can do no more: it has nothing, or waits.
    """

    def __init__(self, settings: Settings, seed: int, watch: memoryview | None = None) -> None:
        # Finalizers put into it too, in the middle of anything: this queue allows it.
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._random = random.Random(seed)
        self._pause_s = settings.pause_s
        self._watch = watch
        threading.Thread(target=self._run, name="fake-stream", daemon=True).start()

    def put(self, work: Callable[[], None]) -> None:
        self._work.put(work)

    def mark(self) -> threading.Event:
        """Return what is set when the stream has done what it was given before."""
        ended = threading.Event()
        self.put(ended.set)
        return ended

    def _run(self) -> None:
        while True:
            work = self._take()
            if self._pause_s and self._random.random() < 0.3:
                time.sleep(self._random.random() * self._pause_s)
            work()
            del work  # it may be what keeps a tensor

    def _take(self) -> Callable[[], None]:
        while self._watch is not None:
            asked = self._watch[ASKED]
            with contextlib.suppress(Empty):
                return self._work.get(timeout=1e-3)
            self._watch[STILL] = asked
        return self._work.get()

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Do no more before something is so; for what it is given."""
        while True:
            asked = 0 if self._watch is None else self._watch[ASKED]
            if ready():
                return
            if self._watch is not None:
                self._watch[STILL] = asked
            time.sleep(2e-5)

    def synchronize(self) -> None:
        self.mark().wait()


# --- the driver ---------------------------------------------------------------------------------


class Ranges:
    """Which addresses are memory of the GPU, as of now."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._sizes: dict[int, int] = {}
        self._lock = threading.Lock()

    def add(self, start: int, nbytes: int) -> None:
        with self._lock:
            insort(self._starts, start)
            self._sizes[start] = nbytes

    def remove(self, start: int) -> None:
        with self._lock:
            self._starts.remove(start)
            del self._sizes[start]

    def has(self, address: int, nbytes: int) -> bool:
        with self._lock:
            at = bisect_right(self._starts, address) - 1
            if at < 0:
                return False
            start = self._starts[at]
            return address + nbytes <= start + self._sizes[start]


class FakeDriver:
    """See `compiled_dag.cuda.driver.Driver`."""

    error_type: type[Exception] = FakeCudaError

    def __init__(self, settings: Settings, ranges: Ranges) -> None:
        self._settings = settings
        self._ranges = ranges
        self._numbers = itertools.count(1)
        self._made: dict[int, _Shared] = {}
        self._opened: dict[int, list[Any]] = {}
        self._events: dict[int, _Event] = {}
        self.streams: dict[int, FakeStream] = {}
        self.index = 0
        """The device that is current, on whatever thread."""
        self.calls = 0
        """Of `wait`, `record` and `copy`."""
        self.before_call: Callable[[str], None] | None = None

    def _note(self, name: str) -> None:
        self.calls += 1
        if self.before_call is not None:
            self.before_call(name)

    def select(self, index: int) -> None:
        self.index = index

    def current(self) -> int:
        return self.index

    def _check_selected(self, what: str, stream: int = DEFAULT) -> None:
        if self.index and stream == DEFAULT:
            violation(f"{what} of device {self.index}, which is current, not of this one")

    def free_bytes(self) -> int:
        return self._settings.memory - sum(shared.nbytes for shared in self._made.values())

    def allocate(self, nbytes: int) -> int:
        self._check_selected("memory")
        if nbytes > self.free_bytes():
            raise FakeCudaError(_MEMORY, "out of memory")
        shared = _Shared.make(nbytes)
        ctypes.memset(shared.address, POISON, nbytes)
        self._made[shared.address] = shared
        self._ranges.add(shared.address, nbytes)
        return shared.address

    def free(self, pointer: int) -> None:
        shared = self._made.pop(pointer)
        for stream in list(self.streams.values()):  # others may add some
            stream.synchronize()  # as cudaFree does
        users = shared.users()
        if users:
            violation(f"freeing memory that {users} have open")
        self._ranges.remove(pointer)
        ctypes.memset(pointer, POISON, shared.nbytes)
        shared.close()

    def export_memory(self, pointer: int) -> bytes:
        if self._settings.refuses_memory:
            raise FakeCudaError(_NOT_SUPPORTED, "operation not supported")
        return self._made[pointer].handle()

    def import_memory(self, handle: bytes) -> int:
        self._note("import_memory")
        self._check_selected("memory that is opened")
        for pointer, entry in self._opened.items():
            if entry[0] == handle:
                entry[2] += 1
                return pointer
        shared = _Shared.open(handle)
        self._opened[shared.address] = [handle, shared, 1]
        self._ranges.add(shared.address, shared.nbytes)
        return shared.address

    def close_memory(self, pointer: int) -> None:
        self._check_selected("memory that is closed")
        entry = self._opened[pointer]
        entry[2] -= 1
        if not entry[2]:
            del self._opened[pointer]
            self._ranges.remove(pointer)
            entry[1].forget_user(os.getpid())
            entry[1].close()

    def register(self, address: int, nbytes: int) -> None:
        if self._settings.refuses_pinning:
            raise FakeCudaError(_NOT_SUPPORTED, "operation not supported")
        if address % PAGE or nbytes % PAGE:
            violation("pinning a part of a page, whose rest cannot be pinned then")
        if self._ranges.has(address, 1):
            raise FakeCudaError(_REGISTERED, "part of it is registered already")
        self._ranges.add(address, nbytes)

    def unregister(self, address: int) -> None:
        self._ranges.remove(address)

    def make_event(self, *, is_shared: bool) -> int:
        self._check_selected("an event")
        number = next(self._numbers)
        self._events[number] = _Event(_Shared.make(0), is_imported=False)
        return number

    def destroy_event(self, event: int) -> None:
        found = self._events.pop(event)
        if not found.is_imported and found.shared.users():
            violation(f"destroying an event that {found.shared.users()} have open")
        found.let_go()

    def export_event(self, event: int) -> bytes:
        if self._settings.refuses_events:
            raise FakeCudaError(_NOT_SUPPORTED, "operation not supported")
        return self._events[event].shared.handle()

    def import_event(self, handle: bytes) -> int:
        self._note("import_event")
        self._check_selected("an event that is opened")
        number = next(self._numbers)
        self._events[number] = _Event(_Shared.open(handle), is_imported=True)
        return number

    def record(self, event: int, stream: int) -> None:
        self._note("record")
        self._check_selected("the default stream", stream)
        words = self._events[event].words
        words[_RECORDED] += 1
        number = words[_RECORDED]

        def work() -> None:
            words[_DONE] = max(words[_DONE], number)

        self.streams[stream].put(work)

    def wait(self, stream: int, event: int) -> None:
        self._note("wait")
        self._check_selected("the default stream", stream)
        found = self._events[event]
        number = found.words[_RECORDED]
        found.use()

        def work() -> None:
            self.streams[stream].wait_until(lambda: found.is_done(number))
            found.let_go()

        self.streams[stream].put(work)

    def is_done(self, event: int) -> bool:
        found = self._events[event]
        return found.is_done(found.words[_RECORDED])

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        self._note("copy")
        self._check_selected("the default stream", stream)
        taken: Any = None
        if not self._ranges.has(source, nbytes):
            if nbytes > _TAKEN_OVER:
                violation(f"copying {nbytes} bytes from memory that is not pinned: slow")
            taken = ctypes.create_string_buffer(ctypes.string_at(source, nbytes), nbytes)

        def work() -> None:
            for address in (target,) if taken else (target, source):
                if not self._ranges.has(address, nbytes):
                    violation(f"copying {nbytes} bytes at {address:#x}, which is no memory by now")
            if not (self._settings.spoils_imports and source in self._opened):
                ctypes.memmove(target, taken or source, nbytes)

        self.streams[stream].put(work)


# --- the device -----------------------------------------------------------------------------------


class _Block:
    """A tensor's memory; told when the tensor is gone."""

    def __init__(self, device: FakeDevice, nbytes: int, stream: int) -> None:
        self._device = device
        self._stream = stream
        self.lent_to: set[int] = set()
        self.memory = (ctypes.c_ubyte * max(nbytes, 1))()
        self.address, self.nbytes = ctypes.addressof(self.memory), max(nbytes, 1)
        ctypes.memset(self.address, POISON, self.nbytes)
        device.ranges.add(self.address, self.nbytes)

    def drop(self) -> None:
        kept, address, nbytes = [self.memory], self.address, self.nbytes
        ranges, streams = self._device.ranges, self._device.streams
        self._device.blocks.pop(address, None)
        # What other streams still do with it is only waited for if they were said to use it.
        awaited = [streams[one].mark() for one in self.lent_to - {self._stream}]

        def work() -> None:
            streams[self._stream].wait_until(lambda: all(mark.is_set() for mark in awaited))
            ctypes.memset(address, POISON, nbytes)
            ranges.remove(address)
            kept.clear()

        streams[self._stream].put(work)


def _lease(block: _Block) -> Any:
    kind = type("Lease", (ctypes.c_ubyte * block.nbytes,), {"__del__": lambda _: block.drop()})
    return kind.from_address(block.address)


class FakeDevice:
    """See `compiled_dag.cuda.device.Device`."""

    def __init__(
        self, settings: Settings, watch: Callable[[int], memoryview] | None = None
    ) -> None:
        self.settings = settings
        self._watch = watch
        self.ranges = Ranges()
        self.driver = FakeDriver(settings, self.ranges)
        self.streams = self.driver.streams
        self.blocks: dict[int, _Block] = {}
        """Of tensors, by address."""
        self.current = self.add_stream()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
        self.uuid = f"GPU-fake-{visible}" + "-other" * settings.is_other
        self.name = "Fake GPU" + " MIG 1g.5gb" * settings.is_mig
        self.backend = settings.backend
        self._noting: FakeRecording | None = None

    def add_stream(self) -> int:
        number = DEFAULT + len(self.streams)
        watch = None if self._watch is None else self._watch(number)
        self.streams[number] = FakeStream(self.settings, os.getpid() * 31 + number, watch)
        return number

    def holds(self, tensor: torch.Tensor) -> bool:
        # One without elements has no address, and could be anywhere.
        return not tensor.nbytes or self.ranges.has(tensor.data_ptr(), tensor.nbytes)

    def new(self, look: Look, stream: int | None = None) -> torch.Tensor:
        dtype = getattr(torch, look[0])
        nbytes = math.prod(look[1], start=dtype.itemsize)
        if nbytes > self.settings.memory:
            raise MemoryCapError(f"{self.name} has no memory left")
        block = _Block(self, nbytes, self.current if stream is None else stream)
        self.blocks[block.address] = block
        lease = _lease(block)
        if self._noting is not None:
            self._noting.kept.append(lease)
        if not nbytes:
            return torch.frombuffer(lease, dtype=torch.uint8)[:0].view(dtype).reshape(look[1])
        return torch.frombuffer(lease, dtype=dtype).reshape(look[1])

    def lend(self, tensor: torch.Tensor) -> None:
        block = self.blocks.get(tensor.data_ptr())
        if block is not None:
            block.lent_to.add(self.current)

    def view(self, pointer: int, nbytes: int, owner: object) -> torch.Tensor:
        kind = type("Lent", (ctypes.c_ubyte * nbytes,), {})
        memory = kind.from_address(pointer)
        memory.owner = owner
        return torch.frombuffer(memory, dtype=torch.uint8)

    def make_stream(self) -> int:
        return self.add_stream()

    @contextlib.contextmanager
    def on(self, stream: int) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def from_host(self, data: bytes) -> torch.Tensor:
        made = self.new(("uint8", (len(data),)))
        made.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        return made

    def to_host(self, tensor: torch.Tensor) -> bytes:
        self.streams[self.current].synchronize()
        return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()

    def stream(self) -> int:
        return self.current

    def release_cached(self) -> None:
        pass

    def aside(self, work: Callable[[], Any]) -> Any:
        return work()

    def record(self, work: Callable[[], Any]) -> tuple[FakeRecording, Any]:
        assert self._noting is None, "recorded inside a recording"
        noting = self._noting = FakeRecording(self)
        try:
            return noting, work()
        finally:
            self._noting = None

    # --- what user code does with a GPU

    def launch(self, kernel: Callable[..., object], *tensors: torch.Tensor) -> None:
        """Enqueue a kernel to the current stream; it gets tensors, and does not keep them."""
        places = [(one.data_ptr(), one.nbytes, one.dtype, one.shape) for one in tensors]

        def work() -> None:
            kernel(*[self._view(*place) for place in places])

        if self._noting is not None:
            self._noting.works.append(work)
        else:
            self.streams[self.current].put(work)

    def _view(self, address: int, nbytes: int, dtype: torch.dtype, shape: Any) -> torch.Tensor:
        if not nbytes:
            return torch.empty(shape, dtype=dtype)
        if not self.ranges.has(address, nbytes):
            violation(f"a kernel uses {nbytes} bytes at {address:#x}, which is no memory by now")
        memory = (ctypes.c_ubyte * nbytes).from_address(address)
        return torch.frombuffer(memory, dtype=dtype).reshape(shape)

    def synchronize(self) -> None:
        """Wait until all streams have done what they were given."""
        if self._noting is not None:
            raise FakeCudaError(_CAPTURING, "operation not permitted when stream is capturing")
        for stream in list(self.streams.values()):  # others may add some
            stream.synchronize()


class FakeRecording:
    """Kernels that were noted, and the memory they use; see `compiled_dag.cuda.device`."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        self.works: list[Callable[[], None]] = []
        self.kept: list[Any] = []

    def replay(self) -> None:
        for work in self.works:
            self._device.streams[self._device.current].put(work)

    def drop(self) -> None:
        self.works, self.kept = [], []


def open_device() -> FakeDevice:
    """Make this process's GPU: what ``COMPILED_DAG_CUDA=tests.cuda.fake:open_device`` calls."""
    device = FakeDevice(Settings(os.environ.get(SETTINGS, "")))
    ring.CLOSE_S = device.settings.close_s
    if device.settings.imitates_nccl:
        from tests.cuda.nccl import imitate

        imitate(device)
    return device


def open_ordered_device() -> FakeDevice:
    """Do the same where torch's own operations are to be in order with the stream."""
    from tests.cuda.ordered import order_torch

    device = open_device()
    order_torch(device)
    return device
