"""What carries the tensors of one program in its process, where that is not host memory.

One owner for what a program has on its actor's GPU: the pace of the host, halves of device rings,
recorded methods. Nothing of it is made, and CUDA not touched, unless a step needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compiled_dag.channel.rendezvous import Peers
from compiled_dag.communicators import CommunicatorEnd, end_in
from compiled_dag.program import Release, Write, uses

if TYPE_CHECKING:
    from collections.abc import Callable

    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.channel.layout import ChannelSpec
    from compiled_dag.channel.reader import Reader
    from compiled_dag.channel.writer import Writer
    from compiled_dag.cuda.capturing import Capturing
    from compiled_dag.cuda.device import Device
    from compiled_dag.cuda.flow import Flow
    from compiled_dag.cuda.group import Line
    from compiled_dag.cuda.leaving import Ring
    from compiled_dag.cuda.rescue import Rescue, Waiting
    from compiled_dag.cuda.ring import Seat
    from compiled_dag.ends import Means
    from compiled_dag.host import ActorContext
    from compiled_dag.package import Package
    from compiled_dag.program import Compute

LEFT_RINGS = "device rings that are left"
"""Key of those among an actor's resources."""


class Carriers:
    """All of that, of one program."""

    def __init__(self, context: ActorContext, package: Package, graph: GraphSegment) -> None:
        self._context = context
        self._package = package
        self._graph = graph
        self.flow: Flow | None = None
        """Where tensors stay on the GPU."""
        self._rings: list[Ring] = []
        self._rescue: Rescue | None = None
        """Of those that have opened peers' events."""
        self._recorded: list[Capturing] = []

    @property
    def receives_aside(self) -> bool:
        """Whether tensors are received on a stream of its own."""
        return self.flow is not None and self.flow.receive is not None

    def means(self, spec: ChannelSpec) -> Means | None:
        """Return what carries a channel's tensors, if that is not host memory.

        Raises:
            DeviceError: It is the actor's GPU, which cannot be used.
        """
        if spec.transport.has_ring or self._package.participant in spec.transport.copying:
            return self._seat(spec)
        if spec.transport.has_group:
            return self._line(spec)
        number = spec.transport.communicator
        if number is None:
            return None
        end = end_in(self._context, self._package.graph_id, number)
        return Peers(end, self._package.ranks[number], self._context.waiter)

    def _seat(self, spec: ChannelSpec) -> Seat:
        from compiled_dag.cuda.ring import Seat  # noqa: PLC0415  few graphs need it

        device, flow = self._flowing()
        return Seat(self._graph, spec, device, self._context.waiter, flow.receive)

    def _line(self, spec: ChannelSpec) -> Line:
        from compiled_dag.cuda.group import Aside, Line  # noqa: PLC0415  few graphs need it
        from compiled_dag.cuda.outbox import BUFFERS, Departure, Outbox  # noqa: PLC0415

        device, flow = self._flowing()
        part = next(part for part in self._package.edges if part.members == spec.ends)
        end = part.groups.bind_rank(self._context, part.group_id)
        ranks = {member: rank for rank, member in enumerate(part.members)}
        me = self._package.participant
        peers = Peers(CommunicatorEnd(end, ranks[me]), ranks, self._context.waiter)
        if end.in_host_memory or flow.receive is None or flow.send is None:
            return Line(peers, end, device)
        if me != spec.writer:
            return Line(peers, end, device, aside=Aside(flow.receive, flow.make_event()))
        sent = tuple([flow.make_event() for _ in range(BUFFERS)])
        departure = Departure(flow.send, flow.make_event(), sent)
        cap_bytes = self._package.cap_bytes
        outbox = Outbox(device, departure, self._graph, spec, cap_bytes)
        return Line(peers, end, device, outbox=outbox)

    def _flowing(self) -> tuple[Device, Flow]:
        """Return the actor's GPU, and the pace of this program on it."""
        from compiled_dag.cuda.device import open_device  # noqa: PLC0415  few graphs need it
        from compiled_dag.cuda.flow import Flow  # noqa: PLC0415

        device, waiter = open_device(), self._context.waiter
        if self.flow is None:
            self.flow = Flow(device, self._graph, waiter, overlaps=self._package.overlaps)
        return device, self.flow

    def keep(self, end: Reader | Writer) -> None:
        """Note the half of a device ring that an end has: it is to be ended with the graph."""
        ring = getattr(end, "ring", None)
        if ring is None:
            return
        self._rings.append(ring)
        transport = end.spec.transport
        if transport.has_ring and not transport.host_ordered:
            self._look_after(ring)

    def _look_after(self, ring: Waiting) -> None:
        from compiled_dag.cuda.rescue import Rescue  # noqa: PLC0415  few graphs need it

        if self._rescue is None:
            self._rescue = Rescue(self._flowing()[0], self._graph.words)
        self._rescue.add(ring)

    def recorded(self, step: Compute, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return what records a method once; its results are copied if they do not just travel."""
        from compiled_dag.cuda.capturing import Capturing  # noqa: PLC0415  few graphs need it

        device, flow = self._flowing()
        others = (one for one in self._package.steps if not isinstance(one, (Release, Write)))
        copies = any(set(step.results).intersection(uses(one)) for one in others)
        made = Capturing(method, device, name, flow.settle, copies=copies)
        self._recorded.append(made)
        return made

    def close(self) -> None:
        """End what there is. Idempotent; what peers have open still is left to others."""
        recorded, self._recorded = self._recorded, []
        for one in recorded:
            one.close()
        if self.flow is not None:
            self.flow.close()
        if self._rings:
            from compiled_dag.cuda.leaving import leave  # noqa: PLC0415  few graphs need it

            rings, self._rings = self._rings, []
            if self._rescue is not None:
                self._rescue.close()
            left = leave(rings)
            if left.rings:
                self._context.resources.setdefault(LEFT_RINGS, left).add(left)
