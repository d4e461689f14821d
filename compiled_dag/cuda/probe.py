"""What can two actors' GPUs share? Both try, with what a ring uses, before it is relied on.

Rounds of system calls, each run by all actors of a graph at the same time:

1. `offer`: who would write allocates memory, fills it, records an event, and exports both;
2. `take`: who would read opens the memory, copies and compares; opens the event, has its stream
   wait for it, records an event of its own behind that and exports it; closes what it opened;
3. `settle`: the writers open the readers' events, wait for them, and close them;
4. `finish`: all free what they made, which nobody has open any more.

Memory, events, and memory of the host that can be pinned are each tried by themselves. What is
refused is told as text: a sandbox may refuse any of it, MIG instances share no memory, some GPUs
reach no other. Nothing here waits for ever: a GPU that is not done in time counts as a refusal.
"""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from compiled_dag.cuda.device import MIG, open_device
from compiled_dag.cuda.driver import GRANULE, Selecting, Translating
from compiled_dag.errors import DeviceError, MemoryCapError
from compiled_dag.shm.segment import Segment
from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compiled_dag.cuda.device import Device
    from compiled_dag.cuda.driver import Driver, Event
    from compiled_dag.host import ActorContext
    from compiled_dag.operation import Backend

_KEY: Final = "offer of GPU memory"
_PATTERN: Final = bytes(range(1, 129)) * 8
_WAIT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What an actor would share; texts say why it cannot."""

    uuid: str = ""
    name: str = ""
    memory: bytes = b""
    """Handle."""
    event: bytes = b""
    """Handle."""
    no_memory: str = ""
    no_events: str = ""
    no_pinning: str = ""
    backend: Backend = ""

    @classmethod
    def of_none(cls, why: str) -> Offer:
        """Return that of an actor that cannot use its GPU."""
        return cls(no_memory=why, no_events=why, no_pinning=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What came of an offer on the reader's side; texts say what failed."""

    uuid: str = ""
    event: bytes = b""
    """Handle."""
    no_memory: str = ""
    no_events: str = ""
    no_pinning: str = ""
    backend: Backend = ""


class _Made:
    """What was made in this process, until `finish`."""

    def __init__(self, device: Device) -> None:
        self._driver = device.driver
        self.pointer = self._driver.allocate(GRANULE)
        self._events: list[Event] = []

    def event(self, *, is_shared: bool) -> Event:
        """Return a new event that is destroyed at the end."""
        self._events.append(self._driver.make_event(is_shared=is_shared))
        return self._events[-1]

    def close(self) -> None:
        """Free all. Idempotent."""
        events, self._events = self._events, []
        pointer, self.pointer = self.pointer, 0
        with Selecting(self._driver):
            for event in events:
                self._driver.destroy_event(event)
            if pointer:
                self._driver.free(pointer)


class _Side:
    """One actor's part."""

    def __init__(self, context: ActorContext) -> None:
        """Set up.

        Raises:
            DeviceError: The actor cannot use its GPU.
            MemoryCapError: Its GPU has no memory left.
        """
        self._context = context
        self.device = device = open_device()
        self.driver = device.driver
        with Translating(self.driver, "using the GPU"):
            made: _Made | None = context.resources.get(_KEY)
            if made is None:
                made = context.resources[_KEY] = _Made(device)
            self.made = made
            self._mark = made.event(is_shared=False)

    def finish_copies(self) -> None:
        """Wait for the stream.

        Raises:
            DeviceError: It is not done in time.
        """
        self.driver.record(self._mark, self.device.stream())
        deadline, site = time.monotonic() + _WAIT_S, Site(calm=True, slice_s=0.001)
        is_done = partial(self.driver.is_done, self._mark)
        if not self._context.waiter.until(is_done, _nothing, deadline, site):
            raise DeviceError(f"the GPU was not done within {_WAIT_S} s")

    def attempt(self, what: str, run: Callable[[], bytes]) -> tuple[bytes, str]:
        """Return what `run` returns, or why it failed."""
        return attempt(self.driver, what, run)

    def export_memory(self) -> bytes:
        """Fill and export the memory."""
        source = self.device.from_host(_PATTERN)
        stream = self.device.stream()
        self.driver.copy(self.made.pointer, source.data_ptr(), len(_PATTERN), stream)
        self.finish_copies()
        return self.driver.export_memory(self.made.pointer)

    def export_event(self) -> bytes:
        """Record and export an event, which is done: nobody is to wait for long who opens it."""
        event = self.made.event(is_shared=True)
        self.driver.record(event, self.device.stream())
        self.finish_copies()
        return self.driver.export_event(event)

    def import_memory(self, handle: bytes) -> bytes:
        """Open another's memory, copy and compare."""
        # A GPU that is busy is found here: what it was to copy must not be closed meanwhile.
        self.finish_copies()
        copied = self.device.new(("uint8", (len(_PATTERN),)))
        pointer = self.driver.import_memory(handle)
        try:
            self.driver.copy(copied.data_ptr(), pointer, len(_PATTERN), self.device.stream())
            self.finish_copies()
        finally:
            self.driver.close_memory(pointer)
        if self.device.to_host(copied) != _PATTERN:
            raise DeviceError("what was copied is not what was there")
        return b""

    def import_event(self, handle: bytes) -> bytes:
        """Open another's event, and have the stream wait for it."""
        self.finish_copies()
        event = self.driver.import_event(handle)
        try:
            self.driver.wait(self.device.stream(), event)
            self.finish_copies()
        finally:
            self.driver.destroy_event(event)
        return b""

    def answer_event(self, handle: bytes) -> bytes:
        """Do that, and export an event recorded behind it."""
        self.import_event(handle)
        return self.export_event()

    def pin(self) -> bytes:
        """Pin memory that processes share, and unpin it."""
        return _pin(self.driver)


def offer(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """Make and export memory and an event (a `SystemCall`); returns an `Offer`, pickled."""
    try:
        side = _Side(context)
    except (DeviceError, MemoryCapError) as error:
        return pickle.dumps(Offer.of_none(_text(error)))
    memory, no_memory = side.attempt("exporting GPU memory", side.export_memory)
    event, no_events = side.attempt("exporting a GPU event", side.export_event)
    _, no_pinning = side.attempt("pinning memory", side.pin)
    found = Offer(
        uuid=side.device.uuid,
        name=side.device.name,
        memory=memory,
        event=event,
        no_memory=no_memory,
        no_events=no_events,
        no_pinning=no_pinning,
        backend=side.device.backend,
    )
    return pickle.dumps(found)


def take(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """Open what others offer (a `SystemCall`): a tuple of `Offer` in, one of `Taken` out."""
    offers: tuple[Offer, ...] = pickle.loads(payload)
    try:
        side = _Side(context)
    except (DeviceError, MemoryCapError) as error:
        why = _text(error)
        none = Taken(no_memory=why, no_events=why, no_pinning=why)
        return pickle.dumps((none,) * len(offers))
    return pickle.dumps(tuple([_take(side, one) for one in offers]))


def _take(side: _Side, offered: Offer) -> Taken:
    no_memory, no_events, event = "", "", b""
    if offered.memory:
        run = partial(side.import_memory, offered.memory)
        _, no_memory = side.attempt("opening GPU memory", run)
        if no_memory and MIG in offered.name + side.device.name:
            no_memory += " (MIG instances share no memory)"
    if offered.event:
        run = partial(side.answer_event, offered.event)
        event, no_events = side.attempt("opening a GPU event", run)
    _, no_pinning = side.attempt("pinning memory", side.pin)
    return Taken(
        uuid=side.device.uuid,
        event=event,
        no_memory=no_memory,
        no_events=no_events,
        no_pinning=no_pinning,
        backend=side.device.backend,
    )


def settle(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """Wait for the readers' events (a `SystemCall`): their handles in, texts of refusals out."""
    handles: tuple[bytes, ...] = pickle.loads(payload)
    side = _Side(context)
    tried = [
        side.attempt("opening a GPU event", partial(side.import_event, handle))
        for handle in handles
    ]
    return pickle.dumps(tuple([refusal for _, refusal in tried]))


def pin(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """Pin memory that processes share (a `SystemCall`); returns what refused it, pickled."""
    try:
        device = open_device()
        _, refusal = attempt(device.driver, "pinning memory", partial(_pin, device.driver))
    except (DeviceError, MemoryCapError) as error:
        refusal = _text(error)
    return pickle.dumps(refusal)


def finish(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """Free what was made (a `SystemCall`); when nobody has it open any more."""
    made = context.resources.pop(_KEY, None)
    if made is not None:
        made.close()
    return b""


def attempt(driver: Driver, what: str, run: Callable[[], bytes]) -> tuple[bytes, str]:
    """Return what `run` returns, or why it failed."""
    try:
        with Translating(driver, what):
            return run(), ""
    except (DeviceError, MemoryCapError, OSError) as error:
        text = _text(error)
        return b"", text if text.startswith(what) else f"{what}: {text}"


def _pin(driver: Driver) -> bytes:
    segment = Segment.create("compiled-dag-probe", GRANULE)
    try:
        mapping = segment.map(0, GRANULE)
        driver.register(mapping.address, GRANULE)
        driver.unregister(mapping.address)
    finally:
        segment.close()
    return b""


def _text(error: Exception) -> str:
    if isinstance(error, DeviceError) and error.is_lost:
        raise error
    return str(error)


def _nothing() -> None:
    """The wait has a deadline, and no graph yet."""
