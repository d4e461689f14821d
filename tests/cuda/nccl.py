"""torch's NCCL group in host memory, by gloo, for GPUs that tests imitate (`tests.cuda.fake`).

What torch's documentation and source promise holds, and no more: an operation is on a stream of the
group's own, behind what is current when it is begun, and a wait is of the stream that is current
then; memory is read and written late, and is kept by nobody; where a peer has died the operation
never ends, nor does what waits for it, until the group is aborted; and what is under way then is
no result.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.distributed

from collective import nccl_group
from compiled_dag.cuda.driver import Selecting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.cuda.fake import FakeDevice

_dist: Any = torch.distributed
PATIENCE_S: Final = 60.0
"""For what takes so long only where something is at fault, on a busy machine, too."""
_CONNECT: Final = timedelta(seconds=PATIENCE_S)

operations = 0
"""Of all groups, by now: what several tensors are sent in at once is one."""


def imitate(device: FakeDevice) -> None:
    """Have this process's groups on NCCL use this GPU, and the group below."""

    def bytes_on_gpu(numbers: Sequence[int], dtype: Any, device: Any) -> torch.Tensor:
        return on.from_host(bytes(numbers))

    class Group(ImitatedGroup):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(on, *arguments)

    class Event:
        def __init__(self) -> None:
            with Selecting(on.driver):
                self._event = on.driver.make_event(is_shared=False)

        def record(self, stream: int) -> None:
            with Selecting(on.driver):  # torch's events are of the stream's device
                on.driver.record(self._event, stream)

        def query(self) -> bool:
            return on.driver.is_done(self._event)

    on = device
    cuda = SimpleNamespace(current_stream=lambda _: on.current, Event=Event)
    nccl_group.torch = SimpleNamespace(  # type: ignore[assignment]
        cuda=cuda,
        device=torch.device,
        zeros=lambda n, device: bytes_on_gpu([0] * n, None, device),
        tensor=bytes_on_gpu,
        uint8=torch.uint8,
    )
    Group.Options = _Options  # type: ignore[attr-defined]
    nccl_group.LEAVE_S = nccl_group.FINISH_S = PATIENCE_S  # type: ignore[misc]
    nccl_group.dist = SimpleNamespace(ProcessGroupNCCL=Group, PrefixStore=_dist.PrefixStore)


class _Options:
    def __init__(self, *, is_high_priority_stream: bool) -> None:
        self.config = SimpleNamespace(blocking=True)


class ImitatedGroup:
    """See torch's ProcessGroupNCCL; ranks only send to each other."""

    def __init__(
        self, device: FakeDevice, store: Any, rank: int, world_size: int, options: _Options
    ) -> None:
        assert not options.config.blocking, "such a group cannot be aborted"
        gloo = _dist.ProcessGroupGloo._Options()
        gloo._devices = [_dist.ProcessGroupGloo.create_device(interface="lo")]
        gloo._timeout = _CONNECT
        self._gloo: Any = _dist.ProcessGroupGloo(store, rank, world_size, gloo)
        self._device = device
        self._stream = device.add_stream()
        self._aborted = threading.Event()
        self._begun: list[tuple[str, torch.Tensor, int]] | None = None

    def _set_sequence_number_for_group(self) -> None:
        pass

    def eager_connect_single_device(self, device: torch.device) -> None:
        assert device.index == 0

    def allreduce(self, _tensors: Sequence[torch.Tensor], _options: Any) -> Any:
        """Do nothing: what there is to be known of the warm-up."""
        return self._work()

    def _start_coalescing(self) -> None:
        assert self._begun is None, "begun twice"
        self._begun = []

    def send(self, tensors: Sequence[torch.Tensor], rank: int, _tag: int) -> None:
        self._begin("send", *tensors, rank=rank)

    def recv(self, tensors: Sequence[torch.Tensor], rank: int, _tag: int) -> None:
        self._begin("recv", *tensors, rank=rank)

    def _begin(self, kind: str, tensor: torch.Tensor, *, rank: int) -> None:
        assert self._begun is not None, "alone it would have to wait for what is begun first"
        if self._aborted.is_set():
            raise RuntimeError("NCCL communicator was aborted")
        self._begun.append((kind, tensor, rank))

    def _end_coalescing(self) -> Any:
        global operations  # noqa: PLW0603
        operations += 1
        begun, self._begun = self._begun or [], None
        kinds = [(kind, rank) for kind, _, rank in begun]
        gloo, aborted, device = self._gloo, self._aborted, self._device

        def kernel(*tensors: torch.Tensor) -> None:
            if aborted.is_set():
                return
            try:
                works = [
                    getattr(gloo, kind)([one], rank, 0)
                    for (kind, rank), one in zip(kinds, tensors, strict=True)
                ]
                for work in works:
                    work.wait()
            except RuntimeError:  # a peer has died
                aborted.wait()

        self._follow(self._stream, device.current)
        with device.on(self._stream):
            device.launch(kernel, *(tensor for _, tensor, _ in begun))
        return self._work()

    def _work(self) -> Any:
        return SimpleNamespace(wait=lambda: self._follow(self._device.current, self._stream))

    def _follow(self, stream: int, other: int) -> None:
        driver = self._device.driver
        with Selecting(driver):  # torch makes the tensors' device current
            event = driver.make_event(is_shared=False)
            driver.record(event, other)
            driver.wait(stream, event)
            driver.destroy_event(event)

    def abort(self) -> None:
        self._aborted.set()
        self._gloo.shutdown()
