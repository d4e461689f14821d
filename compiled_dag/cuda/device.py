"""This process's GPU, as channels use it: tensors by torch, everything else by a `Driver`.

`open_device` is the one place that decides what that is. ``COMPILED_DAG_CUDA=module:function`` puts
what the function returns in its place: the tests' GPU in host memory, or another binding of CUDA.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from compiled_dag import environment
from compiled_dag.cuda.driver import FIRST, Selecting
from compiled_dag.errors import DeviceError, MemoryCapError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import torch

    from compiled_dag.channel.tensor import Look
    from compiled_dag.cuda.driver import Driver, Pointer, Stream
    from compiled_dag.operation import Backend


MIG: Final = " MIG "
"""In the names of what are parts of GPUs."""
_CAPTURE: Final = "thread_local"
"""What other threads do on the GPU goes on while one records."""


class Recording(Protocol):
    """Work on the GPU that was noted once."""

    def replay(self) -> None:
        """Enqueue it to the current stream."""
        ...

    def drop(self) -> None:
        """Give its memory back."""
        ...


class Device(Protocol):
    """The GPU that this process's tensors are on: the first that it sees."""

    @property
    def driver(self) -> Driver:
        """How CUDA is called."""
        ...

    @property
    def uuid(self) -> str:
        """What identifies the GPU in every process, whatever number it has there."""
        ...

    @property
    def name(self) -> str:
        """What messages call the GPU."""
        ...

    @property
    def backend(self) -> Backend:
        """What process groups of such GPUs run on; empty if they can be in none."""
        ...

    def holds(self, tensor: torch.Tensor) -> bool:
        """Tell whether a tensor is in this GPU's memory."""
        ...

    def new(self, look: Look, stream: Stream | None = None) -> torch.Tensor:
        """Return a new tensor, whose memory is ordered with a stream of `make_stream`.

        Args:
            look: What it is to look like.
            stream: The stream; None is the current one.

        Raises:
            MemoryCapError: The GPU has no memory left.
        """
        ...

    def lend(self, tensor: torch.Tensor) -> None:
        """Let the current stream use a tensor whose memory is ordered with another one."""
        ...

    def view(self, pointer: Pointer, nbytes: int, owner: object) -> torch.Tensor:
        """Return the bytes of this GPU's memory at an address, as a tensor.

        It keeps `owner` alive, as does all that is over the same memory.
        """
        ...

    def make_stream(self) -> Stream:
        """Return a stream of its own, which lives as long as the process."""
        ...

    def on(self, stream: Stream) -> AbstractContextManager[object]:
        """Return a context in which a stream of `make_stream` is the current one."""
        ...

    def from_host(self, data: bytes) -> torch.Tensor:
        """Return a new tensor of bytes with this content; waits for the copy."""
        ...

    def to_host(self, tensor: torch.Tensor) -> bytes:
        """Return the bytes of a contiguous tensor; waits for what makes them."""
        ...

    def stream(self) -> Stream:
        """Return the stream that user code enqueues to now."""
        ...

    def release_cached(self) -> None:
        """Give memory back that no tensor uses and that is kept for new ones."""
        ...

    def aside(self, work: Callable[[], Any]) -> Any:
        """Have `work` enqueue to the stream that records, in order with the current one.

        Returns:
            What it returns; its tensors may be used on the current stream.
        """
        ...

    def record(self, work: Callable[[], Any]) -> tuple[Recording, Any]:
        """Have `work` run, and what it enqueues be noted instead of done.

        Returns:
            The recording, and what `work` returned: tensors in memory that is the recording's.

        Raises:
            Exception: What `work` raises, also since it did what cannot be recorded.
        """
        ...


class _Opened:
    """What `open_device` found, once per process."""

    device: ClassVar[Device | None] = None


def open_device() -> Device:
    """Return this process's GPU; the first call sets CUDA up.

    Raises:
        DeviceError: There is none, or something it takes is missing; says what to do.
    """
    if _Opened.device is None:
        chosen = environment.lookup("CUDA")
        _Opened.device = _real_device() if chosen is None else _chosen_device(*chosen)
    return _Opened.device


def _chosen_device(variable: str, text: str) -> Device:
    module, _, function = text.partition(":")
    try:
        found: Device = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        msg = f"environment variable {variable}={text!r} is no module:function here: {error}"
        raise DeviceError(msg) from error
    return found


def _real_device() -> Device:
    try:
        import torch  # noqa: PLC0415  tensors of a GPU are torch's

        from compiled_dag.cuda.cupy_driver import CupyDriver  # noqa: PLC0415  loads cupy

        if not torch.cuda.is_available():
            msg = "torch.cuda.is_available() is False: no GPU is visible, or torch has no CUDA"
            raise DeviceError(msg)
        driver = CupyDriver()
    except ImportError as error:
        msg = f"{error}. Device channels need it: pip install 'compiled-dag[gpu]'"
        raise DeviceError(msg) from error
    return TorchDevice(driver)


class _Memory:
    """Memory of a GPU as torch takes it, without a copy."""

    def __init__(self, pointer: Pointer, nbytes: int, owner: object) -> None:
        self.__cuda_array_interface__ = {
            "shape": (nbytes,), "typestr": "|u1", "data": (pointer, False), "version": 3
        }  # fmt: skip
        self.owner = owner


class TorchDevice:
    """The first GPU that torch sees."""

    def __init__(self, driver: Driver) -> None:
        import torch as library  # noqa: PLC0415  see open_device

        self._torch: Any = library  # `torch` is a name for types here
        self._where = library.device("cuda", FIRST)
        self._streams: dict[Stream, Any] = {}
        self._recorder: Any = None
        self._torch.cuda.init()
        with Selecting(driver):
            driver.select(FIRST)
        self.driver = driver
        facts = self._torch.cuda.get_device_properties(FIRST)
        self.uuid = str(facts.uuid)
        self.name = str(facts.name)
        distributed = library.distributed
        has_nccl = distributed.is_available() and distributed.is_nccl_available()
        # NCCL takes the instances of one GPU (MIG) for one GPU, which it refuses.
        self.backend: Backend = "nccl" if has_nccl and MIG not in self.name else ""

    def holds(self, tensor: torch.Tensor) -> bool:
        """See `Device`."""
        return tensor.device == self._where

    def new(self, look: Look, stream: Stream | None = None) -> torch.Tensor:
        """See `Device`."""
        dtype = getattr(self._torch, look[0])
        with self._torch.cuda.stream(None if stream is None else self._streams[stream]):
            try:
                made: torch.Tensor = self._torch.empty(look[1], dtype=dtype, device=self._where)
            except self._torch.cuda.OutOfMemoryError as error:
                raise MemoryCapError(f"{self.name} has no memory left: {error}") from error
        return made

    def lend(self, tensor: torch.Tensor) -> None:
        """See `Device`."""
        tensor.record_stream(self._torch.cuda.current_stream(self._where))

    def view(self, pointer: Pointer, nbytes: int, owner: object) -> torch.Tensor:
        """See `Device`."""
        over = _Memory(pointer, nbytes, owner)
        made: torch.Tensor = self._torch.as_tensor(over, device=self._where)
        return made

    def make_stream(self) -> Stream:
        """See `Device`."""
        made = self._torch.cuda.Stream(self._where, priority=-1)
        self._streams[int(made.cuda_stream)] = made
        return int(made.cuda_stream)

    def on(self, stream: Stream) -> AbstractContextManager[object]:
        """See `Device`."""
        found: AbstractContextManager[object] = self._torch.cuda.stream(self._streams[stream])
        return found

    def from_host(self, data: bytes) -> torch.Tensor:
        """See `Device`."""
        flat: torch.Tensor = self._torch.frombuffer(bytearray(data), dtype=self._torch.uint8)
        return flat.to(self._where)

    def to_host(self, tensor: torch.Tensor) -> bytes:
        """See `Device`."""
        flat = tensor.reshape(-1).view(self._torch.uint8)
        return flat.cpu().numpy().tobytes()

    def stream(self) -> Stream:
        """See `Device`."""
        return int(self._torch.cuda.current_stream(self._where).cuda_stream)

    def release_cached(self) -> None:
        """See `Device`."""
        self._torch.cuda.empty_cache()

    def _recording_stream(self) -> Any:
        if self._recorder is None:
            self._recorder = self._torch.cuda.Stream(self._where)
        return self._recorder

    def aside(self, work: Callable[[], Any]) -> Any:
        """See `Device`."""
        current, other = self._torch.cuda.current_stream(self._where), self._recording_stream()
        # Memory of one stream that the other one uses and that is freed goes to later work on its
        # own: which begins behind all that the other has by then. So nothing has to be lent.
        other.wait_stream(current)
        try:
            with self._torch.cuda.stream(other):
                return work()
        finally:
            current.wait_stream(other)

    def record(self, work: Callable[[], Any]) -> tuple[Recording, Any]:
        """See `Device`."""
        # torch waits for the whole GPU here, to give back what its allocator keeps: a capture could
        # not, and would find no memory where that keeps it all. Giving it back (cudaFree) waits for
        # the whole GPU by itself, so to wait for some streams only would gain nothing. It is once a
        # recording; `Flow.settle` comes first, for what the end of the graph has to end.
        cuda, stream = self._torch.cuda, self._recording_stream()
        graph, pool = cuda.CUDAGraph(), cuda.graph_pool_handle()
        capture = cuda.graph(graph, pool, stream, capture_error_mode=_CAPTURE)
        # A capture that CUDA refuses to end leaves its stream the current one.
        with cuda.stream(cuda.current_stream(self._where)):
            try:
                with capture:
                    value = work()
            except BaseException:
                self._leave_capture(pool)
                raise
        return _TorchRecording(graph), value

    def _leave_capture(self, pool: Any) -> None:
        """Have torch see that a capture is over which failed.

        torch 2.11 does not where CUDA refuses to end one: its allocator keeps all memory that other
        streams have used, and its generator makes no random numbers, until another capture ends.
        """
        with contextlib.suppress(RuntimeError):  # it has seen it
            self._torch._C._cuda_endAllocateToPool(self._where.index, pool)  # noqa: SLF001
        with self._torch.cuda.stream(self._recording_stream()):
            other = self._torch.cuda.CUDAGraph()
            other.capture_begin(capture_error_mode=_CAPTURE)
            self._torch.zeros(1, device=self._where)  # torch warns of nothing at all
            other.capture_end()


class _TorchRecording:
    """A `Recording` that torch made."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self.replay = graph.replay

    def drop(self) -> None:
        """See `Recording`."""
        self._graph.reset()
