"""Can two actors share GPU memory? Both try, with what a device ring uses, before it is relied on.

Rounds of system calls, each run by all actors of a graph at the same time:

1. `offer`: who would write allocates memory, fills it, records an event, and exports both;
2. `take`: who would read opens both, waits for the event on its stream, copies, compares, closes
   what it opened, and exports an event of its own;
3. `settle`: the writers open the readers' events, wait for them, and close them;
4. `finish`: all free what they made, which nobody has open any more.

What one side cannot do is told as text: a sandbox may refuse any of it, MIG instances share no
memory, some GPUs reach no other. Nothing here waits for ever: a GPU that is not done in time counts
as a refusal.
"""

from __future__ import annotations

import contextlib
import pickle
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from compiled_dag.cuda.device import open_device
from compiled_dag.cuda.driver import GRANULE, Translating
from compiled_dag.errors import DeviceError, MemoryCapError
from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from compiled_dag.cuda.device import Device
    from compiled_dag.cuda.driver import Event
    from compiled_dag.host import ActorContext

_KEY: Final = "offer of GPU memory"
_PATTERN: Final = bytes(range(1, 129)) * 8
_WAIT_S: Final = 5.0
_MIG: Final = " MIG "


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What an actor would share, or why it cannot."""

    uuid: str = ""
    name: str = ""
    memory: bytes = b""
    event: bytes = b""
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What came of an offer on the reader's side."""

    uuid: str = ""
    event: bytes = b""
    refusal: str = ""


class _Made:
    """What `offer` made in this process, until `settle`."""

    def __init__(self, device: Device) -> None:
        self.driver = device.driver
        self.pointer = self.driver.allocate(GRANULE)
        self.events: list[Event] = []

    def event(self) -> Event:
        """Return a new event that is destroyed at the end."""
        self.events.append(self.driver.make_event())
        return self.events[-1]

    def close(self) -> None:
        """Free all. Idempotent."""
        events, self.events = self.events, []
        for event in events:
            self.driver.destroy_event(event)
        pointer, self.pointer = self.pointer, 0
        if pointer:
            self.driver.free(pointer)


def offer(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """Make and export memory and an event (a `SystemCall`); returns an `Offer`, pickled."""
    try:
        device = open_device()
        with Translating(device.driver, "exporting GPU memory"):
            made = context.resources[_KEY] = _Made(device)
            source = device.from_host(_PATTERN)
            event = made.event()
            stream = device.stream()
            device.driver.copy(made.pointer, source.data_ptr(), len(_PATTERN), stream)
            device.driver.record(event, stream)
            found = Offer(
                uuid=device.uuid,
                name=device.name,
                memory=device.driver.export_memory(made.pointer),
                event=device.driver.export_event(event),
            )
    except (DeviceError, MemoryCapError) as error:
        found = Offer(refusal=_text(error))
    return pickle.dumps(found)


def take(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """Open what others offer (a `SystemCall`): a tuple of `Offer` in, one of `Taken` out."""
    offers: tuple[Offer, ...] = pickle.loads(payload)
    return pickle.dumps(tuple([_take(context, one) for one in offers]))


def _take(context: ActorContext, offered: Offer) -> Taken:
    try:
        device = open_device()
        with Translating(device.driver, "opening GPU memory"):
            return Taken(uuid=device.uuid, event=_copy(context, device, offered))
    except (DeviceError, MemoryCapError) as error:
        return Taken(refusal=_text(error) + (" (a MIG instance)" if _MIG in offered.name else ""))


def _copy(context: ActorContext, device: Device, offered: Offer) -> bytes:
    """Copy what is offered and compare it; returns the handle of an event recorded behind that."""
    driver = device.driver
    made: _Made = context.resources.get(_KEY) or context.resources.setdefault(_KEY, _Made(device))
    copied = device.new(("uint8", (len(_PATTERN),)))
    event = made.event()
    with _opened(device, offered) as (pointer, ready):
        stream = device.stream()
        driver.wait(stream, ready)
        driver.copy(copied.data_ptr(), pointer, len(_PATTERN), stream)
        driver.record(event, stream)
        if not _is_done_in_time(context, device, event):
            msg = f"a copy of {len(_PATTERN)} bytes was not done within {_WAIT_S} s"
            raise DeviceError(msg)
        if device.to_host(copied) != _PATTERN:
            raise DeviceError("what was copied is not what was there")
    return driver.export_event(event)


@contextlib.contextmanager
def _opened(device: Device, offered: Offer) -> Iterator[tuple[int, Event]]:
    driver = device.driver
    pointer = driver.import_memory(offered.memory)
    try:
        ready = driver.import_event(offered.event)
        try:
            yield pointer, ready
        finally:
            driver.destroy_event(ready)
    finally:
        driver.close_memory(pointer)


def settle(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """Wait for the readers' events (a `SystemCall`): their handles in, refusals out."""
    handles: tuple[bytes, ...] = pickle.loads(payload)
    return pickle.dumps(tuple([_settle(context, handle) for handle in handles]))


def _settle(context: ActorContext, handle: bytes) -> str:
    device = open_device()
    driver, made = device.driver, context.resources[_KEY]
    try:
        with Translating(driver, "opening a GPU event"):
            theirs = driver.import_event(handle)
            try:
                mine, stream = made.event(), device.stream()
                driver.wait(stream, theirs)
                driver.record(mine, stream)
                if not _is_done_in_time(context, device, mine):
                    return f"an event of the reader was not seen within {_WAIT_S} s"
            finally:
                driver.destroy_event(theirs)
    except DeviceError as error:
        return _text(error)
    return ""


def finish(context: ActorContext, payload: bytes, fds: Sequence[int]) -> bytes:  # noqa: ARG001
    """Free what was made (a `SystemCall`); when nobody has it open any more."""
    made = context.resources.pop(_KEY, None)
    if made is not None:
        made.close()
    return b""


def _is_done_in_time(context: ActorContext, device: Device, event: Event) -> bool:
    deadline = time.monotonic() + _WAIT_S
    site = Site(calm=True, slice_s=0.001)
    return context.waiter.until(lambda: device.driver.is_done(event), _nothing, deadline, site)


def _text(error: Exception) -> str:
    if isinstance(error, DeviceError) and error.is_lost:
        raise error
    return str(error)


def _nothing() -> None:
    """The wait has a deadline, and no graph yet."""
