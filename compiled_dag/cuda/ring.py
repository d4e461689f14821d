"""Device rings: how tensors go from one actor's GPU memory to others' without the host waiting.

The writer owns a ring of N slots in device memory, allocated outside torch's caching allocator and
exported by CUDA IPC; each reader opens it once. Slots are used in turn: *use* u, the u-th message
that has tensors on the GPU, is in slot ``u % N``. Everything else of a message (the value without
its tensors, what these look like, u, the ring's generation) is in the channel's host memory, and is
published there as always. Two events per slot order the GPU's work:

* ``ready[s]``, of the writer: recorded on its stream after the copies into slot s;
* ``free[s][r]``, of reader r: recorded on its stream after its last look at slot s.

Both are *recorded, then announced* on the host, when the work is enqueued and long before it is
done. A wait on an event binds to its latest record at the time of the call, so:

    writer, use u                                   reader r, use u
      wait (host) until every freed[r] > u - N        wait (host) for the message, as always
      stream waits for free[s][r], each r             stream waits for ready[s]
      copy tensors into slot s                        copy them out
      record ready[s]                                 record free[s][r]
      publish the message (u, generation)             freed[r] = u + 1, ring the writer's bell

* The reader's wait binds to the right record of ``ready[s]``: it was made before the message was
  published, and the next one is made only when ``freed[r]`` says that the reader's wait is behind.
* The writer's wait for ``free[s][r]`` binds to the record of use u - N: it was made before
  ``freed[r]``, which the writer has seen, and the next is made after use u is published.
* No host waits for a GPU. The one wait of a host is that of a writer N uses ahead of a reader's
  *host*. It cannot close a circle: it is for work of an earlier execution, and every actor runs
  executions in order. The driver, which reads when the user asks it to, is no reader of a ring.

One event per slot, not one per channel: with one a reader would wait for newer copies as well.

**Views** (`views`). A reader on the writer's GPU that was asked to takes no copies: its tensors are
in the slot. Then ``free[s][r]`` is recorded, and ``freed[r]`` said, behind the last step that can
have to do with them, which is in the same execution: what was said above holds as it is. A reader
whose user keeps a view past that says so (``kept[r]``, the generation, before ``freed[r]``), and
the writer starts another generation instead of using that one's slots again.

**Where GPUs share no memory** the same ring is in pinned host memory (`ring_memory`), and where
they share no events hosts do wait for the GPU: the writer until the copies in are done, before it
publishes, and the reader until the copies out are, before it says ``freed``. Nothing else differs.

**Growth.** Tensors that do not fit start a new *generation*: a larger ring, whose handle goes into
the next row of the table; the events stay. Its number is in the message. A reader that meets it
opens it, and closes the old one when its own copies out of that are done; then ``closed[r]`` says
so. Only when all readers have said it is the old memory freed: freeing what another process has
open is undefined in CUDA. Allocating and freeing wait for the GPU; slots at least double each time.

**The end.** The same holds there, in both directions. Each end first closes what it *imported*,
once its GPU is done with it, and says so (``ended``); then it frees what it *exported*, when its
peers have said so, are dead, or had never imported anything. The last is safe although they might
begin just then: who imports notes it, fences, and looks at the graph's state; who frees knows that
the graph has ended, fences, and looks at the note. One of them sees the other. What is not free
within `CLOSE_S` (a peer that is in user code, a GPU that waits for a dead peer) is left, and looked
at again when this actor loads or unloads another graph (`leaving`); the process's end frees
everything.

**Death.** A peer's memory may vanish, and its events may never be done, from the moment it dies. By
then the graph is broken (`compiled_dag.deployment`): no reader takes a message any more, whatever a
slot holds, and results that were under way fail as a whole. Streams that wait for the dead are set
free by who waits (`rescue`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from compiled_dag.channel.rendezvous import await_news
from compiled_dag.channel.ring_area import HANDLE
from compiled_dag.cuda.ring_memory import DeviceMemory, PinnedMemory
from compiled_dag.shm.futex import fence
from compiled_dag.shm.waiter import Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.channel.layout import ChannelSpec
    from compiled_dag.channel.ring_area import RingArea
    from compiled_dag.cuda.device import Device
    from compiled_dag.cuda.driver import Driver, Event, Stream
    from compiled_dag.cuda.ring_memory import RingMemory
    from compiled_dag.shm.waiter import Waiter

ALIGN: Final = 256
"""Of tensors in a slot."""
CLOSE_S = 2.0
"""How long an end waits for its peers to close what they have open, when the graph ends."""
LOOK_S: Final = 0.001
"""How often to look whether a GPU is done: it cannot ring a doorbell."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Where in which graph an end is, and what it works with."""

    graph: GraphSegment
    spec: ChannelSpec
    device: Device
    waiter: Waiter
    receive: Stream | None = None
    """Where a reader copies; None: on the current stream."""

    @property
    def memory(self) -> RingMemory:
        """What the ring is in."""
        if self.spec.transport.mechanism == "pinned":
            return PinnedMemory(self.device, self.graph, self.spec)
        return DeviceMemory(self.device)

    @property
    def area(self) -> RingArea:
        """Where the ring's words and handles are."""
        area = self.graph.layout.channels[self.spec.index].device
        assert area is not None, f"no device ring: {self.spec}"
        return area

    def make_events(self, events: list[Event], place: Callable[[int], int]) -> None:
        """Add an event for each slot to `events`; handles, if there are any, go to ``place(slot)``.

        Raises what the driver does; what it has made by then is in `events`.
        """
        driver, is_shared = self.device.driver, not self.spec.transport.host_ordered
        for slot in range(self.area.slots):
            event = driver.make_event(is_shared=is_shared)
            events.append(event)
            if is_shared:
                start = place(slot)
                self.graph.view[start : start + HANDLE] = driver.export_event(event)

    def is_gone(self, participant: int) -> bool:
        """Tell whether a participant's process is dead, and so has nothing open."""
        return is_dead(self.graph.pid(participant))

    def check_open(self) -> None:
        """Refuse to import anything of a graph that has ended; see the module's head.

        Raises:
            ChannelClosedError: It has.
        """
        fence()
        self.graph.guard()

    def await_news(self) -> None:
        """Wait for the news of a death, which is why most calls fail; raises as `check_open`."""
        await_news(self.waiter, self.graph)
        self.graph.guard()

    def await_gpu(self, event: Event, site: Site | None = None) -> None:
        """Have this host wait until an event is done; raises as `check_open`."""
        await_gpu(self.device.driver, event, self.waiter, self.graph.guard, site)

    def wait(self, ready: Callable[[], bool], deadline: float) -> bool:
        """Wait until `ready()`, for peers or for the GPU, also in a graph that has ended."""
        return self.waiter.until(ready, _no_guard, deadline, Site(calm=True, slice_s=LOOK_S))


def await_gpu(
    driver: Driver,
    event: Event,
    waiter: Waiter,
    guard: Callable[[], None],
    site: Site | None = None,
) -> None:
    """Have this host wait until an event is done.

    It looks again and again, since a GPU rings no doorbell, and blocking in CUDA cannot be ended.

    Args:
        driver: Whose event it is.
        event: The event.
        waiter: The thread's.
        guard: Raises to end the wait.
        site: Of `looking`, where waits are usual; None: where they are not.
    """
    if not driver.is_done(event):
        site = site or Site(calm=True, slice_s=LOOK_S)
        waiter.until(lambda: driver.is_done(event), guard, None, site)


def looking() -> Site:
    """Return a place where a host waits for its GPU again and again."""
    return Site(slice_s=LOOK_S)


def offsets(sizes: list[int]) -> tuple[list[int], int]:
    """Return where in a slot tensors of such sizes are, and the bytes of all."""
    places, at = [], 0
    for nbytes in sizes:
        places.append(at)
        at += -(-nbytes // ALIGN) * ALIGN
    return places, at


def closing_deadline() -> float:
    """Return when to stop waiting for peers at the end of a graph."""
    return time.monotonic() + CLOSE_S


def _no_guard() -> None:
    """The graph has ended already."""


def is_dead(pid: int) -> bool:
    """Tell whether a process has ended; 0 is one that has not come up, and has opened nothing."""
    if not pid:
        return True
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] in "ZX"
