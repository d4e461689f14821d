"""One channel with a device ring, each end in a process of its own, and nothing else around it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import select
import signal
import sys
import traceback
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from compiled_dag.channel import layout
from compiled_dag.channel.graph_segment import GraphSegment
from compiled_dag.channel.layout import ChannelSpec
from compiled_dag.channel.transport import Mechanism, Transport
from compiled_dag.cuda import leaving, ring
from compiled_dag.cuda.landing import LandingReader
from compiled_dag.cuda.reader import CudaReader
from compiled_dag.cuda.ring import Seat
from compiled_dag.cuda.staging import StagingWriter
from compiled_dag.cuda.writer import CudaWriter
from compiled_dag.ends import open_reader, open_writer
from compiled_dag.errors import ChannelClosedError
from compiled_dag.outcome import Place
from compiled_dag.shm.board import Board, Doorbell
from compiled_dag.shm.segment import Segment
from compiled_dag.shm.waiter import Waiter
from tests.cuda.fake import PATIENCE_S, FakeDevice, Settings
from tests.cuda.late import Shown, make_late

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from compiled_dag.channel.reader import Reader
    from compiled_dag.channel.writer import Writer
    from compiled_dag.ir import DeviceName
    from tests.cuda.late import Late

WRITER = 1
WRONG = 3
"""Exit code of who found wrong values."""
DTYPES = (torch.int32, torch.float32, torch.bfloat16, torch.uint8, torch.int64)


class WrongValuesError(AssertionError):
    """What arrived is not what was sent."""


@dataclass(kw_only=True)
class Plan:
    """What is sent: everything follows from the seed, so that both ends know it."""

    laps: int
    readers: int = 1
    depth: int = 4
    slot_bytes: int = 4096
    most: int = 1000
    """Elements of a tensor."""
    grows: bool = False
    counts: tuple[int, ...] = (0, 1, 1, 1, 3)
    """Of tensors in a message."""
    seed: int = 0
    settings: str = "pause_us=200"
    die: tuple[int, str, int] | None = None
    """Participant, name of a call, and at which of these it kills itself."""
    late: Late | None = None
    slow: tuple[int, ...] = ()
    """Readers that take their time."""
    cap_bytes: int | None = None
    mechanism: Mechanism = "cuda_ipc"
    host_ordered: bool = False
    overlaps: bool = False
    views: bool = False
    elsewhere: int = 0
    """The device that user code has made current."""
    copying: tuple[int, ...] = ()
    """In host memory: participants with a GPU."""
    device: DeviceName = "default"

    def is_on_gpu(self, participant: int) -> bool:
        return self.mechanism != "host" or participant in self.copying

    def shapes(self, lap: int) -> list[tuple[torch.dtype, tuple[int, ...]]]:
        """Return what tensors the message of a lap has."""
        draw = random.Random(self.seed * 1_000_003 + lap)
        most = self.most * (1 + lap // 16) if self.grows else self.most
        return [
            (draw.choice(DTYPES), (draw.randint(0, 3), draw.randint(1, max(1, most // 3))))
            for _ in range(draw.choice(self.counts))
        ]


def fill(tensor: torch.Tensor, lap: int) -> None:
    tensor.copy_(_pattern(tensor, lap))


def is_right(tensor: torch.Tensor, lap: int) -> bool:
    return bool(torch.equal(tensor, _pattern(tensor, lap)))


def _pattern(tensor: torch.Tensor, lap: int) -> torch.Tensor:
    numbers = torch.arange(tensor.numel()).reshape(tensor.shape) * 7 + lap
    return (numbers % 97).to(tensor.dtype)


class Rig:
    """The shared memory, seen from the test."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        segment = Board.create()
        self.board = Board(segment.fd)
        segment.close()
        readers = tuple(range(2, plan.readers + 2))
        transport = Transport(
            mechanism=plan.mechanism, host_ordered=plan.host_ordered, views=plan.views,
            copying=plan.copying, device=plan.device,
            node="Worker.f (node 1)", writer="Worker(1)",
        )  # fmt: skip
        self.spec = ChannelSpec(
            index=0, writer=WRITER, readers=readers, depth=plan.depth, label="Worker.f#1",
            transport=transport,
        )  # fmt: skip
        made = Segment(-1)
        GraphSegment.allocate(made, plan.readers + 2, (self.spec,))
        lines = tuple(range(plan.readers + 2))
        labels = ("driver", *(f"Worker({line})" for line in lines[1:]))
        self.graph = GraphSegment(made.fd, self.board, lines, (self.spec,), labels)
        self._children: dict[int, tuple[int, int]] = {}
        """By pidfd, participant and process id."""
        self._reports, self.report = os.pipe()
        self.shown = Shown()

    def start(self, participant: int, run: Callable[[End], object]) -> None:
        """Run a function as a participant, in a process of its own."""
        pid = os.fork()
        if pid:
            self._children[os.pidfd_open(pid)] = participant, pid
            return
        code = 1
        try:
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a test that hangs
            torch.set_num_threads(1)
            code = End(self, participant).run(run)
        except BaseException as error:
            code = WRONG if isinstance(error, WrongValuesError) else 1
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def wait(self) -> dict[int, int]:
        """Wait for everybody, and end the graph when it is time; returns exit codes.

        It is when all readers have read all, or, broken, when somebody died.
        """
        codes: dict[int, int] = {}
        missing = self.plan.readers
        while self._children:
            found, _, _ = select.select([self._reports, *self._children], [], [])
            if self._reports in found:
                missing -= len(os.read(self._reports, 64))
                if not missing:
                    self.graph.end(layout.CLOSED)
            for pidfd in set(found) - {self._reports}:
                participant, pid = self._children.pop(pidfd)
                os.close(pidfd)
                codes[participant] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                if codes[participant]:
                    self.graph.end(layout.BROKEN)
        return codes

    def close(self) -> None:
        for pidfd, (_, pid) in self._children.items():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(pidfd)
        os.close(self._reports)
        os.close(self.report)
        self.graph.close()


class End:
    """One participant, in its process."""

    def __init__(self, rig: Rig, participant: int) -> None:
        self.plan, self.participant, self._report = rig.plan, participant, rig.report
        segment = os.dup(rig.graph.segment.fd)
        processes, labels = rig.graph.processes, rig.graph.labels
        self.graph = GraphSegment(segment, rig.board, processes, (rig.spec,), labels)
        line = self.graph.layout.participant(participant) // 8
        self.graph.words[line + layout.PID] = os.getpid()
        self.shown = rig.shown
        watch = None if rig.plan.late is None else partial(rig.shown.watch, participant)
        self.device = FakeDevice(Settings(rig.plan.settings), watch)
        self.device.driver.select(rig.plan.elsewhere)
        self.waiter = Waiter(Doorbell(rig.board, participant))
        receive = self.device.make_stream() if rig.plan.overlaps else None
        self.seat = Seat(self.graph, rig.spec, self.device, self.waiter, receive)
        self.spec = rig.spec
        self.rings: list[Any] = []
        if rig.plan.die is not None and rig.plan.die[0] == participant:
            self._arm(*rig.plan.die[1:])
        if rig.plan.late is not None and rig.plan.late.stream[0] == participant:
            make_late(self, rig.plan.late)

    def _arm(self, name: str, number: int) -> None:
        """Die at the n-th call of a kind."""
        left = number

        def before(called: str) -> None:
            nonlocal left
            left -= called == name
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

        self.device.driver.before_call = before

    def note(self, name: str) -> None:
        """Tell of a point of the protocol that is no call of the driver."""
        if self.device.driver.before_call is not None:
            self.device.driver.before_call(name)

    def run(self, run: Callable[[End], object]) -> int:
        """Do as a participant does until the graph ends; returns 0 if nothing is left over."""
        with contextlib.suppress(ChannelClosedError):
            run(self)
            if self.participant != WRITER:
                os.write(self._report, b".")
            self.waiter.until(lambda: False, self.graph.guard)
        broken = self.graph.state == layout.BROKEN
        # What a dead peer's event holds up is not to be had, and without one only a fault is late.
        ring.CLOSE_S = 0.2 if broken else PATIENCE_S
        left = leaving.leave(self.rings)
        assert self.device.driver.current() == self.plan.elsewhere
        return 0 if broken or not left.rings else 5

    @property
    def is_on_gpu(self) -> bool:
        return self.plan.is_on_gpu(self.participant)

    def writer(self) -> Writer:
        made = open_writer(
            self.graph,
            self.spec,
            Place(method="Worker.f", actor="Worker(1)"),
            means=self.seat if self.is_on_gpu else None,
            slot_bytes=self.plan.slot_bytes,
            cap_bytes=self.plan.cap_bytes,
        )
        if isinstance(made, (CudaWriter, StagingWriter)):
            self.rings.append(made.ring)
        return made

    def reader(self) -> Reader:
        label, means = f"Reader({self.participant})", self.seat if self.is_on_gpu else None
        made = open_reader(self.graph, self.spec, self.participant, label, means)
        if isinstance(made, (CudaReader, LandingReader)):
            self.rings.append(made.ring)
        return made

    def messages(self, reader: Reader, count: int) -> Iterator[Any]:
        """Yield what comes."""
        words, word = self.graph.words, reader.sequence_word
        for _ in range(count):
            self.waiter.word(words, word, reader.sequence, self.graph.guard)
            box = [reader.peek()]
            self.note("acknowledge")
            reader.advance()
            self.graph.board.ring(WRITER)
            if self.plan.overlaps:
                reader.arrive()
            self.note("use")
            yield box.pop()  # whoever takes it is the only one who has it
            reader.take_back()
            self.shown.next_lap(self.participant)

    def await_window(self, lap: int) -> None:
        """Wait until the driver would have let this execution begin."""
        place = self.graph.layout.channels[0]
        lines = [place.reader(position) // 8 for position in range(len(self.spec.readers))]
        words, least = self.graph.words, lap - self.plan.depth + 1
        self.waiter.until(lambda: all(words[at] >= least for at in lines), self.graph.guard)


def send_all(end: End) -> None:
    """Be the writer of a plan."""
    writer = end.writer()
    for lap in range(end.plan.laps):
        tensors = []
        for dtype, shape in end.plan.shapes(lap):
            tensors.append(_made(end, dtype, shape, lap))
        value = tensors[0] if len(tensors) == 1 else {"lap": lap, "tensors": tensors}
        end.await_window(lap)
        writer.stage(value)
        end.note("publish")
        writer.publish()
        end.shown.next_lap(WRITER)


def _made(end: End, dtype: torch.dtype, shape: tuple[int, ...], lap: int) -> torch.Tensor:
    if not end.is_on_gpu:
        made = torch.empty(shape, dtype=dtype)
        fill(made, lap)
        return made
    made = end.device.new((str(dtype)[6:], shape))
    end.device.launch(lambda made: fill(made, lap), made)
    return made


def _look_at(end: End, shapes: Any, value: Any, lap: int, wrong: list[int]) -> None:
    found = [value] if isinstance(value, torch.Tensor) else value["tensors"]
    assert [(one.dtype, tuple(one.shape)) for one in found] == shapes, (lap, shapes)
    for one in found:
        if not end.is_on_gpu:
            if not is_right(one, lap):
                raise WrongValuesError(f"wrong values in lap {lap}")
            one.add_(1)  # it is the reader's own
            continue
        assert end.device.holds(one)
        end.device.launch(lambda one: is_right(one, lap) or wrong.append(lap), one)


def receive_all(end: End) -> None:
    """Be a reader of a plan; wrong values end the process."""
    reader, device = end.reader(), end.device
    wrong: list[int] = []
    is_slow = end.participant in end.plan.slow
    for value in end.messages(reader, end.plan.laps):  # enumerate() would keep it
        lap = reader.sequence - 1
        _look_at(end, end.plan.shapes(lap), value, lap, wrong)
        del value
        if is_slow and not lap % 7:
            device.synchronize()
    device.synchronize()
    if wrong:
        raise WrongValuesError(f"wrong values in laps {wrong[:10]}")


def play(
    plan: Plan,
    send: Callable[[End], object] = send_all,
    receive: Callable[[End], object] = receive_all,
) -> dict[int, int]:
    """Run a plan; returns exit codes by participant."""
    rig = Rig(plan)
    try:
        rig.start(WRITER, send)
        for reader in range(2, plan.readers + 2):
            rig.start(reader, receive)
        return rig.wait()
    finally:
        rig.close()
